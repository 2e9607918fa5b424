//! Very many runtimes of one view: started at once on a cold cache, and alive at the same time. A hundred in the quick
//! run, a thousand in the full one.

use std::time::Duration;

use crate::common::{Home, every_caller, full};

fn count() -> usize {
    if full() { 1000 } else { 200 }
}

fn files(home: &Home, kind: &str) -> Vec<String> {
    let entries = std::fs::read_dir(home.cache().join(kind)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// All of them meet a cache in which there is nothing.
#[test]
fn starts_at_once_make_one_view_and_one_image() {
    every_caller(|home| {
        home.sh("mkdir one two; for i in $(seq 300); do echo 1 > one/$i; echo 2 > two/$((i+200)); done").run().ok();
        home.commit("one", "one");
        home.commit("two", "two");
        std::fs::remove_dir_all(home.cache()).unwrap();
        let count = count();
        let code = format!(
            "for i in $(seq {count}); do spfs run one+two -- sh -c 'echo $(ls /spfs | wc -l) $(cat /spfs/250)' & done 2>&1; wait"
        );
        let out = home.sh(&code).limit(Duration::from_secs(600)).run();
        assert_eq!(out.ok().stdout, "500 2\n".repeat(count), "{}", out.stderr);
        out.stderr_is("");
        // Two layers, the stack's two names, and nothing half made.
        let images = files(home, "images");
        assert_eq!(images.len(), usize::from(home.caller().is_root()), "{images:?}");
        let views = files(home, "views");
        assert!((3..=4).contains(&views.len()) && views.iter().all(|name| !name.contains('.')), "{views:?}");
        home.is_sound();
    });
}

/// More than the 128 inotify instances that a user may have, whatever tells their end.
#[test]
fn alive_at_once_they_end_cleanly() {
    every_caller(|home| {
        home.script("-", "echo x > /spfs/x; spfs commit layer -t x").run().ok();
        let count = count();
        let code = format!(
            "exec 3<&0; for i in $(seq {count}); do spfs run x -- sh -c 'cat /spfs/x; read line; cat /spfs/x' <&3 & done
            while test $(ls $XDG_RUNTIME_DIR/spfs/runtimes | wc -l) -lt {count}; do sleep 0.05; done
            exec 3<&-; echo all; wait"
        );
        let mut all = home.sh(&code).stdin_open().limit(Duration::from_secs(600)).spawn();
        all.wait_for("all");
        assert_eq!(home.spfs_line("runtime list").run().ok().stdout.lines().count(), count);
        all.close_stdin();
        let out = all.finish();
        assert_eq!(out.ok().lines().len(), 2 * count + 1, "{}", out.stderr);
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}
