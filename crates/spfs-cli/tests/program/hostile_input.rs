//! Files and variables that people write, and outputs that take nothing: named, with the line, and never a hang.

use std::time::Duration;

use crate::common::{Caller, Home};

fn home() -> Home {
    let home = Home::new(Caller::user());
    home.write("tree/a", "a\n");
    home.write("tree/d/b", "b\n");
    home.commit("tree", "one");
    home
}

#[test]
fn spec_files() {
    let home = home();
    let head = "api: spfs/v0/runspec\n";
    let live = "api: spfs/v0/livelayer\ncontents:\n";
    let mut bomb = format!("{head}a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        bomb += &format!("{name}: &{name} [*{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}]\n");
    }
    let table = [
        ("bomb", format!("{bomb}layers: *i\n"), ": budget"),
        ("deep", "[".repeat(200_000), "recursion limit"),
        ("large", " ".repeat(2 << 20), "it is larger than 1 MiB"),
        ("empty", String::new(), "it has no 'api'"),
        ("zeros", "\0\0\0\0".to_owned(), ":1:1: "),
        ("other", "api: spfs/v9/other\n".to_owned(), ":1:6: unknown api \"spfs/v9/other\""),
        ("number", "api: 5\nlayers: 5\n".to_owned(), "unknown api"),
        ("unknown", format!("{head}layers: [one]\nextra: 1\n"), ":3:1: "),
        ("wrong", format!("{head}layers: {{a: b}}\n"), ":2:"),
        ("malformed", format!("{head}layers:\n  - one\n  - a b\n"), ":4:5: "),
        ("missing", format!("{head}layers:\n  - one\n  - nope\n"), "missing.spfs.yaml:4:5"),
        ("self", format!("{head}layers: [./self.spfs.yaml]\n"), "it contains itself"),
        ("ring", format!("{head}layers: [./ring2.spfs.yaml]\n"), "it contains itself"),
        (
            "dots",
            format!("{live}  - bind: .\n    dest: a/../../../etc\n"),
            ":4:11: dest \"a/../../../etc\": '..' is not allowed",
        ),
        ("outside", format!("{live}  - bind: /etc\n    dest: a\n"), ":3:11: /etc is not below"),
        ("gone", format!("{live}  - bind: nowhere\n    dest: a\n"), ":3:11: "),
        ("root", format!("{live}  - bind: .\n    dest: /spfs\n"), "/spfs itself"),
        ("many", format!("{live}{}", "  - {bind: a, dest: b}\n".repeat(20_000)), "many.spfs.yaml"),
    ];
    home.write("ring2.spfs.yaml", format!("{head}layers: [./ring.spfs.yaml]\n"));
    for (name, content, reason) in table {
        let file = home.write(&format!("{name}.spfs.yaml"), content);
        let said = home.spfs(["run", &format!("./{name}.spfs.yaml"), "--", "true"]).run();
        said.code(1).stdout_is("").stderr_has(reason).stderr_has("hint: ");
        said.stderr_has(if name == "ring" { "ring2.spfs.yaml" } else { file.to_str().unwrap() });
        assert!(said.time < Duration::from_secs(60), "{name}: {said}");
    }
    home.sh("printf '\\377\\376' > bytes.spfs.yaml; mkfifo pipe.spfs.yaml; ln -s loop.spfs.yaml loop.spfs.yaml; mkdir dir.spfs.yaml").run().ok();
    for (name, reason) in [
        ("bytes", "valid UTF-8"),
        ("pipe", "it is not a regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("dir", "No such file or directory"),
        ("nothere", "No such file or directory"),
    ] {
        let said = home.spfs(["run", &format!("./{name}.spfs.yaml"), "--", "true"]).run();
        said.code(1).stderr_has(reason).stderr_has(&format!("{name}.spfs.yaml"));
    }
    home.spfs_line("run ./tree -- true").run().code(1).stderr_has("layer.spfs.yaml");
    home.is_sound();
}

/// Each names the next one twice: two to the power of forty layers.
#[test]
fn run_specs_that_grow_without_end() {
    let home = home();
    for number in 0..40 {
        let next = format!("./{}.spfs.yaml", number + 1);
        home.write(&format!("{number}.spfs.yaml"), format!("api: spfs/v0/runspec\nlayers: [{next}, {next}]\n"));
    }
    home.write("40.spfs.yaml", "api: spfs/v0/runspec\nlayers: [one]\n");
    home.spfs_line("run ./0.spfs.yaml -- true").run().code(1).stderr_has("it has more than 10000 items");
    home.is_sound();
}

#[test]
fn annotations() {
    let home = home();
    for (text, reason) in [
        ("nonsense", "write KEY=VALUE, KEY:VALUE or '{KEY: VALUE, ...}'"),
        ("", "invalid annotation"),
        ("{a: [b}", "1:5"),
        ("{a: b", "annotation"),
    ] {
        let said = home.spfs(["run", "--annotation", text, "-", "--", "true"]).run();
        said.code(1).stdout_is("").stderr_has(reason).stderr_lacks("spfs help layers");
    }
    let run = |file: &str| home.spfs(["run", "--annotation-file", file, "-", "--", "true"]).run();
    run("nowhere").code(1).stderr_has("could not read nowhere").stderr_has("No such file");
    home.write("list", "[a, b]\n");
    run("list").code(1).stderr_has("list");
    home.write("bytes", b"\xff\xfe");
    run("bytes").code(1).stderr_has("bytes");
    run("/dev/zero").code(1).stderr_has("could not read /dev/zero").stderr_has("larger than 64 MiB");
    home.spfs_line("write -f /etc").run().code(1).stderr_has("could not read /etc\n  caused by: is a directory");
    // A huge value is kept, and is no argument of anything.
    let huge = "y".repeat(8 << 20);
    home.write("huge", format!("key: {huge}\n"));
    let words = [
        "run",
        "--annotation-file",
        "huge",
        "-",
        "--",
        "sh",
        "-c",
        "spfs runtime info --get key $SPFS_RUNTIME | wc -c",
    ];
    home.spfs(words).run().ok().stdout_is(&(huge.len() + 1).to_string());
    home.is_sound();
}

#[test]
fn configuration_files_and_variables() {
    let home = home();
    let file = ".config/spfs/spfs.toml";
    let place = home.home_dir().join(file);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    for directory in [place.parent().unwrap(), place.parent().unwrap().parent().unwrap()] {
        home.own(directory, 0o755);
    }
    let wrong: [(&[u8], &str); 8] = [
        (b"[storage\nroot = 'x'\n", ":1:9: "),
        (
            b"[filesystem]\ntmpfs_size = ['a']\n",
            ":2:14: filesystem.tmpfs_size: a list is given where one value is wanted",
        ),
        (b"[filesystem]\ntmpfs_size = 'huge'\n", "\"huge\" is no size"),
        (b"[storage]\nroot = '/a'\nroot = '/b'\n", ":3:1: "),
        (b"[storage]\nroot = '/\xff'\n", ":2:10: it is not UTF-8 text"),
        (
            b"[user]\nname = 2020-06-15 \n[cache]\nmax_size = 2020-06-15\n",
            ":4:12: cache.max_size: \"2020-06-15\" is no size",
        ),
        (&[b' '; (1 << 20) + 1], "it has 1048577 bytes"),
        (b"[cache]\nmax_size = {a = 1}\n", "spfs.toml"),
    ];
    for (content, reason) in wrong {
        std::fs::write(&place, content).unwrap();
        home.own(&place, 0o644);
        for command in ["tags", "run - -- true"] {
            let said = home.spfs_line(command).run();
            said.code(1).stdout_is("").stderr_has("invalid configuration in ").stderr_has(place.to_str().unwrap());
            said.stderr_has(reason).stderr_has("hint: `spfs help config` says what may be set, and where");
        }
        // Help is there for whoever has to mend it.
        home.spfs_line("help config").run().ok();
    }
    std::fs::write(&place, "[storag]\nroot = '/x'\n[filesystem]\ntmpfs_siz = '1g'\n").unwrap();
    let said = home.spfs_line("tags").run();
    said.ok()
        .stdout_is("one")
        .stderr_has("warning: unknown key \"storag\"")
        .stderr_has("did you mean filesystem.tmpfs_size?");
    for code in ["mkdir", "mkfifo", "ln -s /dev/zero"] {
        home.sh(&format!("rm -rf ~/{file}; {code} ~/{file}")).run().ok();
        home.spfs_line("tags").run().code(1).stderr_has(place.to_str().unwrap()).stderr_has("is not a regular file");
        home.spfs_line("remote add x /x").run().code(1).stderr_has("is not a regular file");
    }
    home.sh(&format!("rm -rf ~/{file}; ln -s /dev/null ~/{file}")).run().ok();
    home.spfs_line("tags").run().ok().stdout_is("one").stderr_is("");
    std::fs::remove_file(&place).unwrap();
    let said = home.spfs_line("tags").env("SPFS_STORAGE_ROOTT", "x").env("SPFS_NONSENSE", "1").run();
    said.ok().stdout_is("one").stderr_has("unknown environment variable SPFS_NONSENSE");
    said.stderr_has("unknown environment variable SPFS_STORAGE_ROOTT; did you mean SPFS_STORAGE_ROOT?");
    home.is_sound();
}

#[test]
fn outputs_that_take_nothing() {
    let home = home();
    let full = "error: could not write to standard output\n  caused by: No space left on device (os error 28)";
    for line in [
        "tags",
        "ls one",
        "read one a",
        "info one",
        "check",
        "log one",
        "config",
        "commit --path tree",
        "render one",
        "version",
        "clean --dry-run",
        "tags --json",
        "runtime list --json",
    ] {
        home.sh(&format!("spfs {line} > /dev/full"))
            .run()
            .code(1)
            .stdout_is("")
            .stderr_has(full)
            .stderr_lacks("hint: ");
        // Closed from the start: it is opened as /dev/null, as every program of the standard library does it.
        home.sh(&format!("spfs {line} >&-")).run().ok().stderr_lacks("panicked");
        home.sh(&format!("spfs {line} 2>&- >/dev/null <&-")).run().ok();
    }
    home.sh("spfs run one -- true <&- >&- 2>&-").run().ok();
    // Help, and what is told beside the work: that nobody can be told is no reason to do it not, or otherwise.
    for line in ["--help", "run --help", "--version"] {
        home.sh(&format!("spfs {line} > /dev/full")).run().code(1).stderr_has(full).stderr_lacks("panicked");
    }
    for (line, code) in [("", 2), ("run one true", 2), ("nonesuch", 1), ("info nonesuch", 1)] {
        home.sh(&format!("spfs {line} 2> /dev/full")).run().code(code).stdout_is("");
        home.sh(&format!("exec 3>&1; {{ spfs {line} 2>&1 >/dev/null; echo $? >&3; }} | :"))
            .run()
            .ok()
            .stdout_is(&code.to_string());
    }
    // An empty variable is an unset one.
    let empty =
        "SPFS_COMMIT_MAX_CONCURRENT_BLOBS= SPFS_RENDER_MAX_CONCURRENT_BLOBS= SPFS_SYNC_MAX_CONCURRENT_PAYLOADS=";
    for line in ["commit --path tree", "render one", "run one -- true"] {
        home.sh(&format!("{empty} spfs {line}")).run().ok().stderr_is("");
    }
    home.sh("SPFS_NONSENSE=1 spfs tags 2> /dev/full").run().ok().stdout_is("one");
    home.sh("spfs run --keep-runtime - -- echo done 2> /dev/full").run().ok().stdout_is("done");
    home.sh("spfs runtime rm --remove-durable $(spfs runtime list -q)").run().ok();
    // A reader that goes away after one line: no word of it, and the code that a shell shows for it.
    home.sh("mkdir many; cd many; seq 30000 | xargs touch").run().ok();
    home.commit("many", "many");
    let out = home.sh("{ spfs ls many; echo code $? >&2; } | head -1").run();
    out.ok().stdout_is("1").stderr_is("code 141");
    // What was done is done, though it could not be told.
    let code = "echo x > /spfs/x; spfs commit layer -t made > /dev/full; echo code $?; spfs info | tail -1";
    home.script("-", code).run().ok().stdout_is("code 1\nNo Active Changes");
    home.spfs_line("read made x").run().ok().stdout_is("x");
    home.is_sound();
}
