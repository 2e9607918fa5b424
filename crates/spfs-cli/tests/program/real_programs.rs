//! Real programs in an editable runtime: what they made is committed, run again, and compared byte for byte.

use crate::common::{Home, every_strategy, full};

/// Prints every path of /spfs with what a commit keeps, and the checksum of every file.
pub const LISTING: &str = r#"cd /spfs; find . ! -type f -printf '%y %m %l %p\n' | sort
    find . -type f -printf '%m %s %p\n' | sort; find . -type f -print0 | sort -z | xargs -0 -r sha256sum"#;

/// Runs `code` in an editable runtime of `reference` with the umask 022, commits the changes as `tag`, and sees that a
/// new runtime of both has the same bytes.
#[track_caller]
pub fn make(home: &Home, reference: &str, tag: &str, code: &str) {
    let before = home.path("before").display().to_string();
    let after = home.path("after").display().to_string();
    let code =
        format!("set -eu; umask 022; cd /spfs; {code}\n{{ {LISTING}\n}} > {before}; spfs commit layer -q -t {tag}");
    home.script(&format!("{reference} --edit"), &code).limit(std::time::Duration::from_secs(600)).run().ok();
    let both = if reference == "-" { tag.to_owned() } else { format!("{reference}+{tag}") };
    let compare = format!("{{ {LISTING}\n}} > {after}; test -s {before} && diff {before} {after}");
    home.script(&both, &compare).run().ok();
}

#[test]
fn git_sees_a_clean_tree_in_the_next_runtime_and_every_change() {
    every_strategy(|home| {
        home.set("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, value) in
            [("AUTHOR_NAME", "a"), ("AUTHOR_EMAIL", "a@b"), ("COMMITTER_NAME", "a"), ("COMMITTER_EMAIL", "a@b")]
        {
            home.set(&format!("GIT_{name}"), value);
        }
        let origin = "git init -q -b main origin; cd origin; mkdir -p a/b; for n in $(seq 60); do echo $n > a/f$n; echo $n > a/b/f$n; done
            ln -s a/f1 link; printf '#!/bin/sh\\n' > run; chmod 755 run; git add .; git commit -qm one; echo two >> a/f1; git commit -qam two";
        home.sh(origin).run().ok();
        let origin = home.path("origin").display().to_string();
        make(
            home,
            "-",
            "cloned",
            &format!(
                "git clone -q file://{origin} clone; git clone -q --local clone linked; cd clone; git status --porcelain; git gc -q; git fsck --no-progress"
            ),
        );
        let look = "cd /spfs/clone && git status --porcelain && git diff --stat && git log --oneline | wc -l && git fsck --no-progress";
        home.script("cloned", look).run().ok().stdout_is("2");
        home.script("cloned --edit", look).run().ok().stdout_is("2");
        // The index is written anew with the times of the layer. A change of the same size, committed without git's
        // knowledge, must not hide behind a time that is the same as ever.
        make(
            home,
            "cloned",
            "refreshed",
            "cd clone; git status --porcelain; git update-index --refresh -q; cd ..; git -C linked status --porcelain",
        );
        make(home, "cloned+refreshed", "changed", "printf '2\\n' > clone/a/f3; mv clone/a/b/f4 clone/a/b/f5");
        let expected = " D a/b/f4\n M a/b/f5\n M a/f3";
        for options in ["", "--edit"] {
            home.script(&format!("cloned+refreshed+changed {options}"), "cd /spfs/clone; git status --porcelain")
                .run()
                .ok()
                .stdout_is(expected);
        }
        make(
            home,
            "cloned+refreshed+changed",
            "branched",
            "cd clone; git commit -qam three; git checkout -q -b side HEAD~1; git merge -q main; ! git mv a c 2>said; grep -q -i 'cross-device' said; rm said; mv a c; git add -A; git commit -qm moved; cd ..",
        );
        home.script(
            "cloned+refreshed+changed+branched",
            "cd /spfs/clone; git status --porcelain; ls; git log --oneline | wc -l",
        )
        .run()
        .ok()
        .stdout_is("c\nlink\nrun\n4");
    });
}

#[test]
fn archives_come_out_as_they_went_in() {
    every_strategy(|home| {
        let source = "umask 022; mkdir -p source/sub/deep source/none; cd source; head -c 100000 /dev/urandom > random; : > empty
            truncate -s 1M sparse; printf end >> sparse; ln random sub/second; ln -s ../random sub/link; ln -s /nowhere dangling
            for m in 400 444 600 755 711; do echo mode > mode$m; chmod $m mode$m; done; chmod 750 sub; echo x > 'sub/a name'
            setfattr -n user.mine -v value sub/deep 2>/dev/null || true";
        home.sh(source).run().ok();
        let source = home.path("source").display().to_string();
        make(
            home,
            "-",
            "archived",
            &format!(
                "rsync -aHAX --sparse {source}/ synced/; mkdir taken copied; tar -C {source} -cf - . | tar -C taken -xpSf -
                cp -a {source}/. copied; test $(stat -c %h synced/random) = 2; test $(stat -c %i synced/random) = $(stat -c %i synced/sub/second)"
            ),
        );
        // Everything but times, which are not kept, and hard links, which become files of their own.
        let same = |from: &str, to: &str| {
            format!("rsync -rlpgoDAXcin --delete {from}/ {to}/ | grep -v '^cd.*deep/$\\|sub/deep/' || true")
        };
        let code = ["synced", "taken", "copied"].map(|name| same(&source, &format!("/spfs/{name}"))).join("; ");
        home.script("archived --edit", &code).run().ok().stdout_is("");
        // Out again; and over what is below, where there is nothing left to do.
        let out = "rsync -aHAX /spfs/synced/ out; tar -C /spfs/taken -cf - . | tar -C $PWD/out -df -; diff -r --no-dereference out /spfs/copied && rm -rf out";
        home.script("archived", out).run().ok().stdout_is("");
        make(
            home,
            "archived",
            "again",
            &format!(
                "rsync -aHAX {source}/ synced/; echo changed > synced/empty; chmod 600 synced/mode755; rsync -acAXi --delete {source}/ synced/ | cut -c1-2,13- | sort > log"
            ),
        );
        home.script("archived+again", "grep -v / /spfs/log").run().ok().stdout_is(".fmode755\n>fempty");
        // The same environment makes the same archive, in every runtime.
        let archive = "cd /spfs; tar --sort=name --owner=0 --group=0 -cf - * | sha256sum";
        let first = home.script("archived", archive).run().ok().stdout.clone();
        home.script("archived --edit", archive).run().ok().stdout_is(&first);
    });
}

#[test]
fn databases_keep_what_was_written() {
    every_strategy(|home| {
        let rows: u64 = if full() { 200_000 } else { 5_000 };
        let insert = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i, hex(i) FROM n;"
        );
        let make_it = format!(
            "sqlite3 data.db 'CREATE TABLE t(i INTEGER PRIMARY KEY, s TEXT); {insert} CREATE INDEX s ON t(s);'"
        );
        make(home, "-", "database", &make_it);
        let look = "sqlite3 -batch /spfs/data.db 'PRAGMA integrity_check; SELECT count(*), sum(i) FROM t;'";
        let expected = format!("ok\n{rows}|{}", rows * (rows + 1) / 2);
        home.script("database", look).run().ok().stdout_is(&expected);
        // A reader has the file of the layer open and mapped while a writer changes it for the first time.
        let together = "mkfifo pipe; sqlite3 -batch data.db < pipe > read & exec 3> pipe
            echo 'PRAGMA mmap_size=100000000; SELECT count(*) FROM t;' >&3; while ! grep -q . read; do sleep 0.01; done
            sqlite3 data.db 'DELETE FROM t WHERE i % 2 = 0;'
            echo 'SELECT count(*) FROM t;' >&3; exec 3>&-; wait; rm pipe";
        make(home, "database", "halved", together);
        let read = home
            .script("database+halved", "tail -n 1 /spfs/read; sqlite3 -batch /spfs/data.db 'SELECT count(*) FROM t;'")
            .run();
        read.stdout_is(&format!("{0}\n{0}", rows / 2));
        // Write-ahead log: two writers at once.
        let log = "sqlite3 data.db 'PRAGMA journal_mode=wal;' > mode; for w in 1 2; do
            (for n in $(seq 20); do sqlite3 -cmd '.timeout 20000' data.db \"INSERT INTO t(s) VALUES('$w-$n');\"; done) & done; wait
            sqlite3 data.db 'PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=delete; PRAGMA integrity_check; VACUUM;' >> mode";
        make(home, "database+halved", "logged", log);
        home.script("database+halved+logged", "cat /spfs/mode; sqlite3 -batch /spfs/data.db 'SELECT count(*) FROM t;'")
            .run()
            .ok()
            .stdout_is(&format!("wal\n0|0|0\ndelete\nok\n{}", rows / 2 + 40));
    });
}

#[test]
fn compilers_build_what_runs_in_the_next_runtime() {
    every_strategy(|home| {
        home.write("src/part.c", "#include \"part.h\"\nint part(void) { return 40; }\n");
        home.write("src/part.h", "int part(void);\n");
        home.write(
            "src/main.c",
            "#include <stdio.h>\n#include \"part.h\"\nint main(void) { printf(\"%d\\n\", part() + 2); }\n",
        );
        home.write(
            "src/Makefile",
            "main: main.o libpart.so\n\tgcc -o main main.o -L. -lpart -Wl,-rpath,/spfs/src\nlibpart.so: part.o\n\tgcc -shared -o libpart.so part.o\n\
             %.o: %.c part.h\n\tgcc -fPIC -c -o $@ $<\n",
        );
        let src = home.path("src").display().to_string();
        make(home, "-", "built", &format!("cp -r {src} .; cd src; make -s; ./main"));
        home.script("built", "/spfs/src/main; make -q -C /spfs/src && find /spfs -mindepth 1 -newer /spfs/src/part.c")
            .run()
            .ok()
            .stdout_is("42");
        // What is changed in a runtime is newer than anything below, for `make` and for `find`.
        let change = "cd src; sed -i s/40/50/ part.c; find . -newer main -type f; ! make -q; make -s; ./main; make -q; strip main; ar rc all.a main.o part.o";
        make(home, "built", "rebuilt", &format!("{{ {change}\n}} > /spfs/said"));
        home.script("built+rebuilt", "cat /spfs/said; /spfs/src/main; make -q -C /spfs/src")
            .run()
            .ok()
            .stdout_is("./part.c\n52\n52");
    });
}

#[test]
fn python_runs_from_its_own_environment() {
    every_strategy(|home| {
        home.set("PYTHONDONTWRITEBYTECODE", "");
        home.write("module/thing.py", "def value():\n    return 42\n");
        let module = home.path("module/thing.py").display().to_string();
        let code = format!(
            "/usr/bin/python3 -m venv --without-pip venv; cp {module} venv/lib/python3*/site-packages/
            venv/bin/python -c 'import thing, sys; assert sys.prefix == \"/spfs/venv\"; print(thing.value())'"
        );
        make(home, "-", "venv", &code);
        // The compiled module names the time of its source, which is another one from now on: it is compiled again in
        // memory, and nothing breaks.
        let run = ". /spfs/venv/bin/activate; python -c 'import thing, sys; print(thing.value(), sys.prefix)'";
        for options in ["", "--edit"] {
            home.script(&format!("venv {options}"), run).run().ok().stdout_is("42 /spfs/venv");
        }
        // A source that is changed when its module was last compiled in this very runtime is seen…
        make(
            home,
            "venv",
            "changed",
            "venv/bin/python -c 'import thing'; sed -i s/42/43/ venv/lib/python3*/site-packages/thing.py
            test $(venv/bin/python -c 'import thing; print(thing.value())') = 43",
        );
        home.script("venv+changed", run).run().ok().stdout_is("43 /spfs/venv");
        // …and one whose size stays the same while the module is that of the layer below is not: docs/semantics.md.
        make(home, "venv+changed", "compiled", "venv/bin/python -c 'import thing'");
        make(home, "venv+changed+compiled", "hidden", "sed -i s/43/44/ venv/lib/python3*/site-packages/thing.py");
        home.script("venv+changed+compiled+hidden", run).run().ok().stdout_is("43 /spfs/venv");
    });
}
