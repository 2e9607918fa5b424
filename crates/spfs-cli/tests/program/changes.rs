//! What a commit of a runtime's changes holds: what was done since the last one, and what is gone.

use crate::common::{Home, every_caller, everywhere};

/// Prints everything there is to know of /spfs: names, kinds, modes, sizes, targets, contents.
const TREE: &str = "tree() { (cd /spfs && find . -printf '%p %y %m %s %l\\n' | sed 's/ d \\([0-9]*\\) [0-9]*/ d \\1/' \
    | LC_ALL=C sort && find . -type f -readable -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum); }\n";

/// Runs `code` in `reference`, which commits; checks that /spfs did not change by that, that nothing is active
/// afterwards, and that `committed` shows the same tree in a new runtime. Returns that tree.
#[track_caller]
fn committed_as_it_was(home: &Home, reference: &str, code: &str, commit: &str, committed: &str) -> String {
    let code = format!(
        "{TREE} set -e; {code}\n tree > ~/before; {commit} >&2; tree > ~/after; \
        spfs diff; cmp ~/before ~/after"
    );
    home.script(reference, &code).run().ok().stdout_is("").stderr_has("no changes");
    let before = std::fs::read_to_string(home.home_dir().join("before")).unwrap();
    home.script(committed, &format!("{TREE} tree")).run().ok().stdout_is(&before);
    before
}

/// Runs `code` in the editable `reference`; returns the lines of `spfs info` about changes.
#[track_caller]
fn changes(home: &Home, reference: &str, code: &str) -> Vec<String> {
    let out = home.script(&format!("{reference} --edit"), &format!("cd /spfs; {code}\nspfs info")).run();
    let (_, changes) = out.ok().stdout.split_once("Active Changes").unwrap();
    changes.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn everything_that_a_tree_can_hold_comes_back() {
    everywhere(|home| {
        let code = r#"cd /spfs; umask 027
            mkdir -p a/b/c/d/e empty 'sp ace' 'new
line'; touch zero 'sp ace/ü' 'new
line/x'; echo deep > a/b/c/d/e/f
            head -c 3000000 /dev/urandom > big; cp big a/again; truncate -s 5M sparse
            echo '#!/bin/sh' > run; chmod 755 run; echo secret > closed; chmod 000 closed; echo s > s; chmod 4755 s
            ln -s run link; ln -s /no/where dangling; ln -s . loop; ln run hard
            mkdir -m 700 private; echo p > private/p; mkdir -m 3775 sticky; touch -- -dash
            n=$(printf '%0255d' 0); echo long > $n; mkdir -m 755 mode0; echo x > mode0/x
            for i in $(seq 300); do echo $i > a/b/$i; done"#;
        committed_as_it_was(home, "-", code, "spfs commit layer -t all", "all");
        home.spfs_line("read all closed").run().ok().stdout_is("secret");
        // What was hard-linked is two files of one content.
        home.script("all --edit", "echo more >> /spfs/hard; cat /spfs/run").run().ok().stdout_is("#!/bin/sh");
    });
}

#[test]
fn a_layer_holds_what_changed_since_the_last_commit() {
    every_caller(|home| {
        let code = "set -e; echo 1 > /spfs/one; spfs commit layer -t one; spfs edit; echo 2 > /spfs/two
            spfs commit layer -t two; spfs edit; echo 3 > /spfs/three; spfs commit layer --all -t all
            spfs info | grep -c '^  - '; spfs edit; spfs commit layer; echo $?";
        home.script("-", code).run().code(1).stderr_has("nothing to commit");
        let list = |reference: &str| home.spfs(["ls", reference]).run().ok().text().replace('\n', " ");
        assert_eq!(list("one"), "one");
        assert_eq!(list("two"), "two");
        assert_eq!(list("all"), "one three two");
    });
}

#[test]
fn a_platform_is_everything_with_the_edit_on_top() {
    everywhere(|home| {
        home.script("-", "echo base > /spfs/f; echo base > /spfs/g; spfs commit layer -t base").run().ok();
        home.script("-", "echo mid > /spfs/g; spfs commit layer -t mid").run().ok();
        let code = "echo top > /spfs/f; mkdir /spfs/d";
        let tree = committed_as_it_was(home, "base+mid --edit", code, "spfs commit platform -t top", "top");
        assert!(tree.contains("./d d "), "{tree}");
        home.script("top", "cat /spfs/f /spfs/g").run().ok().stdout_is("top\nmid");
        home.spfs_line("info top").run().ok().stdout_has("-> base").stdout_has("-> mid");
        // A platform of a runtime without changes is its stack.
        home.script("base+mid", "spfs commit platform -t same").run().ok();
        home.script("same", "cat /spfs/f /spfs/g").run().ok().stdout_is("base\nmid");
    });
}

#[test]
fn a_file_that_was_committed_and_then_deleted_is_masked() {
    everywhere(|home| {
        let code = "set -e; cd /spfs; echo x > f; mkdir -p d/e; echo y > d/e/g; spfs commit layer -t first
            spfs edit; rm -r f d; spfs info | sed -n '/^ /p' | tail -n 4; spfs commit layer -t second; spfs diff";
        home.script("-", code).run().ok().stdout_has(" - /d\n").stdout_has(" - /f\n").stderr_has("no changes");
        home.script("first+second", "ls -A /spfs").run().ok().stdout_is("");
        home.script("first", "ls -A /spfs").run().ok().stdout_is("d\nf");
        // Made, committed, deleted, and made again as it was: no change.
        let code = "set -e; cd /spfs; echo x > f; spfs commit layer >&2; spfs edit; rm f; echo x > f; spfs diff";
        home.script("-", code).run().ok().stdout_is("").stderr_has("no changes");
    });
}

#[test]
fn a_removed_directory_that_is_made_again_hides_its_old_content_everywhere() {
    everywhere(|home| {
        home.script("-", "mkdir -p /spfs/d/e; touch /spfs/d/old /spfs/d/e/old; spfs commit layer -t base").run().ok();
        let code = "cd /spfs; rm -r d; mkdir d; touch d/new";
        committed_as_it_was(home, "base --edit", code, "spfs commit layer -t again", "base+again");
        home.script("base+again", "find /spfs/d -type f").run().ok().stdout_is("/spfs/d/new");
        home.script("base+again --edit", "rmdir /spfs/d/e 2>&1; ls /spfs/d").run().ok().stdout_has("new");
        // The same in one runtime, where no whiteout tells.
        let code =
            "cd /spfs; mkdir d; touch d/old; spfs commit layer -t l1 >&2; spfs edit; rm -r d; mkdir d; touch d/new";
        committed_as_it_was(home, "-", code, "spfs commit layer -t l2", "l1+l2");
    });
}

#[test]
fn files_become_directories_and_the_reverse() {
    everywhere(|home| {
        home.script("-", "cd /spfs; echo f > x; mkdir -p y/sub; echo f > y/sub/f; ln -s x z; spfs commit layer -t a")
            .run()
            .ok();
        let code = "cd /spfs; rm -r x y z; mkdir x z; echo in > x/in; echo in > z/in; echo file > y";
        committed_as_it_was(home, "a --edit", code, "spfs commit layer -t b", "a+b");
        let code = "cd /spfs; rm -r x y z; echo f > x; mkdir y; ln -s y z";
        committed_as_it_was(home, "a+b --edit", code, "spfs commit layer -t c", "a+b+c");
        home.script("a+b+c", "cat /spfs/x; ls -A /spfs/y; readlink /spfs/z").run().ok().stdout_is("f\ny");
        home.script("a+c", "cat /spfs/x; ls -A /spfs/y; readlink /spfs/z").run().ok().stdout_has("f\n");
        // A file between two directories cuts off the lower one.
        home.script("a+b+a", "find /spfs -type f | sort").run().ok().stdout_has("/spfs/y/sub/f");
    });
}

#[test]
fn modes_alone_are_changes() {
    everywhere(|home| {
        home.script("-", "cd /spfs; echo f > f; mkdir d; echo g > d/g; echo l > s; spfs commit layer -t base")
            .run()
            .ok();
        let code = "cd /spfs; chmod 700 f; chmod 555 d; chmod 000 s";
        committed_as_it_was(home, "base --edit", code, "spfs commit layer -t mode", "base+mode");
        home.script("base+mode", "stat -c %a /spfs/f /spfs/d /spfs/s; cat /spfs/d/g")
            .run()
            .ok()
            .stdout_is("700\n555\n0\ng");
        assert_eq!(changes(home, "base", "chmod 700 f"), ["~ /f"]);
        assert_eq!(changes(home, "base", "chmod 700 f; chmod 644 f; touch d/g s"), Vec::<String>::new());
    });
}

#[test]
fn directories_from_below_are_renamed_by_copying() {
    everywhere(|home| {
        home.script("-", "cd /spfs; mkdir -p d/e; echo 1 > d/e/1; ln -s 1 d/e/l; spfs commit layer -t base").run().ok();
        let rename = "perl -e 'rename(\"d\", \"n\") or print \"$!\\n\"'";
        home.script("base --edit", &format!("cd /spfs; {rename}")).run().ok().stdout_is("Invalid cross-device link");
        let code = "cd /spfs; mv d n; mv n/e/1 top; mkdir new; echo 2 > new/2; mv new newer";
        committed_as_it_was(home, "base --edit", code, "spfs commit layer -t moved", "base+moved");
        assert_eq!(
            changes(home, "base", "mv d n"),
            ["- /d", "- /d/e", "- /d/e/1", "- /d/e/l", "+ /n", "+ /n/e", "+ /n/e/1", "+ /n/e/l"]
        );
    });
}

#[test]
fn info_and_diff_name_exactly_what_is_active() {
    every_caller(|home| {
        home.script("-", "cd /spfs; echo a > a; echo b > b; mkdir d; echo c > d/c; spfs commit layer -t base")
            .run()
            .ok();
        assert_eq!(changes(home, "base", "true"), Vec::<String>::new());
        assert_eq!(
            changes(home, "base", "echo n > n; rm a; echo B > b; echo C >> d/c"),
            ["~ /d/c", "- /a", "~ /b", "+ /n"]
        );
        // Touched, rewritten as it was, deleted and made again as it was: no changes.
        assert_eq!(changes(home, "base", "touch a; echo b > b; rm d/c; echo c > d/c"), Vec::<String>::new());
        assert_eq!(changes(home, "base", "echo t > t; rm t; mkdir e; rmdir e"), Vec::<String>::new());
        let code =
            "cd /spfs; rm a; chmod 600 b; spfs diff; spfs commit layer -t top >&2; spfs diff; spfs info | tail -n 1";
        let out = home.script("base --edit", code).run();
        let expected = "-/spfs/a\n~/spfs/b [mode {100644=>100600}]\nNo Active Changes";
        assert_eq!(out.text(), expected, "{out}");
        home.spfs_line("diff base base+top").run().ok().stdout_has("-/spfs/a\n");
    });
}

#[test]
fn a_commit_minds_no_open_files_and_no_working_directories() {
    everywhere(|home| {
        let code = "mkdir /spfs/d; cd /spfs/d; echo content > f; exec 3< f
            sleep 1000 < f & pid=$!
            spfs commit layer -t held && cat <&3 && pwd && ls && cat f
            spfs edit; echo more > g; spfs commit layer -t next && ls; kill $pid";
        home.script("-", code).run().stdout_has("content\n/spfs/d\nf\ncontent\n").stdout_has("\nf\ng\n");
        home.script("held+next", "ls /spfs/d").run().ok().stdout_is("f\ng");
    });
}

#[test]
fn a_file_that_stays_open_for_writing_can_be_committed() {
    every_caller(|home| {
        let code = "exec 3> /spfs/log; echo one >&3; spfs commit layer -t log; echo two >&3; exec 3>&-; cat /spfs/log";
        home.script("-", code).run().ok();
        home.script("log", "cat /spfs/log").run().ok().stdout_is("one");
    });
}

#[test]
fn a_fast_commands_commit_is_never_lost() {
    every_caller(|home| {
        for i in 0..8 {
            home.script("-", &format!("echo {i} > /spfs/n; exec spfs commit layer -t n/{i} -q")).run().ok();
            home.script(&format!("n/{i}"), "cat /spfs/n").run().ok().stdout_is(&i.to_string());
        }
    });
}
