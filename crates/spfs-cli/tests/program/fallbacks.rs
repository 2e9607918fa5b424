//! What happens where a part of the machine is missing: another way with a remark, or an error that says what to do.

use crate::common::{Caller, Home, everywhere, is_root};

#[test]
fn root_uses_the_server_where_an_image_cannot_be_mounted() {
    if !is_root() {
        return an_ordinary_user_has_no_image_at_all();
    }
    let home = Home::new(Caller::Root);
    home.script("-", "echo x > /spfs/x; spfs commit layer -t x").run().ok();
    // An image is mounted from its file, which tmpfs cannot do.
    let code = "mkdir -p tmp; mount -t tmpfs -o mode=700 none tmp; export XDG_CACHE_HOME=$PWD/tmp
        spfs run x --edit -- sh -c 'cat /spfs/x; echo y > /spfs/y; spfs commit layer -t y'; spfs run x+y -- cat /spfs/y";
    let out = home.sh(&format!("unshare --mount sh -c {}", quoted(code))).run();
    out.ok().stdout_has("x\n").stdout_has("y\n").stderr_has("the backend `server` is used instead");
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
