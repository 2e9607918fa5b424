//! `spfs doctor` on machines from which each facility is taken away in turn: what it says, and how it exits.

use crate::common::{Caller, Home, Output, every_caller};

/// Runs `spfs doctor` for `home`'s caller in a mount namespace that root has prepared with `prepare`.
fn examined(home: &Home, prepare: &str, arguments: &str) -> Output {
    let (uid, gid) = (home.caller().uid(), home.caller().gid());
    let user = match home.caller() {
        Caller::Root => String::new(),
        Caller::User(_) => format!("setpriv --reuid={uid} --regid={gid} --init-groups --"),
    };
    let as_root = Home::new(Caller::Root);
    let below = |name: &str| home.home_dir().join(name).to_str().unwrap().to_owned();
    let code = format!("{prepare}\nexec {user} env -C / spfs doctor {arguments}");
    let command = as_root.command(["unshare", "--mount", "sh", "-euc", &code].map(str::to_owned).to_vec());
    let command = command.env("HOME", below("")).env("XDG_RUNTIME_DIR", home.run_dir().to_str().unwrap());
    let command = command.env("XDG_DATA_HOME", below(".local/share")).env("XDG_CACHE_HOME", below(".cache"));
    command.env("XDG_CONFIG_HOME", below(".config")).cwd("/").run()
}

/// The status of a finding in the JSON report.
fn status(report: &serde_json::Value, list: &str, name: &str) -> String {
    let findings = report[list].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    found["status"].as_str().unwrap().to_owned()
}

fn json(out: &Output) -> serde_json::Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out}"))
}

const NO_FUSE: &str = "mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3";

#[test]
fn a_healthy_machine() {
    every_caller(|home| {
        home.spfs_line("doctor").run().ok().stdout_has("Environments work here").stdout_lacks("->").stderr_is("");
        let report = json(home.spfs_line("doctor --json").run().ok());
        assert_eq!(report["works"], true);
        assert_eq!(report["backend"], if home.caller().is_root() { "image" } else { "server" });
        assert_eq!(report["advice"].as_array().unwrap().len(), 0);
        // The same is used by a run, and nothing is left of the trial.
        home.script("-", "true").run().ok();
        home.wait_for_the_end();
        home.sh("find ~ -name 'doctor*'").run().ok().stdout_is("");
        home.is_sound();
    });
}

#[test]
fn inside_an_environment() {
    every_caller(|home| {
        let out = home.script("-", "spfs doctor").run();
        out.ok().stdout_has("Environments work here").stdout_has("this is inside an environment");
    });
}

#[test]
fn without_fuse() {
    for caller in Caller::all() {
        if !Caller::all().contains(&Caller::Root) {
            return;
        }
        let home = Home::new(caller);
        let out = examined(&home, NO_FUSE, "");
        out.stdout_has("could not open /dev/fuse").stdout_has("-> as root: modprobe fuse");
        let report = json(&examined(&home, NO_FUSE, "--json"));
        assert_eq!(status(&report, "kernel_facilities", "/dev/fuse"), "missing");
        assert_eq!(status(&report, "backends", "server"), "missing");
        if home.caller().is_root() {
            out.code(0).stdout_has("backend `image`");
        } else {
            out.code(0).stdout_has("backend `render`: the first run");
            let prepare = format!("{NO_FUSE}; mknod -m 600 /dev/fuse c 10 229");
            examined(&home, &prepare, "").code(0).stdout_has("-> as root: chmod 666 /dev/fuse");
        }
    }
}

#[test]
fn without_user_namespaces() {
    let home = Home::new(Caller::user());
    let code = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \
        --bounding-set=-all spfs doctor";
    let out = home.sh(&format!("exec unshare --user --map-root-user sh -c '{code}'")).run();
    out.code(1).stdout_has("NO  user namespaces").stdout_has("-> as root: sysctl -w user.max_user_namespaces=15000");
    assert_eq!(out.stdout.matches("->").count(), 1, "one cause, one advice: {out}");
}

#[test]
fn places_that_cannot_be_used() {
    let home = Home::new(Caller::user());
    home.sh("mkdir -p ~/.cache/spfs; chmod 777 ~/.cache/spfs").run().ok();
    let out = home.spfs_line("doctor").run();
    out.ok().stdout_has("no  cache").stdout_has("XDG_CACHE_HOME=DIR");
    home.sh("chmod 500 $XDG_RUNTIME_DIR/spfs").run().ok();
    home.spfs_line("doctor").run().code(1).stdout_has("NO  records").stdout_has("-> set XDG_RUNTIME_DIR");
    home.sh("chmod 700 $XDG_RUNTIME_DIR/spfs").run().ok();
    let out = home.spfs_line("doctor").env("SPFS_STORAGE_ROOT", "/proc/nowhere").run();
    out.code(1).stdout_has("NO  storage").stdout_has("-> SPFS_STORAGE_ROOT=DIR");
}

#[test]
fn a_store_that_takes_no_more() {
    // Root prepares it for all.
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    every_caller(|home| {
        home.write("tree/a", "a\n");
        home.commit("tree", "one");
        let store = home.repository().to_str().unwrap().to_owned();
        let full = format!(
            "cp -a {store} /tmp/s; mount -t tmpfs -o size=200k,mode=755 none {store}
            cp -a /tmp/s/. {store}; rm -r /tmp/s; cat /dev/zero > {store}/filler 2>/dev/null || true"
        );
        let read_only = format!("mount --bind {store} {store}; mount -o remount,bind,ro {store}");
        for (prepare, reason) in [(full, "No space left on device"), (read_only, "Read-only file system")] {
            let prepare = format!("mount -t tmpfs none /tmp; chmod 1777 /tmp\n{prepare}");
            let report = json(examined(home, &prepare, "--json").ok());
            assert_eq!(report["works"], true);
            assert_eq!(report["backend"], if home.caller().is_root() { "image" } else { "server" });
            let found = ["storage", "render"].map(|name| {
                let list = if name == "render" { "backends" } else { "places" };
                assert_eq!(status(&report, list, name), "missing");
                report[list].as_array().unwrap().iter().find(|finding| finding["name"] == name).unwrap().clone()
            });
            assert!(found.iter().all(|finding| finding["detail"].as_str().unwrap().contains(reason)), "{found:?}");
            let out = examined(home, &prepare, "");
            out.ok()
                .stdout_has("Environments work here")
                .stdout_has("-> what is in it can be shown, nothing can be added");
        }
    });
}

#[test]
fn a_cache_from_which_no_image_can_be_mounted() {
    if !Caller::all().contains(&Caller::Root) {
        return;
    }
    let home = Home::new(Caller::Root);
    home.sh("mkdir -p ~/.cache").run().ok();
    let cache = home.home_dir().join(".cache");
    let prepare = format!("mount -t tmpfs -o mode=700 none {}", cache.display());
    examined(&home, &prepare, "").ok().stdout_has("backend `server`").stdout_has("-> it needs Linux 6.12");
}

#[test]
fn without_inotify_instances() {
    let home = Home::new(Caller::user());
    let code = "echo 0 > /proc/sys/user/max_inotify_instances && exec setpriv --inh-caps=-all --ambient-caps=-all \
        --bounding-set=-all spfs doctor";
    let out = home.sh(&format!("exec unshare --user --map-current-user --keep-caps sh -c '{code}'")).run();
    out.ok().stdout_has("no  inotify").stdout_has("-> as root: sysctl -w fs.inotify.max_user_instances=1024");
}

/// Runs `spfs doctor` on a machine that refuses these system calls; in words, and as JSON.
fn refused(home: &Home, rules: &str) -> (Output, serde_json::Value) {
    let report = json(&home.refused(rules, "spfs doctor --json").run());
    (home.refused(rules, "spfs doctor").run(), report)
}

#[test]
fn without_overlayfs() {
    every_caller(|home| {
        let (out, report) = refused(home, "fsopen:overlay=ENODEV");
        out.ok()
            .stdout_has("can be read here, but not edited")
            .stdout_has("no  overlayfs")
            .stdout_has("modprobe overlay");
        assert_eq!(
            (&report["works"], &report["editable"], &report["backend"]),
            (&true.into(), &false.into(), &"render".into())
        );
        assert_eq!(status(&report, "backends", "fuse"), "ok");
    });
}

#[test]
fn without_data_only_layers() {
    every_caller(|home| {
        let (out, report) = refused(home, "fsconfig:datadir+=EINVAL");
        out.ok()
            .stdout_has("backend `render`")
            .stdout_has("no  data-only layers")
            .stdout_has("-> a newer kernel has them");
        assert_eq!(status(&report, "backends", "server"), "missing");
        assert_eq!(report["editable"], true);
    });
}

#[test]
fn without_the_calls_that_mount() {
    every_caller(|home| {
        let rules =
            "fsopen=ENOSYS fsconfig=ENOSYS fsmount=ENOSYS move_mount=ENOSYS open_tree=ENOSYS mount_setattr=ENOSYS";
        let (out, report) = refused(home, rules);
        out.code(1).stdout_has("Environments do not work here").stdout_has("-> the calls that mount need Linux 5.2");
        assert_eq!(out.stdout.matches("->").count(), 1, "one cause, one advice: {out}");
        assert_eq!((&report["works"], &report["backend"]), (&false.into(), &serde_json::Value::Null));
    });
}

#[test]
fn where_a_filter_forbids_namespaces() {
    let home = Home::new(Caller::user());
    let (out, report) = refused(&home, "unshare=EPERM");
    out.code(1).stdout_has("NO  user namespaces").stdout_has("--security-opt seccomp=unconfined");
    assert_eq!(report["works"], false);
}
