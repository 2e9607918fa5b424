//! Machines that lack something: what is missing is said, with what would provide it, and nothing is left behind.

use crate::common::{Caller, Home, Output};

/// Runs `spfs ARGUMENTS` as the ordinary user, in a mount namespace that root has prepared with `prepare`.
fn on_a_machine(home: &Home, prepare: &str, arguments: &str) -> Output {
    let (uid, gid) = (home.caller().uid(), home.caller().gid());
    let user = match home.caller() {
        Caller::Root => String::new(),
        Caller::User(_) => format!("setpriv --reuid={uid} --regid={gid} --init-groups --"),
    };
    let code = format!("{prepare}\nexec {user} env -C / spfs {arguments}");
    // The command is prepared by root whoever the home belongs to.
    let as_root = Home::new(Caller::Root);
    let below = |name: &str| home.home_dir().join(name).to_str().unwrap().to_owned();
    let mut argv: Vec<String> = ["unshare", "--mount", "sh", "-euc"].map(str::to_owned).to_vec();
    argv.push(code);
    let command = as_root.command(argv).env("HOME", below("")).env("XDG_RUNTIME_DIR", home.run_dir().to_str().unwrap());
    let command = command.env("XDG_DATA_HOME", below(".local/share")).env("XDG_CACHE_HOME", below(".cache"));
    command.env("XDG_CONFIG_HOME", below(".config")).cwd("/").run()
}

fn prepared(caller: Caller) -> Option<Home> {
    // Facilities can be taken away by root alone.
    if !Caller::all().contains(&Caller::Root) {
        return None;
    }
    let home = Home::new(caller);
    home.write("tree/a", "a\n");
    home.commit("tree", "one");
    Some(home)
}

#[test]
fn without_fuse() {
    let Some(home) = prepared(Caller::user()) else { return };
    let machines = [
        ("mount --bind /proc/version /dev/fuse", "could not open /dev/fuse"),
        ("mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3", "could not open /dev/fuse"),
        (
            "mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3; mknod -m 600 /dev/fuse c 10 229",
            "could not open /dev/fuse",
        ),
        ("mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/fuse c 1 3", ""),
    ];
    for (prepare, message) in machines {
        on_a_machine(&home, prepare, "run one -- cat /spfs/a")
            .ok()
            .stdout_is("a")
            .stderr_has("`render` is used instead");
        let said = on_a_machine(&home, prepare, "run one --backend server -- true");
        said.code(1).stdout_is("").stderr_has("error: ").stderr_has(message);
        if !message.is_empty() && !prepare.contains("version") {
            said.stderr_has("hint: as root: ");
        }
        // What needs no mount works.
        on_a_machine(&home, prepare, "read one a").ok().stdout_is("a");
        on_a_machine(&home, prepare, "check").ok();
    }
    home.is_sound();
}

/// Root has the image where there is no FUSE.
#[test]
fn root_without_fuse() {
    let Some(home) = prepared(Caller::Root) else { return };
    let prepare = "mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3";
    on_a_machine(&home, prepare, "run one -- cat /spfs/a").ok().stdout_is("a").stderr_is("");
    home.is_sound();
}

/// A user namespace in which no further one may be made, as a sysctl of a distribution has it.
#[test]
fn without_user_namespaces() {
    let Some(home) = prepared(Caller::user()) else { return };
    let (uid, gid) = (home.caller().uid(), home.caller().gid());
    let as_root = Home::new(Caller::Root);
    let below = |name: &str| home.home_dir().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &str| {
        let code = format!(
            "unshare --user sleep 60 & holder=$!
             until ! cmp -s /proc/$holder/uid_map /proc/self/uid_map; do sleep 0.01; done
             echo 0 0 65536 > /proc/$holder/uid_map
             echo 0 0 65536 > /proc/$holder/gid_map
             nsenter --user=/proc/$holder/ns/user -S 0 -G 0 sh -euc '
                echo 0 > /proc/sys/user/max_user_namespaces
                exec setpriv --reuid={uid} --regid={gid} --clear-groups -- env -C / spfs {arguments}
             ' && code=0 || code=$?
             kill $holder; exit $code"
        );
        let argv = ["sh".to_owned(), "-euc".to_owned(), code].to_vec();
        let command =
            as_root.command(argv).env("HOME", below("")).env("XDG_RUNTIME_DIR", home.run_dir().to_str().unwrap());
        let command = command.env("XDG_DATA_HOME", below(".local/share")).env("XDG_CACHE_HOME", below(".cache"));
        command.env("XDG_CONFIG_HOME", below(".config")).cwd("/").run()
    };
    let said = run("run one -- true");
    said.code(1).stdout_is("").stderr_has("error: ").stderr_has("user namespace");
    said.stderr_has("hint: as root: sysctl -w user.max_user_namespaces=15000");
    run("read one a").ok().stdout_is("a");
    home.is_sound();
}

/// A /proc that is not mounted, as in a bare chroot.
#[test]
fn without_proc() {
    for caller in [Caller::Root, Caller::user()] {
        let Some(home) = prepared(caller) else { return };
        let proc = "mount -t tmpfs none /proc";
        on_a_machine(&home, proc, "read one a").ok().stdout_is("a").stderr_is("");
        let said = on_a_machine(&home, proc, "run one -- true");
        said.code(1).stdout_is("").stderr_has("error: could not read /proc/").stderr_has("caused by: No such file");
        home.is_sound();
    }
}

/// A /proc that shows processes and nothing of the kernel, as services of systemd have it (`ProcSubset=pid`).
#[test]
fn a_proc_without_the_kernel() {
    for caller in [Caller::Root, Caller::user()] {
        let Some(home) = prepared(caller) else { return };
        let proc = "mount -t proc -o subset=pid none /proc";
        home.write("tree/b", "b");
        let commit = format!("commit --path {} --tag two", home.path("tree").display());
        for (arguments, said) in [("read one a", "a"), (&commit, "two"), ("tags", "one\ntwo"), ("clean", "")] {
            on_a_machine(&home, proc, arguments).ok().stdout_has(said).stderr_lacks("error");
        }
        let said = on_a_machine(&home, proc, "run one -- true");
        said.code(1).stdout_is("").stderr_has("error: could not read /proc/sys/kernel/random/boot_id");
        home.is_sound();
    }
}

#[test]
fn a_tmp_that_is_read_only_or_missing() {
    for caller in [Caller::Root, Caller::user()] {
        let Some(home) = prepared(caller) else { return };
        for prepare in ["mount --bind /tmp /tmp; mount -o remount,bind,ro /tmp", "mount -t tmpfs -o mode=000 none /tmp"]
        {
            on_a_machine(&home, prepare, "run one -- cat /spfs/a").ok().stdout_is("a").stderr_is("");
        }
        home.is_sound();
    }
}
