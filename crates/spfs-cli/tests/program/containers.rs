//! Inside containers, as Docker and Podman make them: `crun` (which Podman runs) is given what they give it. Each works,
//! or says why not and what to type next.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Caller, Cmd, Home, Output, is_root};

/// What a container is started with, beside what all have: capabilities, masked and read-only paths as Docker has them.
#[derive(Clone, Copy, Default)]
struct Flags {
    /// `--cap-add SYS_ADMIN`.
    sys_admin: bool,
    /// Docker's default seccomp profile, as far as it is about namespaces and mounts.
    seccomp: bool,
    /// `--device /dev/fuse`.
    fuse: bool,
    /// `--read-only --tmpfs /tmp`.
    read_only: bool,
    /// `--user`: the home's own caller instead of root.
    user: bool,
    /// A user namespace in which the test user is root, as rootless Podman has it.
    rootless: bool,
    /// No directory /tmp that could be written to.
    no_tmp: bool,
}

/// What every container of Docker may do (its documentation, "Runtime privilege and Linux capabilities").
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What its seccomp profile refuses to whoever lacks CAP_SYS_ADMIN (its documentation, "Seccomp security profiles").
const REFUSED: [&str; 11] = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "setns",
    "umount2",
    "unshare",
];

/// A container whose root directory shows the programs of this machine, and in which `code` is run.
fn container(home: &Home, flags: Flags, code: &str) -> Cmd {
    let bundle = home.path("bundle");
    let root = bundle.join("root");
    std::fs::create_dir_all(&root).unwrap();
    let mounts = mounts(home, flags, &root);
    std::fs::write(bundle.join("config.json"), config(home, flags, code, &mounts).to_string()).unwrap();
    for path in [&bundle, &root] {
        home.own(path, 0o755);
    }
    // Where the machine has cgroups of version 1, crun wants to see those of version 2.
    let prefix = match home.caller() {
        Caller::User(account) if flags.rootless && is_root() => {
            format!("setpriv --reuid={} --regid={} --init-groups", account.uid, account.gid)
        }
        _ => String::new(),
    };
    let start = format!(
        "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup
        exec {prefix} crun --root {}/crun --cgroup-manager=disabled run --bundle {} c{}",
        home.run_dir().display(),
        bundle.display(),
        std::process::id(),
    );
    let own = if is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount", "--cgroup"] };
    let words = [&["unshare"], own, &["sh", "-c", &start]].concat();
    let starter = Home::new(if is_root() { Caller::Root } else { Caller::user() });
    starter.command(words.into_iter().map(str::to_owned).collect()).cwd("/")
}

fn mounts(home: &Home, flags: Flags, root: &Path) -> Vec<Value> {
    let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    let bind = |path: &Path, options: &[&str]| {
        let (path, options) = (path.to_str().unwrap(), [&["rbind"], options].concat());
        json!({ "destination": path, "type": "none", "source": path, "options": options })
    };
    let mut mounts = vec![
        mount("/proc", "proc", &[]),
        mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ];
    if !flags.no_tmp {
        mounts.push(mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]));
    }
    for name in ["bin", "etc", "lib", "lib64", "sbin", "usr"] {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => drop(std::os::unix::fs::symlink(target, root.join(name))),
            Err(_) => mounts.push(bind(&path, &["ro"])),
        }
    }
    let binary = crate::common::binary().parent().unwrap().to_owned();
    mounts.push(bind(&binary, &["ro"]));
    for path in [home.home_dir(), home.run_dir(), home.path("")] {
        mounts.push(bind(&path, &["rw"]));
    }
    if flags.fuse && flags.rootless {
        mounts.push(bind(&PathBuf::from("/dev/fuse"), &["rw"]));
    }
    mounts
}

fn config(home: &Home, flags: Flags, code: &str, mounts: &[Value]) -> Value {
    let (uid, gid) = if flags.user { (home.caller().uid(), home.caller().gid()) } else { (0, 0) };
    let environment: Vec<String> = home.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut capabilities = CAPABILITIES.to_vec();
    capabilities.extend(flags.sys_admin.then_some("CAP_SYS_ADMIN"));
    let effective = if uid == 0 { capabilities.clone() } else { Vec::new() };
    let mut namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind })).to_vec();
    let mut linux = json!({
        "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if flags.rootless {
        namespaces.push(json!({ "type": "user" }));
        let Caller::User(account) = Caller::user() else { unreachable!("a user") };
        // Who starts without privilege is root of a user namespace already, in which crun is given its cgroups.
        let (uid, gid) = if is_root() { (account.uid, account.gid) } else { (0, 0) };
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    } else if flags.fuse {
        let fuse = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 });
        linux["devices"] = json!([fuse]);
    }
    linux["namespaces"] = json!(namespaces);
    if flags.seccomp {
        linux["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ]});
    }
    json!({
        "ociVersion": "1.0.0",
        "root": { "path": "root", "readonly": flags.read_only },
        "hostname": "container",
        "mounts": mounts,
        "linux": linux,
        "process": {
            "args": ["sh", "-c", code],
            "cwd": "/",
            "env": environment,
            "user": { "uid": uid, "gid": gid },
            "capabilities": { "bounding": capabilities, "effective": effective, "permitted": effective },
        },
    })
}

/// The life of a runtime, in brief.
const LIFE: &str = "set -e; spfs run - -- sh -c 'echo one > /spfs/x; mkdir /spfs/d; spfs commit layer -t x'
    spfs run x --edit -- sh -c 'cat /spfs/x; rmdir /spfs/d; spfs info; spfs commit layer -t y; spfs run - -- ls -A /spfs'
    spfs run x+y -- sh -c 'ls -A /spfs; touch /spfs/z 2>/dev/null || echo ro'; spfs runtime list; spfs doctor";

/// The homes of whoever runs in a container, with what makes it theirs: root, and the test user in a container that root
/// made; without privilege the containers are rootless, and nobody in them can be another user than their root.
fn homes(flags: Flags) -> Vec<(Home, Flags)> {
    let user = if is_root() { Flags { user: true, ..flags } } else { Flags { rootless: true, ..flags } };
    let root = is_root().then(|| (Home::new(Caller::Root), flags));
    root.into_iter().chain([(Home::new(Caller::user()), user)]).collect()
}

fn lives(home: &Home, flags: Flags) -> Output {
    let out = container(home, flags, LIFE).run();
    out.ok().stdout_has("one\n").stdout_has("\nx\nro\n").stdout_has("Environments work here").stdout_lacks("\nd\n");
    out
}

#[test]
fn with_the_device_and_without_a_seccomp_filter() {
    for (home, flags) in homes(Flags { fuse: true, ..Flags::default() }) {
        // Root without CAP_SYS_ADMIN is treated like everyone else.
        lives(&home, flags).stdout_has("backend `server`").stderr_lacks("warning");
    }
}

#[test]
fn without_the_device_there_are_renders() {
    for (home, flags) in homes(Flags::default()) {
        lives(&home, flags).stdout_has("backend `render`").stdout_has("--device /dev/fuse").stderr_has("/dev/fuse");
    }
}

#[test]
fn with_the_seccomp_filter_of_docker() {
    for (home, flags) in homes(Flags { fuse: true, seccomp: true, ..Flags::default() }) {
        let out = container(&home, flags, "spfs run - -- true; spfs doctor").run();
        out.code(1).stderr_has("user namespaces are not permitted here").stdout_has("NO  user namespaces");
        // What to type next.
        for said in [&out.stderr, &out.stdout] {
            assert!(said.contains("--security-opt seccomp=unconfined") && said.contains("--device /dev/fuse"), "{out}");
        }
        // What needs no environment works.
        let out = container(&home, flags, "mkdir t; echo a > t/a; spfs commit --path t -t t; spfs read t a").run();
        out.ok().stdout_has("a\n");
    }
}

/// Of the machine's root: nobody else can make such a container, and a rootless one is in
/// [`without_privilege_on_the_host`].
#[test]
fn with_sys_admin() {
    if is_root() {
        let home = Home::new(Caller::Root);
        lives(&home, Flags { sys_admin: true, ..Flags::default() }).stdout_has("backend `image`");
    }
}

#[test]
fn with_a_read_only_root() {
    for (home, flags) in homes(Flags { fuse: true, read_only: true, ..Flags::default() }) {
        lives(&home, flags).stdout_has("backend `server`").stderr_lacks("warning");
        // Without a place that can be written to.
        let out = container(&home, flags, "HOME=/root XDG_DATA_HOME=/opt/data spfs run - -- true").run();
        out.code(1).stderr_has("/opt").stderr_has("hint: ").stderr_has("SPFS_STORAGE_ROOT=DIR");
        let flags = Flags { no_tmp: true, ..flags };
        let out = container(&home, flags, "unset XDG_RUNTIME_DIR; spfs run - -- true").run();
        out.code(1).stderr_has(&format!("/tmp/spfs-{}", if flags.user { home.caller().uid() } else { 0 }));
        out.stderr_has("hint: ").stderr_has("XDG_RUNTIME_DIR");
    }
}

#[test]
fn without_privilege_on_the_host() {
    let home = Home::new(Caller::user());
    let flags = Flags { rootless: true, fuse: true, ..Flags::default() };
    lives(&home, flags).stdout_has("backend `server`").stderr_lacks("warning");
    // With all capabilities of its user namespace; an image can only be mounted by root of the machine.
    lives(&home, Flags { sys_admin: true, ..flags }).stdout_has("backend `server`").stderr_lacks("warning");
    lives(&home, Flags { fuse: false, ..flags }).stdout_has("backend `render`");
}
