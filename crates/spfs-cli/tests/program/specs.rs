//! What an environment can be made of: references, run specs, live layers, annotations.

use crate::common::{Home, every_caller, everywhere};

fn with_layers(home: &Home) {
    for name in ["a", "b", "c"] {
        home.script("-", &format!("echo {name} > /spfs/{name}; echo {name} > /spfs/top; spfs commit layer -t {name}"))
            .run()
            .ok();
    }
}

#[test]
fn references_are_stacked_bottom_first() {
    every_caller(|home| {
        with_layers(home);
        home.script("a+b+c", "ls /spfs; cat /spfs/top").run().ok().stdout_is("a\nb\nc\ntop\nc");
        home.script("c+b+a", "cat /spfs/top").run().ok().stdout_is("a");
        // What is named again moves up.
        home.script("a+b+a", "cat /spfs/top").run().ok().stdout_is("a");
        home.spfs(["run", "", "--", "ls", "-A", "/spfs"]).run().ok().stdout_is("");
        home.script("-", "ls -A /spfs").run().ok().stdout_is("");
        let digest = home.spfs_line("commit --ref a+b -q").run().ok().text().trim().to_owned();
        home.script(&digest, "cat /spfs/top").run().ok().stdout_is("b");
        home.script(&digest[..10], "cat /spfs/top").run().ok().stdout_is("b");
        home.script(&format!("{}+c", &digest[..10]), "cat /spfs/top").run().ok().stdout_is("c");
        home.spfs_line("run a+no-such -- true").run().code(1).stderr_has("no-such");
    });
}

#[test]
fn a_live_layer_shows_files_of_the_host() {
    everywhere(|home| {
        with_layers(home);
        home.write("live/dir/file", "host\n");
        home.write("live/single", "one\n");
        let binds = "[{bind: dir, dest: /spfs/d/e}, {bind: single, dest: s}]";
        let spec = home.write("live/layer.spfs.yaml", format!("api: spfs/v0/livelayer\ncontents: {binds}\n"));
        let both = [spec.to_str().unwrap().to_owned(), home.path("live").to_str().unwrap().to_owned()];
        for live in both {
            let code =
                "cat /spfs/d/e/file /spfs/s /spfs/top; echo inside >> /spfs/d/e/new; ls /spfs/d/e; rm /spfs/d/e/new";
            home.script(&format!("a+{live}"), code).run().ok().stdout_is("host\none\na\nfile\nnew");
        }
        // The host sees what is done there, and it is no part of a commit.
        let code = "echo changed > /spfs/s; echo x > /spfs/x; spfs diff; spfs commit layer -t with; cat /spfs/s";
        home.script(&format!("a+{} --edit", spec.display()), code).run().ok().stdout_has("+/spfs/x\ncreated");
        assert_eq!(std::fs::read_to_string(home.path("live/single")).unwrap(), "changed\n");
        home.script("a+with", "ls /spfs").run().ok().stdout_is("a\ntop\nx");
        // It is still there after a reset.
        home.script(&format!("a+{} --edit", spec.display()), "spfs reset; cat /spfs/s /spfs/d/e/file")
            .run()
            .ok()
            .stdout_is("changed\nhost");
    });
}

#[test]
fn live_layers_that_cannot_be_are_named_with_their_line() {
    every_caller(|home| {
        for (contents, reason) in [
            ("- {bind: gone, dest: x}", "gone"),
            ("- {bind: .., dest: x}", "not below"),
            ("- {bind: f, dest: ../x}", "dest"),
            ("- {bund: f, dest: x}", "bund"),
            ("no list", "layer.spfs.yaml"),
        ] {
            home.write("live/f", "");
            let text = format!("api: spfs/v0/livelayer\ncontents:\n  {contents}\n");
            let spec = home.write("live/layer.spfs.yaml", text);
            home.spfs(["run", spec.to_str().unwrap(), "--", "true"])
                .run()
                .code(1)
                .stderr_has("layer.spfs.yaml:3")
                .stderr_has(reason);
        }
    });
}

#[test]
fn a_run_spec_is_a_list_of_references() {
    every_caller(|home| {
        with_layers(home);
        home.write("live/f", "live\n");
        home.write("live/layer.spfs.yaml", "api: spfs/v0/livelayer\ncontents: [{bind: f, dest: f}]\n");
        let spec = home.write("env.spfs.yaml", "api: spfs/v0/runspec\nlayers: [a, b, ./live]\n");
        let spec = spec.to_str().unwrap();
        home.script(spec, "cat /spfs/top /spfs/f").run().ok().stdout_is("b\nlive");
        home.script(&format!("{spec}+c"), "cat /spfs/top /spfs/f").run().ok().stdout_is("c\nlive");
        home.script("./env.spfs.yaml", "cat /spfs/top").run().ok().stdout_is("b");
        home.write("bad.spfs.yaml", "api: spfs/v9/runspec\nlayers: []\n");
        home.script("./bad.spfs.yaml", "true").run().code(1).stderr_has("bad.spfs.yaml").stderr_has("spfs/v9/runspec");
    });
}

#[test]
fn annotations_go_with_the_environment() {
    every_caller(|home| {
        with_layers(home);
        home.write("more.yaml", "{from: file, owner: file}\n");
        let words = "run a --annotation owner=me --annotation site:here --annotation-file more.yaml --";
        let run = |command: &[&str]| home.spfs(words.split(' ').chain(command.iter().copied())).run();
        run(&["spfs", "info", "--get", "site"]).ok().stdout_has("here");
        run(&["spfs", "runtime", "info", "--get", "owner"]).ok().stdout_is("me");
        run(&["spfs", "runtime", "info", "--get-all"]).ok().stdout_has("\"from\": \"file\"").stdout_has("\"site\"");
        run(&["spfs", "info", "--get-all"]).ok().stdout_has("\"from\": \"file\"");
        run(&["ls", "/spfs"]).ok().stdout_is("a\ntop");
        run(&["spfs", "commit", "platform", "-t", "annotated"]).ok();
        home.script("annotated", "spfs info --get site; ls /spfs").run().ok().stdout_is("here\na\ntop");
        let long = "x".repeat(100_000);
        home.spfs([
            "run",
            "a",
            "--annotation",
            &format!("long={long}"),
            "--",
            "spfs",
            "runtime",
            "info",
            "--get",
            "long",
        ])
        .run()
        .ok()
        .stdout_is(&long);
    });
}
