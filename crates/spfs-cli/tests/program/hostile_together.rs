//! Two or twenty at once: nobody loses anything, and nobody waits for ever.

use std::collections::BTreeSet;

use crate::common::{Running, every_caller};

fn finish(all: Vec<Running>) -> Vec<crate::common::Output> {
    all.into_iter().map(Running::finish).collect()
}

#[test]
fn commits_of_one_tree() {
    every_caller(|home| {
        home.sh("mkdir tree; for i in $(seq 500); do echo $i > tree/$i; done").run().ok();
        let all = (0..4).map(|_| home.spfs_line("commit -q --path tree --tag same").spawn()).collect();
        let digests: BTreeSet<String> = finish(all).iter().map(|out| out.ok().text().to_owned()).collect();
        assert_eq!(digests.len(), 1, "{digests:?}");
        home.spfs_line("log same").run().ok();
        home.script("same", "ls /spfs | wc -l").run().ok().stdout_is("500");
        home.is_sound();
    });
}

#[test]
fn pushes_to_one_tag() {
    every_caller(|home| {
        let digests: BTreeSet<String> = (0..12)
            .map(|number| home.spfs_line("write -q").stdin(number.to_string()).run().ok().text().to_owned())
            .collect();
        let all = digests.iter().map(|digest| home.spfs(["tag", digest, "team/one"]).spawn()).collect();
        for out in finish(all) {
            out.ok();
        }
        let json = home.spfs_line("log --json team/one").run().ok().stdout.clone();
        let log: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found: BTreeSet<String> =
            log.as_array().unwrap().iter().map(|version| version["target"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, digests);
        assert_eq!(log.as_array().unwrap().len(), 12);
        // Removing, adding and looking at once leaves what was added last.
        let lines = ["untag --all team/one", "tag team/one team/two", "tags", "ls-tags team", "check"];
        let all = lines.into_iter().cycle().take(20).map(|line| home.spfs_line(line).spawn()).collect();
        for out in finish(all) {
            assert!(out.status.success() || out.stderr.contains("unknown reference"), "{out}");
        }
        home.is_sound();
    });
}

#[test]
fn starts_of_a_stack_that_nobody_has_seen() {
    every_caller(|home| {
        home.sh("mkdir one two; for i in $(seq 300); do echo 1 > one/$i; echo 2 > two/$((i+200)); done").run().ok();
        home.commit("one", "one");
        home.commit("two", "two");
        let _ = std::fs::remove_dir_all(home.cache());
        let code = "ls /spfs | wc -l; cat /spfs/250";
        let all = (0..20).map(|_| home.script("one+two", code).spawn()).collect();
        for out in finish(all) {
            out.ok().stdout_is("500\n2").stderr_is("");
        }
        home.is_sound();
    });
}

#[test]
fn looking_and_cleaning_beside_writers() {
    every_caller(|home| {
        home.sh("mkdir tree; for i in $(seq 200); do echo $i > tree/$i; done").run().ok();
        let lines =
            ["commit -q --path tree --tag tree", "clean --dry-run", "clean", "check", "run - -- true", "render tree"];
        let all = lines.into_iter().cycle().take(30).map(|line| home.spfs_line(line).spawn()).collect();
        for out in finish(all) {
            assert!(out.status.success() || out.stderr.contains("unknown reference \"tree\""), "{out}");
        }
        home.spfs_line("render tree out").run().ok();
        home.sh("diff -r tree out").run().ok();
        home.is_sound();
    });
}

#[test]
fn verbs_in_one_runtime() {
    every_caller(|home| {
        let code = "for i in 1 2 3 4 5 6; do
                echo $i > /spfs/$i 2>/dev/null
                spfs commit layer -q -t layer >/dev/null 2>&1 &
                spfs info >/dev/null & spfs edit >/dev/null 2>&1 & spfs diff >/dev/null 2>&1 &
            done
            wait; spfs edit >/dev/null 2>&1; echo last > /spfs/last; spfs commit platform -q -t all >/dev/null; spfs info | tail -1";
        home.script("-", code).run().ok().stdout_is("No Active Changes");
        home.script("all", "cat /spfs/last").run().ok().stdout_is("last");
        home.is_sound();
    });
}

#[test]
fn one_durable_runtime_for_many() {
    every_caller(|home| {
        home.spfs_line("run --keep-runtime --runtime-name work - -- sh").stdin("echo kept > /spfs/f").run().ok();
        home.wait_for_the_end();
        let code = "cat /spfs/f; read line";
        // One has it; the others say so and end.
        let mut all: Vec<Running> = (0..6).map(|_| home.script("--rerun work", code).stdin_open().spawn()).collect();
        crate::common::eventually("all but one have been refused", || {
            all.iter_mut().map(Running::is_alive).filter(|alive| *alive).count() == 1
        });
        let (mut won, mut refused) = (0, 0);
        for running in all {
            let out = running.finish();
            match out.stdout.as_str() {
                "kept\n" => won += 1,
                _ => {
                    out.code(1).stdout_is("").stderr_has("runtime \"work\"");
                    refused += 1;
                }
            }
        }
        assert_eq!((won, refused), (1, 5));
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable work").run().ok();
        home.is_sound();
    });
}

/// The same name for two that begin at once.
#[test]
fn one_name_for_many() {
    every_caller(|home| {
        let mut all: Vec<Running> =
            (0..5).map(|_| home.script("--runtime-name mine -", "echo in; read line").stdin_open().spawn()).collect();
        crate::common::eventually("all but one have been refused", || {
            all.iter_mut().map(Running::is_alive).filter(|alive| *alive).count() == 1
        });
        let ended = finish(all);
        assert_eq!(ended.iter().filter(|out| out.stdout == "in\n").count(), 1);
        for out in ended.iter().filter(|out| out.stdout.is_empty()) {
            out.code(1).stderr_has("cannot start runtime \"mine\": a runtime of this name exists already");
        }
        home.is_sound();
    });
}

#[test]
fn first_uses_of_a_repository() {
    every_caller(|home| {
        for _ in 0..5 {
            let _ = std::fs::remove_dir_all(home.repository());
            let all = (0..10).map(|number| home.spfs(["write", "-t", &format!("t{number}")]).spawn()).collect();
            for out in finish(all) {
                out.ok();
            }
            assert_eq!(home.spfs_line("tags").run().ok().lines().len(), 10);
        }
        home.is_sound();
    });
}
