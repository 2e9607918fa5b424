//! Every way of showing /spfs does all that a runtime is for; each by its name.

use crate::common::{Caller, Home, every_caller, every_strategy};

#[test]
fn a_runtime_lives_the_same_life() {
    every_strategy(|home| {
        home.script("-", "mkdir -p /spfs/d/e; echo one > /spfs/d/f; ln -s f /spfs/d/l; spfs commit layer -t one")
            .run()
            .ok();
        let look =
            "cat /spfs/d/f; readlink /spfs/d/l; ls /spfs/d; test ! -w /spfs/d/f; touch /spfs/x 2>/dev/null || echo ro";
        home.script("one", look).run().ok().stdout_is("one\nf\ne\nf\nl\nro");
        let edit = "echo two >> /spfs/d/f; rm /spfs/d/l; rmdir /spfs/d/e; mkdir /spfs/new; spfs info; \
            spfs commit layer -t two; spfs edit; echo three > /spfs/d/g; cat /spfs/d/f; spfs reset; ls /spfs/d; \
            spfs commit layer 2>/dev/null || echo clean";
        let out = home.script("one --edit", edit).run();
        out.ok().stdout_has("one\ntwo\n").stdout_has("\nf\nclean").stdout_lacks("three");
        home.script("one+two", "cat /spfs/d/f; ls -A /spfs /spfs/d")
            .run()
            .ok()
            .stdout_has("one\ntwo\n")
            .stdout_lacks("l\n");
    });
}

#[test]
fn a_durable_runtime_goes_on() {
    every_strategy(|home| {
        home.script("-", "echo a > /spfs/a; mkdir /spfs/d; echo b > /spfs/d/b; spfs commit layer -t base").run().ok();
        home.script("base --edit -k --runtime-name kept", "echo c >> /spfs/a; rm -r /spfs/d; mkdir /spfs/d").run().ok();
        home.wait_for_the_end();
        home.spfs_line("run --rerun kept -- sh -c").spawn().finish().fails();
        let out = home
            .spfs(["run", "--rerun", "kept", "--", "sh", "-c", "cat /spfs/a; ls -A /spfs/d; spfs commit layer -t next"])
            .run();
        out.ok().stdout_has("a\nc\n").stdout_lacks("b\n");
        home.script("base+next", "cat /spfs/a; ls -A /spfs/d").run().ok().stdout_is("a\nc");
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable kept").run().ok();
    });
}

#[test]
fn the_names_are_those_of_the_help_and_of_the_existing_program() {
    every_caller(|home| {
        home.script("- --backend Server", "true").run().ok();
        for name in ["OverlayFsWithRenders", "overlayfswithfuse", "FuseOnly"] {
            home.script(&format!("- --backend {name}"), "true").run().ok().stderr_is("");
        }
        home.script("- --backend nonsense", "true").run().code(2).stderr_has("server");
        home.script("-", "true")
            .env("SPFS_FILESYSTEM_BACKEND", "nonsense")
            .run()
            .fails()
            .stderr_has("SPFS_FILESYSTEM_BACKEND");
    });
}

#[test]
fn a_backend_that_is_named_and_cannot_be_used_is_an_error() {
    let home = Home::new(Caller::user());
    let out = home.script("- --backend image", "true").run();
    out.code(1).stderr_has("backend `image`").stderr_has("root");
    home.wait_for_the_end();
    assert_eq!(home.records(), Vec::<String>::new());
}
