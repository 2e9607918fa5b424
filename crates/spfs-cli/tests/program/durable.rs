//! Durable runtimes: kept on disk with their edits, listed, entered again, removed.
//!
//! Each test has a name of its own for its runtime: the tests run side by side, and the number of a mount namespace that
//! has ended goes to the next one, which only the name then tells apart.

use crate::common::{Home, every_caller, everywhere};

/// Prints everything there is to know of /spfs.
const TREE: &str = "tree() { (cd /spfs && find . -printf '%p %y %m %l\\n' | LC_ALL=C sort && \
    find . -type f | LC_ALL=C sort | xargs -r grep -H ''); }\n";

/// Removes the durable runtime `name`, so that the home is left clean.
fn remove(home: &Home, name: &str) {
    home.wait_for_the_end();
    home.spfs(["runtime", "rm", "--remove-durable", name]).run().ok();
    home.spfs_line("runtime list -q").run().ok().stdout_is("");
}

fn with_base(home: &Home) {
    let code =
        "cd /spfs; mkdir -p d/e; for i in 1 2 3; do echo $i > d/$i; done; echo e > d/e/e; spfs commit layer -t base";
    home.script("-", code).run().ok();
}

#[test]
fn edits_come_back_exactly() {
    everywhere(|home| {
        with_base(home);
        let code = "cd /spfs; echo new > new; rm d/1; echo changed > d/2; chmod 700 d/3; mv d/e moved; mkdir n; mv n n2
            ln -s new l; rm -rf d/e; spfs diff; tree > ~/tree";
        let first = home.script("base --edit --keep-runtime --runtime-name kept", &format!("{TREE}{code}")).run();
        first.ok();
        for _ in 0..2 {
            home.spfs(["run", "--rerun", "kept", "--", "sh", "-c", &format!("{TREE}spfs diff; tree | cmp - ~/tree")])
                .run()
                .ok()
                .stdout_is(&first.stdout);
        }
        // It is as editable as it was, and what is done then is kept too.
        home.spfs_line("run --rerun kept -- touch /spfs/later").run().ok();
        home.spfs_line("run --rerun kept --no-edit -- sh")
            .stdin("ls /spfs/later; touch /spfs/x || echo ro")
            .run()
            .ok()
            .stdout_is("/spfs/later\nro");
        remove(home, "kept");
    });
}

#[test]
fn edits_after_a_commit_come_back_on_top_of_it() {
    everywhere(|home| {
        with_base(home);
        let code = "cd /spfs; echo 1 > one; rm d/1; spfs commit layer -t one >&2; spfs edit; echo 2 > two; rm one d/2; mkdir d/1
            spfs diff; tree > ~/tree; spfs info | grep -c -- '->'";
        let first = home.script("base --edit --keep-runtime --runtime-name layered", &format!("{TREE}{code}")).run();
        first.ok().stdout_is("+/spfs/d/1\n-/spfs/d/2\n-/spfs/one\n+/spfs/two\n2");
        let again =
            format!("{TREE}spfs diff; tree | cmp - ~/tree; spfs info | grep -c -- '->'; spfs commit layer -t two >&2");
        let out = home.spfs(["run", "--rerun", "layered", "--", "sh", "-c", &again]).run();
        assert!(out.ok().stdout.starts_with(&first.stdout), "{out}");
        home.script("base+one+two", &format!("{TREE}tree | cmp - ~/tree")).run().ok();
        home.spfs_line("run --rerun layered -- spfs diff").run().ok().stdout_is("").stderr_has("no changes");
        remove(home, "layered");
    });
}

#[test]
fn edits_after_a_reset_come_back() {
    every_caller(|home| {
        with_base(home);
        let code = "echo 1 > /spfs/one; spfs reset; echo 2 > /spfs/two; spfs reset d; spfs diff";
        home.script("base --edit --keep-runtime --runtime-name cleared", code).run().ok().stdout_is("+/spfs/two");
        home.spfs_line("run --rerun cleared -- sh")
            .stdin("spfs diff; spfs reset --ref - --keep-changes; ls /spfs")
            .run()
            .ok()
            .stdout_is("+/spfs/two\ntwo");
        home.spfs_line("run --rerun cleared -- ls /spfs").run().ok().stdout_is("two");
        remove(home, "cleared");
    });
}

#[test]
fn one_without_a_name_is_told_with_what_removes_it() {
    every_caller(|home| {
        let out = home.spfs_line("run --keep-runtime - -- true").run();
        let told = out.ok().stderr.split('`').nth(1).unwrap_or_else(|| panic!("{out}"));
        home.wait_for_the_end();
        let name = home.spfs_line("runtime list -q").run().ok().text().to_owned();
        assert_eq!(told, format!("spfs runtime rm --remove-durable {name}"));
        home.sh(told).run().ok();
        home.spfs_line("runtime list -q").run().ok().stdout_is("");
    });
}

#[test]
fn one_that_runs_is_not_entered_twice() {
    everywhere(|home| {
        let start = home.script("- --keep-runtime --runtime-name busy", "echo x > /spfs/x; echo ready; cat");
        let mut inside = start.stdin_open().spawn();
        inside.wait_for("ready");
        for force in ["", "--force"] {
            home.spfs_line(&format!("run --rerun busy {force} -- true")).run().code(1).stderr_has("spfs join");
        }
        home.spfs_line("run - --runtime-name busy -- true").run().code(1).stderr_has("exists already");
        home.spfs_line("run - --keep-runtime --runtime-name busy -- true").run().code(1).stderr_has("exists already");
        home.spfs_line("runtime rm --remove-durable busy").run().code(1).stderr_has("running");
        home.spfs_line("join busy -- cat /spfs/x").run().ok().stdout_is("x");
        home.spfs_line("runtime list").run().ok().stdout_has("durable=true").stdout_has("status=running");
        inside.finish().ok();
        home.spfs_line("run - --keep-runtime --runtime-name busy -- true").run().code(1).stderr_has("exists already");
        home.spfs_line("run --rerun busy -- cat /spfs/x").run().ok().stdout_is("x");
        remove(home, "busy");
    });
}

#[test]
fn many_that_rerun_it_at_once_get_it_one_after_another_or_not_at_all() {
    every_caller(|home| {
        home.script("- --keep-runtime --runtime-name queue", "touch /spfs/x").run().ok();
        let code = "mkdir ~/lock || exit 99; ls /spfs >/dev/null; rmdir ~/lock";
        let all: Vec<_> =
            (0..6).map(|_| home.spfs(["run", "--rerun", "queue", "--", "sh", "-c", code]).spawn()).collect();
        let codes: Vec<_> = all.into_iter().map(|one| one.finish().status.code()).collect();
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 1))), "two were inside at once: {codes:?}");
        remove(home, "queue");
    });
}

#[test]
fn a_live_one_is_made_durable() {
    everywhere(|home| {
        with_base(home);
        let code =
            "echo x > /spfs/x; rm d/1 2>/dev/null; rm /spfs/d/1; spfs edit --keep-runtime; echo y > /spfs/y; spfs diff
            spfs edit --keep-runtime";
        let first = home.script("base --edit --runtime-name turned", code).run();
        first.ok().stdout_is("-/spfs/d/1\n+/spfs/x\n+/spfs/y");
        home.spfs_line("run --rerun turned -- spfs diff").run().ok().stdout_is(&first.stdout);
        remove(home, "turned");
    });
}

#[test]
fn they_are_listed_and_described_and_removed() {
    every_caller(|home| {
        with_base(home);
        home.script("base --runtime-name gone", "true").run().ok();
        home.spfs_line("run base --runtime-name listed -- true").env("SPFS_KEEP_RUNTIME", "1").run().ok();
        home.wait_for_the_end();
        let line = home.spfs_line("runtime list").run().ok().text().to_owned();
        for word in ["listed ", "running=false", "editable=false", "durable=true", "status=saved"] {
            assert!(line.contains(word), "{line}");
        }
        assert_eq!(line.lines().count(), 1, "{line}");
        home.spfs_line("runtime info listed")
            .run()
            .ok()
            .stdout_has("\"durable\": true")
            .stdout_has("\"running\": false");
        home.spfs_line("runtime list --json").run().ok().stdout_has("\"saved\"");
        home.spfs_line("runtime rm listed").run().fails().stderr_has("--remove-durable");
        home.spfs_line("runtime prune --from-before-boot").run().ok();
        home.spfs_line("run --rerun listed -- ls /spfs").run().ok().stdout_is("d");
        home.spfs_line("run --rerun ilsted -- true").run().code(1).stderr_has("listed");
        home.spfs_line("run --rerun gone -- true").run().code(1);
        remove(home, "listed");
        home.spfs_line("run --rerun listed -- true").run().code(1);
        let left = home
            .sh("find $XDG_DATA_HOME -path '*durable*' -name 'listed*' 2>/dev/null; true")
            .run()
            .ok()
            .stdout
            .clone();
        assert_eq!(left, "");
    });
}

#[test]
fn one_that_runs_is_removed_by_force() {
    every_caller(|home| {
        let mut inside = home.script("- --runtime-name forced", "echo ready; exec sleep 1000").spawn();
        inside.wait_for("ready");
        home.spfs_line("runtime rm forced").run().code(1).stderr_has("--force");
        home.spfs_line("runtime rm --force forced").run().ok();
        inside.finish().killed_by(rustix::process::Signal::KILL);
        home.spfs_line("runtime list").run().ok().stdout_is("");
    });
}

#[test]
fn one_that_seems_to_run_on_another_host_needs_force() {
    every_caller(|home| {
        home.script("- --keep-runtime --runtime-name away", "echo x > /spfs/x").run().ok();
        home.wait_for_the_end();
        let record = home
            .sh("find $XDG_DATA_HOME -path '*durable*' -name record.json 2>/dev/null; true")
            .run()
            .ok()
            .text()
            .to_owned();
        let text = std::fs::read_to_string(&record).unwrap();
        let host = replace_value(&text, "\"host\": \"", "elsewhere");
        std::fs::write(&record, host.replace("\"running\": false", "\"running\": true")).unwrap();
        home.spfs_line("run --rerun away -- true").run().code(1).stderr_has("elsewhere").stderr_has("--force");
        home.spfs_line("run --rerun away --force -- cat /spfs/x").run().ok().stdout_is("x");
        remove(home, "away");
    });
}

/// `text` with what follows `key` up to the next quotation mark replaced by `value`.
fn replace_value(text: &str, key: &str, value: &str) -> String {
    let (before, after) = text.split_once(key).unwrap();
    let (_, rest) = after.split_once('"').unwrap();
    format!("{before}{key}{value}\"{rest}")
}

#[test]
fn changes_survive_a_killed_monitor() {
    every_caller(|home| {
        let start = home.script("- --keep-runtime --runtime-name orphan", "echo x > /spfs/x; echo ready; cat");
        let mut inside = start.stdin_open().spawn();
        inside.wait_for("ready");
        let monitor = "spfs runtime info orphan | sed -n 's/.*\"monitor\": \\([0-9]*\\).*/\\1/p'";
        home.sh(&format!("until pid=$({monitor}); test \"$pid\"; do sleep 0.01; done; kill -9 $pid")).run().ok();
        inside.finish();
        home.wait_for_the_end();
        home.spfs_line("run --rerun orphan -- cat /spfs/x").run().ok().stdout_is("x");
        remove(home, "orphan");
    });
}

/// When its monitor was killed its record stays among those of the living; one of these must not hide all others.
#[test]
fn one_that_cannot_be_put_away_is_no_trouble_for_others() {
    every_caller(|home| {
        home.set("SPFS_STORAGE_ROOT", home.path("store").to_str().unwrap());
        let record = home.run_dir().join("spfs/runtimes/lost");
        let code = format!("cat {}/record.json > ~/record", record.display());
        home.script("- --keep-runtime --runtime-name lost", &code).run().ok();
        home.wait_for_the_end();
        let left = format!("mkdir {0}; cp ~/record {0}/record.json", record.display());
        home.sh(&format!("{left}; chmod 500 store/durable_edits/lost")).run().ok();
        for _ in 0..2 {
            home.spfs_line("runtime list -q").run().ok().stdout_is("lost").stderr_is("");
            home.spfs_line("runtime info lost").run().ok();
        }
        home.sh("chmod 700 store/durable_edits/lost").run().ok();
        home.spfs_line("runtime list -q").run().ok().stdout_is("lost");
        assert!(!record.exists(), "it is put away as soon as that is possible");
        // Its repository is gone, and another one in use.
        home.sh("rm -r store").run().ok();
        for command in ["runtime list", "clean", "run - -- true"] {
            home.sh(&left).run().ok();
            home.spfs_line(command).run().ok().stdout_lacks("lost").stderr_lacks("lost");
            home.spfs_line("runtime info lost").run().code(1).stderr_has("unknown runtime");
            home.wait_for_the_end();
            home.spfs_line("runtime list").run().ok().stdout_is("");
            assert!(!record.exists(), "{command}");
        }
    });
}

/// Where everybody may write, the first user's directory of durable runtimes is everybody's, and runtimes that have
/// ended leave no tag.
#[test]
fn in_a_shared_repository() {
    every_caller(|home| {
        home.write("tree/a", "a");
        home.sh("mkdir repository; chmod 777 repository").run().ok();
        home.set("SPFS_STORAGE_ROOT", home.path("repository").to_str().unwrap());
        home.commit("tree", "one");
        let tag = "spfs tags | grep -c spfs/runtimes/data";
        home.script("one", tag).run().ok().stdout_is("1");
        home.script("-", "echo x > /spfs/x; spfs commit layer -q >/dev/null").run().ok();
        home.wait_for_the_end();
        home.spfs_line("tags").run().ok().stdout_is("one");
        home.script("--keep-runtime --runtime-name kept one", "true").run().ok();
        home.wait_for_the_end();
        home.sh("stat -c %a repository/durable_edits repository/durable_edits/kept").run().ok().stdout_is("1777\n700");
        home.spfs_line("tags").run().ok().stdout_is("one\nspfs/runtimes/data/kept");
        // As it is for other users of an older version's.
        home.sh("chmod 000 repository/durable_edits").run().ok();
        home.spfs_line("runtime list").run().ok();
        home.spfs_line("clean").run().ok();
        home.sh("chmod 1777 repository/durable_edits").run().ok();
        home.spfs_line("runtime rm --remove-durable kept").run().ok();
        home.spfs_line("tags").run().ok().stdout_is("one");
    });
}
