//! What happens where a part of the machine is missing: another way with a remark, or an error that says what to do.

use crate::common::{Caller, Home, every_caller, everywhere, is_root};

#[test]
fn root_uses_the_server_where_an_image_cannot_be_mounted() {
    if !is_root() {
        return an_ordinary_user_has_no_image_at_all();
    }
    let home = Home::new(Caller::Root);
    home.script("-", "echo x > /spfs/x; spfs commit layer -t x").run().ok();
    // An image is mounted from its file, which the kernel does not do from tmpfs. That is known: no start remarks upon it.
    let code = "mkdir -p tmp; mount -t tmpfs -o mode=700 none tmp; export XDG_CACHE_HOME=$PWD/tmp
        spfs run x --edit -- sh -c 'cat /spfs/x; echo y > /spfs/y; spfs commit layer -t y'; spfs run x+y -- cat /spfs/y";
    let out = home.sh(&format!("unshare --mount sh -c {}", quoted(code))).run();
    out.ok().stdout_has("x\n").stdout_has("y\n").stderr_lacks("backend");
    let code = "mkdir -p tmp; mount -t tmpfs -o mode=700 none tmp; export XDG_CACHE_HOME=$PWD/tmp
        spfs run --backend image x -- true";
    let out = home.sh(&format!("unshare --mount sh -c {}", quoted(code))).run();
    out.code(1).stderr_has("`image`").stderr_has("not on tmpfs");
    // One that is damaged is not mounted either, and does no harm.
    home.sh("for image in ~/.cache/spfs/images/*; do echo nonsense > $image; done").run().ok();
    home.script("x", "cat /spfs/x").run().ok().stdout_is("x");
    // Nor is a cache that others may write.
    home.sh("chmod 777 ~/.cache/spfs").run().ok();
    home.script("x", "cat /spfs/x").run().ok().stdout_is("x");
    home.sh("chmod 700 ~/.cache/spfs; rm -r ~/.cache/spfs; touch ~/.cache/spfs").run().ok();
    home.script("x", "cat /spfs/x").run().ok().stdout_is("x");
}

fn an_ordinary_user_has_no_image_at_all() {
    let home = Home::new(Caller::user());
    home.script("-", "echo x > /spfs/x; spfs commit layer -t x").run().ok();
    home.script("x", "cat /spfs/x").run().ok().stdout_is("x");
    home.sh("ls ~/.cache/spfs/images 2>/dev/null; true").run().ok().stdout_is("");
}

fn quoted(code: &str) -> String {
    format!("'{}'", code.replace('\'', "'\\''"))
}

#[test]
fn without_fuse_a_user_has_a_render() {
    let home = Home::new(Caller::user());
    home.script("-", "echo x > /spfs/x; mkdir /spfs/d; echo y > /spfs/d/y; spfs commit layer -t x").run().ok();
    home.sh("mkdir empty; touch said").run().ok();
    // In a namespace of one's own, an empty directory takes the place of /dev.
    let unshare = "exec unshare --user --map-current-user --keep-caps --mount sh -c";
    let without = |code: &str| {
        let code = format!("mount --bind empty /dev && exec {code} 2>said");
        home.sh(&format!("{unshare} {}", quoted(&code))).run()
    };
    let said = || std::fs::read_to_string(home.path("said")).unwrap();
    let edit = "spfs run x --edit -- sh -c 'rm -r /spfs/d; mkdir /spfs/d; cat /spfs/x; spfs commit layer -t z'";
    without(edit).ok().stdout_has("x\n");
    assert!(said().contains("could not open /dev/fuse") && said().contains("the backend `render` is used instead"));
    without("spfs run x+z -- sh -c 'ls /spfs /spfs/d'").ok().stdout_lacks("y");
    // Asked for by its name it is an error, which says what to do.
    for backend in ["server", "fuse"] {
        without(&format!("spfs run x --backend {backend} -- true")).code(1);
        let said = said();
        assert!(said.contains(&format!("backend `{backend}`")) && said.contains("could not open /dev/fuse"), "{said}");
        assert!(said.contains("hint: "), "{said}");
    }
    home.wait_for_the_end();
    assert_eq!(home.records(), Vec::<String>::new());
}

#[test]
fn where_user_namespaces_are_forbidden_the_setting_is_named() {
    let home = Home::new(Caller::user());
    // The limit is that of the namespace in which the number is written.
    let code = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all \
        --bounding-set=-all spfs run - -- true";
    let unshare = "exec unshare --user --map-root-user sh -c";
    let out = home.sh(&format!("{unshare} {}", quoted(code))).run();
    out.code(1).stderr_has("user namespaces are not permitted").stderr_has("max_user_namespaces");
    home.wait_for_the_end();
    assert_eq!(home.records(), Vec::<String>::new());
}

#[test]
fn where_no_runtime_directory_is_set_one_of_ours_is_used() {
    everywhere(|home| {
        home.unset("XDG_RUNTIME_DIR");
        let directory = format!("/tmp/spfs-{}", home.caller().uid());
        home.script("-", "spfs info | grep -c editable; echo x > /spfs/x; spfs commit layer").run().ok();
        home.sh(&format!("stat -c '%a %u' {directory}")).run().ok().stdout_is(&format!("700 {}", home.caller().uid()));
        home.wait_for_the_end();
    });
}

#[test]
fn a_runtime_directory_that_cannot_be_used_is_named() {
    let home = Home::new(Caller::user());
    home.sh("chmod 500 $XDG_RUNTIME_DIR").run().ok();
    home.spfs_line("run - -- true").run().fails().stderr_has(home.run_dir().to_str().unwrap());
    home.sh("chmod 700 $XDG_RUNTIME_DIR").run().ok();
    // Very long paths are longer than an address of a socket may be.
    let long = "x".repeat(100);
    home.sh(&format!("mkdir -p $XDG_RUNTIME_DIR/{long} && chmod 700 $XDG_RUNTIME_DIR/{long}")).run().ok();
    let directory = home.run_dir().join(&long);
    home.script("-", "spfs edit --off").env("XDG_RUNTIME_DIR", directory.to_str().unwrap()).run().ok();
}

/// A layer `x` (a file, and a directory), which is made without an environment.
const LAYER: &str = "mkdir -p t/d && echo one > t/x && echo two > t/d/y && spfs commit --path t -t x";

/// What a runtime is for, on a machine that refuses these system calls.
fn lives_refused(home: &Home, rules: &str, backend: &str) {
    home.sh(LAYER).run().ok();
    let code = "spfs run x --edit -- sh -c 'cat /spfs/d/y; rm -r /spfs/d; mkdir /spfs/d; spfs reset d; ls /spfs/d; \
        rm -r /spfs/d; spfs commit layer -t z'; spfs run x+z -- sh -c 'ls -A /spfs; touch /spfs/new 2>/dev/null || echo ro'";
    let out = home.refused(rules, code).run();
    out.ok().stdout_has("two\ny\n").stdout_has("\nx\nro\n").stderr_has(&format!("the backend `{backend}` is used"));
    home.wait_for_the_end();
}

#[test]
fn without_data_only_layers_there_are_renders() {
    every_caller(|home| {
        let rules = "fsconfig:datadir+=EINVAL";
        lives_refused(home, rules, "render");
        home.refused(rules, "spfs run x --backend server -- true").run().code(1).stderr_has("no data-only layers");
    });
}

#[test]
fn where_layers_are_taken_by_path_alone() {
    every_caller(|home| {
        // As before Linux 6.13.
        let rules = "fsconfig:lowerdir+=EINVAL fsconfig:datadir+=EINVAL";
        lives_refused(home, rules, "render");
        for backend in ["render", "fuse"] {
            let code = format!("spfs run x --edit --backend {backend} -- sh -c 'cat /spfs/d/y; rm /spfs/x; ls /spfs'");
            home.refused(rules, &code).run().ok().stdout_is("two\nd");
        }
    });
}

#[test]
fn without_overlayfs_environments_can_be_read() {
    every_caller(|home| {
        let rules = "fsopen:overlay=ENODEV";
        home.sh(LAYER).run().ok();
        let look = "cat /spfs/x /spfs/d/y; cp /bin/true /spfs/ 2>/dev/null || echo ro; spfs info; spfs edit || echo kept; \
            cat /spfs/x; spfs runtime list | wc -l";
        for backend in ["auto", "render", "fuse"] {
            let out = home.refused(rules, &format!("spfs run x --backend {backend} -- sh -c '{look}'")).run();
            out.ok().stdout_has("one\ntwo\nro\n").stdout_has("editable: false").stdout_has("kept\none\n1");
            out.stderr_has("`spfs edit` will not work")
                .stderr_has("overlayfs cannot be mounted here")
                .stderr_has("hint: ");
        }
        for asked in ["x --edit", "-", "x --edit --backend fuse"] {
            let out = home.refused(rules, &format!("spfs run {asked} -- true")).run();
            out.code(1).stderr_has("overlayfs cannot be mounted here").stderr_has("as root: modprobe overlay");
        }
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

#[test]
fn without_the_calls_that_mount() {
    every_caller(|home| {
        let rules =
            "fsopen=ENOSYS fsconfig=ENOSYS fsmount=ENOSYS move_mount=ENOSYS open_tree=ENOSYS mount_setattr=ENOSYS";
        let out = home.refused(rules, "spfs run - -- true").run();
        out.code(1)
            .stderr_has("cannot show a runtime")
            .stderr_has("Function not implemented")
            .stderr_has("spfs doctor");
    });
}

#[test]
fn where_processes_of_others_are_hidden() {
    every_caller(|home| {
        if !is_root() {
            return;
        }
        home.sh(LAYER).run().ok();
        let user = match home.caller() {
            Caller::Root => String::new(),
            Caller::User(account) => {
                format!(
                    "setpriv --reuid={} --regid={} --init-groups env -C {}",
                    account.uid,
                    account.gid,
                    home.path("").display()
                )
            }
        };
        let life = "spfs run x --edit -- sh -c 'rm /spfs/x; spfs commit layer -t y; sleep 1 & cat /spfs/d/y;
            spfs runtime list | wc -l; spfs join $SPFS_RUNTIME -- ls /spfs'
            spfs run x --runtime-name j -- sleep 30 &
            for i in 1 2 3 4 5 6 7 8 9; do spfs join j -- cat /spfs/x 2>/dev/null && break; sleep 0.2; done
            spfs runtime rm --force j; wait";
        for option in ["hidepid=2", "hidepid=4"] {
            // An instance of /proc of one's own.
            let code = format!("mount -t proc -o {option} proc /proc; exec {user} sh -c {}", quoted(life));
            let root = Home::new(Caller::Root);
            let mut command = root
                .command(["unshare", "--mount", "sh", "-euc", &code].map(str::to_owned).to_vec())
                .cwd(home.path(""));
            for (name, value) in home.environment() {
                command = command.env(&name, value);
            }
            command.run().ok().stdout_has("two\n1\nd\none\n");
        }
    });
}
