//! What nothing uses any more is removed, and nothing else: renders, changes on disk, trials of `spfs doctor`.

use rustix::process::Signal;

use crate::common::{Caller, Home, eventually, every_caller, every_strategy};

/// A layer `x` with files of two modes, made without an environment.
const LAYER: &str =
    "mkdir -p t/d; echo one > t/x; echo two > t/d/y; chmod 755 t/d/y; echo two > t/z; spfs commit --path t -t x";

/// How many renders of environments there are.
const COUNT: &str = "find ~/.local/share/spfs/renders/*/?? -mindepth 1 -maxdepth 1 | wc -l";

#[test]
fn renders_go_when_no_runtime_uses_them() {
    every_caller(|home| {
        home.set("SPFS_FILESYSTEM_BACKEND", "render");
        home.sh(LAYER).run().ok();
        let mut used = home.script("x --edit", "echo ready; read go; cat /spfs/d/y; ls /spfs").stdin_open().spawn();
        used.wait_for("ready");
        home.spfs_line("clean --dry-run").run().ok().stdout_has("renders: 0 and 0 files");
        home.spfs_line("clean").run().ok().stdout_has("renders: 0 and 0 files");
        used.send("go\n");
        used.finish().ok().stdout_has("two\nd\nx\nz\n");
        home.wait_for_the_end();
        home.sh(COUNT).run().ok().stdout_is("1");
        // Looking changes nothing.
        home.spfs_line("clean --dry-run").run().ok().stdout_has("renders: 1 and 0 files");
        home.spfs_line("clean").run().ok().stdout_has("renders: 1 and ");
        home.sh(&format!("{COUNT}; find ~/.local/share/spfs/renders -type f")).run().ok().stdout_is("0");
        home.script("x", "cat /spfs/x /spfs/d/y").run().ok().stdout_is("one\ntwo");
        // What `spfs render` has made may be mounted by another program.
        home.spfs_line("render x").run().ok();
        home.wait_for_the_end();
        home.spfs_line("clean").run().ok().stdout_has("renders: 1 and ");
        home.sh(COUNT).run().ok().stdout_is("1");
        home.is_sound();
    });
}

#[test]
fn renders_are_cleaned_and_made_and_used_at_once() {
    every_caller(|home| {
        home.set("SPFS_FILESYSTEM_BACKEND", "render");
        home.sh(LAYER).run().ok();
        let code = "for i in 1 2 3 4 5 6; do
            for j in 1 2; do spfs run x -- sh -c 'cat /spfs/x /spfs/d/y /spfs/z; ls /spfs | wc -l' & spfs clean >/dev/null & done
            wait; done";
        let out = home.sh(code).run();
        assert_eq!(out.ok().lines().len(), 12 * 4, "{out}");
        out.stderr_lacks("error");
        home.wait_for_the_end();
    });
}

#[test]
fn renders_stay_while_a_runtime_has_lost_its_monitor() {
    every_caller(|home| {
        home.set("SPFS_FILESYSTEM_BACKEND", "render");
        home.sh(LAYER).run().ok();
        let mut used = home.script("x", "echo ready; read go; cat /spfs/d/y").stdin_open().spawn();
        used.wait_for("ready");
        kill_monitors(home);
        // A process that ends has no memory any more some time before its files are closed, and with them its lock.
        eventually("it is known", || home.spfs_line("runtime list").run().stdout.contains("unmonitored"));
        home.spfs_line("clean").run().ok().stdout_has("renders: 0").stderr_has("renders are left alone");
        used.send("go\n");
        used.finish().ok().stdout_has("two\n");
        home.spfs_line("clean").run().ok().stdout_has("renders: 1");
    });
}

/// Kills the monitors, once they have noted where their runtimes live, and waits for their end.
pub fn kill_monitors(home: &Home) {
    let record = |name: &String| home.run_dir().join("spfs/runtimes").join(name).join("record.json");
    let noted = |name| std::fs::read_to_string(record(&name)).is_ok_and(|record| record.contains("mnt:["));
    eventually("the record says where", || home.records().into_iter().all(noted));
    let named =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "spfs-monitor\n");
    let monitors = || -> Vec<i32> { home.processes().into_iter().map(|(pid, _)| pid).filter(named).collect() };
    assert!(!monitors().is_empty(), "there is a monitor");
    for pid in monitors() {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    eventually("the monitor has ended", || monitors().is_empty());
}

#[test]
fn what_killed_renders_left_goes() {
    every_caller(|home| {
        home.set("SPFS_FILESYSTEM_BACKEND", "render");
        home.sh(LAYER).run().ok();
        home.script("x", "true").run().ok();
        let code = "cd ~/.local/share/spfs/renders/*; mkdir -p work/.spfs-1/a work/.old-2/b work/.spfs-3 proxy/work/.spfs-4 work/other
            chmod 0 work/.spfs-1/a; touch -d '1 minute ago' work/.spfs-1 proxy/work/.spfs-4 work/other
            spfs clean >/dev/null; ls -A work proxy/work; rm -r work/.spfs-3 work/other";
        // One that was made just now, and one of another program, could be in use.
        home.sh(code).run().ok().stdout_is("proxy/work:\n\nwork:\n.spfs-3\nother");
    });
}

#[test]
fn changes_on_disk_go_with_their_runtime() {
    let home = Home::new(Caller::user());
    home.sh(LAYER).run().ok();
    // A kernel whose tmpfs takes no `user.*` attributes: before Linux 6.6.
    let old = "setxattr=EOPNOTSUPP";
    let run = "spfs run x --edit --runtime-name on-disk -- sh -c";
    let out = home
        .refused(old, &format!("{run} 'rm /spfs/x; ls ~/.cache/spfs/changes; spfs clean >/dev/null; ls /spfs'"))
        .run();
    out.ok().stdout_is("on-disk\nd\nz");
    home.wait_for_the_end();
    home.sh("ls ~/.cache/spfs/changes").run().ok().stdout_is("");
    // A monitor that was killed removes nothing; whoever looks next does.
    let mut killed =
        home.refused(old, &format!("{run} 'echo ready; read go; rm /spfs/x; ls /spfs'")).stdin_open().spawn();
    killed.wait_for("ready");
    kill_monitors(&home);
    home.spfs_line("clean").run().ok();
    killed.send("go\n");
    killed.finish().ok().stdout_is("ready\nd\nz");
    home.sh("ls ~/.cache/spfs/changes; spfs runtime list; ls ~/.cache/spfs/changes").run().ok().stdout_is("on-disk");
    // Without a record nothing is known but their age and their lock.
    let code = "cd ~/.cache/spfs/changes; mkdir -p lost/0/upper new; touch -d '1 minute ago' lost; spfs clean >/dev/null; ls; rmdir new";
    home.sh(code).run().ok().stdout_is("new");
}

#[test]
fn what_killed_trials_left_goes() {
    every_caller(|home| {
        home.script("-", "true").run().ok();
        home.wait_for_the_end();
        let code = "for d in ~/.local/share/spfs $XDG_RUNTIME_DIR/spfs ~/.cache/spfs/views; do
            mkdir -p $d/doctor-1/a $d/doctor-2; touch -d '2 hours ago' $d/doctor-1; done
            spfs clean >/dev/null; ls -d ~/.local/share/spfs/doctor* $XDG_RUNTIME_DIR/spfs/doctor* ~/.cache/spfs/views/doctor* | wc -l
            rmdir ~/.local/share/spfs/doctor* $XDG_RUNTIME_DIR/spfs/doctor* ~/.cache/spfs/views/doctor*";
        home.sh(code).run().ok().stdout_is("3");
    });
}

#[test]
fn copies_in_renders_keep_their_holes() {
    every_caller(|home| {
        // The mode is not a payload's, so the render has a copy.
        let code = "mkdir t; truncate -s 64M t/sparse; echo end >> t/sparse; printf x | dd of=t/sparse bs=1M seek=10 conv=notrunc \
            2>/dev/null; chmod 755 t/sparse; spfs commit --path t -t sparse; sha256sum < t/sparse
            spfs run sparse --backend render -- sh -c 'sha256sum < /spfs/sparse; du -k /spfs/sparse'";
        let out = home.sh(code).run();
        let sums: Vec<&str> = out.ok().stdout.lines().filter(|line| line.ends_with("  -")).collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{out}");
        let kib: u32 = out.text().lines().last().unwrap().split('\t').next().unwrap().parse().unwrap();
        assert!(kib < 4096, "a hole was filled: {out}");
    });
}

#[test]
fn the_top_has_the_time_of_everything() {
    every_strategy(|home| {
        home.sh(LAYER).run().ok();
        for reference in ["x", "x --edit", "-"] {
            home.script(reference, "stat -c %Y /spfs").run().ok().stdout_is("315532800");
        }
        let out = home
            .script("x --edit", "touch /spfs/new; stat -c %Y /spfs; rm /spfs/new; spfs reset; stat -c %Y /spfs")
            .run();
        assert!(out.ok().lines()[0].parse::<u64>().unwrap() > 1_700_000_000, "{out}");
        assert_eq!(out.lines().last(), Some(&"315532800"), "{out}");
    });
}
