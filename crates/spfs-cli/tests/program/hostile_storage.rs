//! Storage that is read-only, full, or somebody else's; caches and runtime directories that cannot be used.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use crate::common::{Caller, Cmd, Home, every_caller};

/// A script in a private mount namespace of the caller's own; every step prints what it is about.
pub fn privately(home: &Home, script: &str) -> Cmd {
    let mut words = vec!["unshare".to_owned()];
    if !home.caller().is_root() {
        words.extend(["--user".to_owned(), "--map-root-user".to_owned()]);
    }
    words.extend(["--mount", "sh", "-euc", script].map(str::to_owned));
    home.command(words)
}

const READ_ONLY: &str = r#"
mount --bind "$REPOSITORY" "$REPOSITORY"
mount -o remount,bind,ro "$REPOSITORY"
"#;

#[test]
fn a_read_only_store_can_be_read_and_run() {
    every_caller(|home| {
        home.write("tree/a", "a\n");
        home.write("new/b", "b\n");
        let layer = home.commit("tree", "one");
        home.set("REPOSITORY", home.repository().to_str().unwrap());
        let run = |code: &str| privately(home, &format!("{READ_ONLY}\n{code}")).run();
        run("spfs tags; spfs info one; spfs ls one; spfs read one a; spfs check; spfs log one; spfs clean; spfs runtime list").ok();
        // What is stored already needs no writing.
        run("spfs commit -q --path tree --tag one").ok().stdout_has(&layer);
        for command in ["commit --path new", "tag one other", "untag --all one", "write -f tree/../new/b", "render one"]
        {
            let said = run(&format!("spfs {command}"));
            said.code(1).stdout_is("").stderr_has("caused by: Read-only file system");
            said.stderr_has(home.repository().to_str().unwrap()).stderr_has("hint: `spfs config --origin`");
        }
        if home.caller().is_root() {
            run("spfs run one -- cat /spfs/a").ok().stdout_is("a").stderr_is("");
            let said =
                run("spfs run --edit one -- sh -c 'echo x > /spfs/x; spfs commit layer -t x; cat /spfs/x; spfs info'");
            said.stdout_has("x\n").stdout_has(" + /x").stderr_has("Read-only file system").stderr_has("hint: ");
            let said = run("spfs run --keep-runtime --runtime-name w one -- true");
            said.code(1).stderr_has("Read-only file system");
        }
        home.is_sound();
        home.spfs_line("tags").run().stdout_is("one\nsound");
    });
}

/// A repository on a file system of a few hundred kilobytes.
const TINY: &str = r#"
mkdir -p tiny
mount -t tmpfs -o size=800k,mode=755 tiny tiny
export SPFS_STORAGE_ROOT=$PWD/tiny/store
said() { echo "$@"; "$@" 2>&1 && code=0 || code=$?; echo "code $code"; }
clean() { spfs check > checked || { cat checked; exit 9; }; }
nothing_left() {
    left=$(find tiny/store/*/work -mindepth 1 2>/dev/null; find tiny -name '*.lock' -o -name '*.work')
    if [ "$left" ]; then echo "left: $left"; exit 9; fi
}
"#;

#[test]
fn a_full_disk_in_a_commit_of_a_directory() {
    every_caller(|home| {
        for number in 0..9 {
            let content: Vec<u8> =
                (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect();
            home.write(&format!("big/{number}"), content);
        }
        let out = privately(
            home,
            &format!(
                "{TINY}
                mkdir small; cp big/0 big/1 small; spfs commit -q --path small --tag before
                said spfs commit --path big --tag after
                nothing_left; clean
                test \"$(spfs tags)\" = before
                rm big/[2-8]; said spfs commit -q --path big --tag after
                nothing_left; clean
                spfs tags; spfs ls after"
            ),
        )
        .run();
        out.ok().stdout_has("caused by: No space left on device").stdout_has("error: could not write ");
        out.stdout_has("hint: `spfs clean` empties caches; SPFS_STORAGE_ROOT=DIR keeps things elsewhere")
            .stdout_has("code 1");
        out.stdout_has("code 0\nafter\nbefore\n0\n1\n");
    });
}

#[test]
fn a_full_disk_everywhere_else() {
    every_caller(|home| {
        home.write("tree/a", "a\n");
        let out = privately(
            home,
            &format!(
                "{TINY}
                spfs commit -q --path tree --tag one
                cat /dev/zero > tiny/filler 2>/dev/null || true
                spfs tags; spfs ls one; spfs read one a
                said spfs tag one two
                said spfs run --keep-runtime --runtime-name w - -- true
                said sh -c 'cat /dev/urandom | spfs write --tag noise'
                said spfs render one
                nothing_left; clean
                ls -A tiny/store/durable_edits 2>/dev/null
                rm tiny/filler
                spfs tag one two; spfs tags; nothing_left; clean"
            ),
        )
        .run();
        out.ok().stdout_has("one\na\na\nspfs tag one two\nerror: ").stdout_has("could not create lock ");
        assert_eq!(out.stdout.matches("caused by: No space left on device").count(), 4, "{out}");
        assert_eq!(out.stdout.matches("hint: `spfs clean` empties caches").count(), 4, "{out}");
        assert_eq!(out.stdout.matches("code 1").count(), 4, "{out}");
        out.stdout_has("created tag=two\none\ntwo\n");
    });
}

/// Only root can put its own store on a small file system and still mount environments without another namespace.
#[test]
fn a_full_disk_in_a_commit_of_changes() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let home = Home::new(Caller::Root);
    let out = privately(
        &home,
        &format!(
            "{TINY}
            spfs run - -- sh -c '
                head -c 900000 /dev/urandom > /spfs/big; echo small > /spfs/small
                spfs commit layer -t x 2>&1; echo code $?
                spfs info | tail -2
                wc -c < /spfs/big
                echo still > /spfs/small
                rm /spfs/big
                spfs commit layer -q -t x 2>&1; echo code $?'
            nothing_left; clean
            spfs ls x; spfs read x small"
        ),
    )
    .run();
    out.ok()
        .stdout_has("caused by: No space left on device")
        .stdout_has("hint: `spfs clean` empties caches")
        .stdout_has("code 1\n");
    out.stdout_has(" + /big\n + /small\n900000\n").stdout_has("code 0\nsmall\nstill\n");
    home.is_sound();
}

#[test]
fn memory_for_changes_is_full() {
    every_caller(|home| {
        home.set("SPFS_FILESYSTEM_TMPFS_SIZE", "1m");
        let code = "head -c 3000000 /dev/zero > /spfs/big; echo code $?; rm /spfs/big; echo a > /spfs/a; spfs commit layer -q -t a";
        let out = home.script("-", code).run();
        out.ok().stdout_has("code 1").stderr_has("No space left on device");
        home.spfs_line("read a a").run().ok().stdout_is("a");
        for (wrong, reason) in
            [("abc", "\"abc\" is no size"), ("-5", "\"-5\" is no size"), ("9".repeat(40).as_str(), "is no size")]
        {
            let said = home.script("-", "true").env("SPFS_FILESYSTEM_TMPFS_SIZE", wrong).run();
            said.code(1)
                .stderr_has("SPFS_FILESYSTEM_TMPFS_SIZE")
                .stderr_has(reason)
                .stderr_has("hint: `spfs help config`");
        }
        home.unset("SPFS_FILESYSTEM_TMPFS_SIZE");
        home.is_sound();
    });
}

#[test]
fn somebody_elses_store_can_be_used_for_reading() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let (root, user) = (Home::new(Caller::Root), Home::new(Caller::user()));
    root.write("tree/a", "a\n");
    root.commit("tree", "one");
    // Where the user can see it.
    fs::set_permissions(root.path("").parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    user.write("new/b", "b\n");
    user.set("SPFS_STORAGE_ROOT", root.repository().to_str().unwrap());
    user.spfs_line("tags").run().ok().stdout_is("one").stderr_is("");
    user.spfs_line("read one a").run().ok().stdout_is("a");
    user.spfs_line("check").run().ok();
    user.spfs_line("run one -- cat /spfs/a").run().ok().stdout_is("a").stderr_is("");
    for command in
        ["commit --path new", "tag one two", "untag --all one", "write -f new/b", "run -k --runtime-name w one -- true"]
    {
        let said = user.spfs_line(command).run();
        said.code(1)
            .stdout_is("")
            .stderr_has("caused by: Permission denied")
            .stderr_has("hint: `spfs config --origin`");
        said.stderr_has(root.repository().to_str().unwrap());
    }
    let said = user.script("one --edit", "echo b > /spfs/b; spfs commit layer; spfs info").run();
    said.stderr_has("Permission denied").stdout_has(" + /b");
    user.unset("SPFS_STORAGE_ROOT");
    user.is_sound();
    root.is_sound();
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    every_caller(|home| {
        home.write("tree/a", "a\n");
        home.commit("tree", "one");
        let works = |what: &str, set: &dyn Fn(Cmd) -> Cmd| {
            for reference in ["one", "one+one"] {
                let out = set(home.spfs(["run", reference, "--", "cat", "/spfs/a"])).run();
                assert!(out.status.success() && out.stdout == "a\n" && out.stderr.is_empty(), "{what}: {out}");
            }
            let out = set(home.spfs_line("commit -q --path tree")).run();
            assert!(out.status.success() && out.stderr.is_empty(), "{what}: {out}");
            set(home.spfs_line("clean")).run().ok();
        };
        home.write("file", "");
        for place in ["/proc/nowhere", "/dev/full", "/dev/null/x", "relative"] {
            works(place, &|cmd| cmd.env("XDG_CACHE_HOME", place));
        }
        works("a file", &|cmd| cmd.env("XDG_CACHE_HOME", home.path("file").to_str().unwrap()));
        // Open to others: what is in it is not trusted.
        fs::set_permissions(home.cache(), fs::Permissions::from_mode(0o777)).unwrap();
        works("open to others", &|cmd| cmd);
        fs::set_permissions(home.cache(), fs::Permissions::from_mode(0o500)).unwrap();
        works("read-only", &|cmd| cmd);
        fs::set_permissions(home.cache(), fs::Permissions::from_mode(0o700)).unwrap();
        let full =
            "mkdir -p full; mount -t tmpfs -o size=4k,mode=700 full full; cat /dev/zero > full/x 2>/dev/null || true
            XDG_CACHE_HOME=$PWD/full spfs commit -q --path tree && spfs ls one";
        privately(home, full).run().ok().stderr_is("");
        home.is_sound();
    });
}

/// A user that no database knows, and no HOME: then a place has to be named, and caches are done without.
#[test]
fn no_home_at_all() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let home = Home::new(Caller::Root);
    home.write("tree/a", "a\n");
    let stranger = |root: &str, words: &[&str]| {
        let uid = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "env", "-C", "/", "-u", "HOME"];
        let mut argv: Vec<String> = uid.map(str::to_owned).to_vec();
        argv.extend(["-u", "XDG_DATA_HOME", "-u", "XDG_CACHE_HOME", "-u", "XDG_CONFIG_HOME", root].map(str::to_owned));
        argv.push("spfs".to_owned());
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        home.command(argv).run()
    };
    for words in [["tags"].as_slice(), &["run", "-", "--", "true"], &["commit", "--path", "/etc"]] {
        stranger("A=b", words).code(1).stdout_is("").stderr_has("error: ").stderr_has("SPFS_STORAGE_ROOT");
    }
    stranger("A=b", &["version"]).ok();
    let place = home.path("place");
    fs::create_dir(&place).unwrap();
    chown(&place, Some(54321), Some(54321)).unwrap();
    fs::set_permissions(home.path("").parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = format!("SPFS_STORAGE_ROOT={}", place.join("store").display());
    let tree = home.path("tree");
    stranger(&root, &["commit", "-q", "--path", tree.to_str().unwrap(), "-t", "one"]).ok().stderr_is("");
    stranger(&root, &["read", "one", "a"]).ok().stdout_is("a");
    stranger(&root, &["clean"]).ok();
    home.wait_for_the_end();
}

/// A directory for runtimes that somebody else has prepared is never used.
#[test]
fn a_directory_for_runtimes_that_is_not_safe() {
    let home = Home::new(Caller::user());
    home.spfs_line("tags").run().ok();
    let dir = home.run_dir().join("spfs");
    let refused = |reason: &str| {
        for command in ["run - -- true", "runtime list", "clean"] {
            let said = home.spfs_line(command).run();
            said.code(1)
                .stdout_is("")
                .stderr_has(&format!("error: refusing to use {}", dir.display()))
                .stderr_has(reason);
        }
        // What needs no runtime works.
        home.spfs_line("tags").run().ok();
        home.spfs_line("check").run().ok();
    };
    let elsewhere = home.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    home.own(&elsewhere, 0o700);
    symlink(&elsewhere, &dir).unwrap();
    refused("it is not a directory");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    refused("it is not a directory");
    fs::remove_file(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    home.own(&dir, 0o755);
    refused("its mode 0755 lets others in; it must be 0700");
    if Caller::all().contains(&Caller::Root) {
        chown(&dir, Some(0), Some(0)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        refused("it belongs to user 0 and not to user ");
    }
    fs::remove_dir(&dir).unwrap();
    home.is_sound();
}

/// Without XDG_RUNTIME_DIR runtimes live in /tmp/spfs-UID, where anybody can be first.
#[test]
fn a_directory_in_tmp_that_another_user_made() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let home = Home::new(Caller::user());
    home.spfs_line("tags").run().ok();
    let dir = format!("/tmp/spfs-{}", home.caller().uid());
    // In a /tmp of its own, made by root, and then as the user.
    let command = |prepare: &str| {
        let uid = home.caller().uid();
        let code = format!(
            "mount -t tmpfs -o mode=1777 tmp /tmp; {prepare}
             unset XDG_RUNTIME_DIR
             exec setpriv --reuid={uid} --regid={} --init-groups -- spfs run - -- sh -c 'ls -d {dir}'",
            home.caller().gid()
        );
        let mut argv: Vec<String> = ["unshare", "--mount", "sh", "-euc"].map(str::to_owned).to_vec();
        argv.push(code);
        let env = Home::new(Caller::Root);
        let paths = ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"];
        let below =
            [home.home_dir(), home.home_dir().join(".local/share"), home.home_dir().join(".cache"), home.home_dir()];
        let command = paths.iter().zip(below).fold(env.command(argv), |cmd, (name, path): (_, std::path::PathBuf)| {
            cmd.env(name, path.to_str().unwrap())
        });
        command.cwd("/").run()
    };
    command("true").ok().stdout_is(&dir);
    let said = command(&format!("mkdir -m 777 {dir}"));
    said.code(1).stdout_is("").stderr_has(&format!("refusing to use {dir}: it belongs to user 0 and not to user"));
    let said = command(&format!("mkdir -m 777 /tmp/x; ln -s /tmp/x {dir}"));
    said.code(1).stdout_is("").stderr_has(&format!("refusing to use {dir}: it is not a directory"));
    assert!(Path::new("/tmp").exists());
    home.is_sound();
}

/// Records, which are JSON, must not lose a byte of any path.
#[test]
fn a_home_that_is_not_utf8() {
    every_caller(|home| {
        let code = r#"
            cd ~; strange=$(printf 'caf\351'); mkdir -p $strange/live; cd $strange; export HOME=$PWD
            unset XDG_DATA_HOME XDG_CACHE_HOME XDG_CONFIG_HOME
            spfs run - -- sh -c 'echo a > /spfs/a; spfs info; spfs commit layer -q -t a >&2' | tail -1
            spfs run --keep-runtime --runtime-name kept --edit a -- sh -c 'echo b > /spfs/b'
            spfs runtime list -q
            spfs run --rerun kept -- sh -c 'cat /spfs/a /spfs/b; spfs commit platform -q -t both >&2'
            spfs runtime info kept | grep -o '"durable_dir.*'
            spfs runtime rm --remove-durable kept
            spfs run both -- sh -c 'spfs edit >&2; rm /spfs/a; spfs diff'
            spfs run --backend render both -- ls /spfs
            spfs render both out | grep -o '[^/]*/out'; cat out/b
            echo 'api: spfs/v0/livelayer
contents: [{bind: live, dest: live}]' > layer.spfs.yaml
            echo live > live/file; spfs run both+./layer.spfs.yaml -- cat /spfs/live/file
            spfs clean >&2; spfs check | tail -1; spfs runtime list -q"#;
        let expected = " + /a\nkept\na\nb\n\"durable_dir\": \"HOME/caf\\u0000e9/.local/share/spfs/durable_edits/kept\",\n\
            -/spfs/a\na\nb\ncaf\\u0000e9/out\nb\nlive\nNo issues found";
        let out = home.sh(code).run();
        let home_dir = home.home_dir();
        assert_eq!(out.ok().stdout.trim_end().replace(home_dir.to_str().unwrap(), "HOME"), expected, "{out}");
        home.wait_for_the_end();
    });
}
