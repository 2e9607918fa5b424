//! The user's guide, typed as a new user would: as root and as an ordinary user, on hosts with and without `/spfs`; and
//! the guide in README.md, whose output must be what the program really prints.

use std::path::Path;

use crate::common::{Caller, Home, every_caller, everywhere};

/// Runs `spfs ARGS` with a shell as the program and gives it these lines; returns what each of them printed, on either
/// stream. The session ends with `exit`, and must end well.
#[track_caller]
fn session(home: &Home, args: &str, lines: &[&str]) -> Vec<String> {
    let mut script = String::from("exec 2>&1\n");
    for line in lines {
        script.push_str(&format!("{line}\necho '@end@'\n"));
    }
    script.push_str("exit\n");
    let out = home.spfs_line(args).stdin(&script).run();
    out.ok();
    let mut outputs: Vec<String> = out.stdout.split("@end@\n").map(str::to_owned).collect();
    outputs.pop();
    assert_eq!(outputs.len(), lines.len(), "some lines were not run: {out}");
    outputs
}

/// An 8-digit short digest, as in `I22PAVLF`.
fn is_short_digest(text: &str) -> bool {
    text.len() == 8 && text.chars().all(|c| c.is_ascii_uppercase() || ('2'..='7').contains(&c))
}

/// What `ls /spfs` shows outside: nothing, or that there is no such directory. Only root makes it where it is missing.
#[track_caller]
fn outside_is_empty(home: &Home) {
    let out = home.sh("ls -A /spfs").run();
    if home.host().has_spfs() || home.caller().is_root() {
        out.ok().stdout_is("");
    } else {
        out.fails().stderr_has("No such file");
    }
}

fn commit_my_layer(home: &Home) {
    let lines = ["echo 'hello, world' > /spfs/message.txt", "spfs commit layer --tag my-layer"];
    session(home, "shell -", &lines);
}

#[test]
fn getting_started() {
    everywhere(|home| {
        let mut shell = home.spfs_line("shell -").stdin_open().spawn();
        shell.send("echo 'hello, world' > /spfs/message.txt\nls /spfs\n");
        shell.wait_for("message.txt\n");
        outside_is_empty(home);
        // Another runtime does not see it either.
        home.spfs_line("run - -- ls -A /spfs").run().ok().stdout_is("");
        shell.send("exit\n");
        shell.finish().ok().stdout_is("message.txt");
        // What was not committed is gone.
        home.spfs_line("run - -- ls -A /spfs").run().ok().stdout_is("");
    });
}

#[test]
fn saving_your_first_layer() {
    everywhere(|home| {
        let lines =
            ["echo 'hello, world' > /spfs/message.txt", "spfs info", "spfs commit layer --tag my-layer", "spfs info"];
        let outputs = session(home, "shell -", &lines);
        assert!(outputs[1].ends_with("Active Changes:\n + /message.txt\n"), "{}", outputs[1]);
        assert!(!outputs[3].contains("message.txt"), "what is committed is no change any more: {}", outputs[3]);

        outside_is_empty(home);
        home.spfs_line("run my-layer -- ls /spfs").run().ok().stdout_is("message.txt");
        assert_eq!(session(home, "shell my-layer", &["ls /spfs"]), ["message.txt\n"]);

        // The layer's id in place of its tag, in full and shortened.
        let digest = home.spfs_line("layers").run().ok().text().to_owned();
        home.spfs(["run", &digest, "--", "cat", "/spfs/message.txt"]).run().ok().stdout_is("hello, world");
        home.spfs(["run", &digest[..8], "--", "cat", "/spfs/message.txt"]).run().ok().stdout_is("hello, world");
    });
}

#[test]
fn building_a_platform() {
    everywhere(|home| {
        commit_my_layer(home);
        let lines = ["echo 'hello, platform!' > /spfs/platform-message.txt", "spfs commit platform --tag my-platform"];
        session(home, "shell my-layer --edit", &lines);

        let out = home.spfs_line("info my-platform").run();
        let lines = out.ok().lines();
        assert_eq!(lines.len(), 5, "{out}");
        assert_eq!((lines[0], lines[2]), ("platform:", " stack:"), "{out}");
        let name = lines[1].strip_prefix(" refs: ").and_then(|rest| rest.strip_suffix(" -> my-platform"));
        assert!(name.is_some_and(is_short_digest), "{out}");
        // Top-down: the new changes, which have no tag, above my-layer.
        assert!(lines[3].strip_prefix("  - ").is_some_and(is_short_digest), "{out}");
        let below = lines[4].strip_prefix("  - ").and_then(|rest| rest.strip_suffix(" -> my-layer"));
        assert!(below.is_some_and(is_short_digest), "{out}");

        let out = home.script("my-platform", "cat /spfs/message.txt /spfs/platform-message.txt").run();
        out.ok().stdout_is("hello, world\nhello, platform!");
    });
}

#[test]
fn edit_mode() {
    everywhere(|home| {
        commit_my_layer(home);
        let write = "echo changed > /spfs/message.txt";
        home.script("my-layer", write).run().fails().stderr_has("Read-only file system");
        home.script("my-layer --edit", &format!("{write} && cat /spfs/message.txt")).run().ok().stdout_is("changed");
        // Any active runtime can be made editable.
        home.script("my-layer", &format!("spfs edit && {write} && cat /spfs/message.txt"))
            .run()
            .ok()
            .stdout_has("changed");
        // What was committed never changes.
        home.script("my-layer", "cat /spfs/message.txt").run().ok().stdout_is("hello, world");
        // A tag can be moved, like a branch.
        home.script("my-layer --edit", &format!("{write} && spfs commit layer --tag my-layer")).run().ok();
        home.script("my-layer", "cat /spfs/message.txt").run().ok().stdout_is("changed");
        home.script("my-layer~1", "cat /spfs/message.txt").run().ok().stdout_is("hello, world");
    });
}

#[test]
fn a_durable_runtime_and_its_edits_come_back() {
    everywhere(|home| {
        commit_my_layer(home);
        let edit = "echo more > /spfs/more; rm /spfs/message.txt; mkdir /spfs/dir; echo deep > /spfs/dir/deep";
        home.script("--keep-runtime --runtime-name work my-layer --edit", edit).run().ok();
        home.wait_for_the_end();
        home.spfs_line("runtime list").run().ok().stdout_has("work");

        let look = "cd /spfs && find . -type f | sort && cat more dir/deep";
        home.spfs(["run", "--rerun", "work", "--", "sh", "-c", look])
            .run()
            .ok()
            .stdout_is("./dir/deep\n./more\nmore\ndeep");
        home.wait_for_the_end();
        home.spfs(["run", "--rerun", "work", "--", "spfs", "info"]).run().ok().stdout_has(" - /message.txt");
        home.wait_for_the_end();

        home.spfs_line("runtime rm --remove-durable work").run().ok();
        home.spfs_line("runtime list").run().ok().stdout_lacks("work");
    });
}

#[test]
fn a_runtime_can_be_named_without_being_kept() {
    every_caller(|home| {
        let mut running = home.spfs_line("run --runtime-name mine - -- cat").stdin_open().spawn();
        running.send("here\n");
        running.wait_for("here");
        home.spfs_line("runtime list").run().ok().stdout_has("mine");
        running.finish().ok();
        home.wait_for_the_end();
        home.spfs_line("runtime list").run().ok().stdout_lacks("mine");
    });
}

/// A person at a terminal, in the shell that most have.
#[test]
fn the_first_minutes_at_a_terminal() {
    everywhere(|home| {
        home.set("SHELL", "/bin/bash");
        let mut terminal = home.pty(["shell", "-"]);
        terminal.line("echo rea''dy $SPFS_RUNTIME");
        terminal.expect("ready ");
        terminal.line("echo 'hello, world' > /spfs/message.txt && ls /sp''fs");
        terminal.expect("message.txt\r\n");
        terminal.line("spfs in''fo");
        let shown = terminal.expect("+ /message.txt");
        assert!(shown.contains("Active Changes:"), "{shown}");
        terminal.line("spfs commit layer --tag my-la''yer && echo commit''ted");
        terminal.expect("committed");
        terminal.line("exit");
        assert!(terminal.finish().0.success());
        home.spfs_line("run my-layer -- ls /spfs").run().ok().stdout_is("message.txt");
    });
}

/// One command of a console block, and what must follow it.
struct Typed {
    inside: bool,
    command: String,
    prints: String,
}

/// All commands of the `console` blocks of a document, in order.
fn typed(document: &str) -> Vec<Typed> {
    let mut found: Vec<Typed> = Vec::new();
    let mut within = false;
    for line in document.lines() {
        if line.starts_with("```") {
            within = line == "```console";
        } else if within {
            let inside = line.strip_prefix("(spfs) $ ");
            if let Some(command) = inside.or(line.strip_prefix("$ ")) {
                found.push(Typed { inside: inside.is_some(), command: command.to_owned(), prints: String::new() });
            } else {
                let last = found.last_mut().expect("a console block begins with a command");
                last.prints.push_str(line);
                last.prints.push('\n');
            }
        }
    }
    found
}

/// Compares line by line; `[..]` in what is expected stands for anything.
#[track_caller]
fn same(command: &str, printed: &str, expected: &str) {
    let fits = |(line, pattern): (&str, &str)| match pattern.split_once("[..]") {
        Some((start, end)) => line.starts_with(start) && line.ends_with(end),
        None => line == pattern,
    };
    let equal = printed.lines().count() == expected.lines().count() && printed.lines().zip(expected.lines()).all(fits);
    assert!(equal, "README.md says that `{command}` prints\n{expected}but it prints\n{printed}");
}

#[test]
fn the_guide_in_readme_prints_what_it_says() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let typed = typed(&readme);
    assert!(typed.len() > 15, "the guide was not found in README.md");
    everywhere(|home| {
        let mut rest = typed.iter().peekable();
        while let Some(next) = rest.next() {
            assert!(!next.inside, "typed outside of an environment: {}", next.command);
            if next.command.starts_with("spfs shell") {
                let mut inner = Vec::new();
                while let Some(line) = rest.next_if(|line| line.inside) {
                    inner.push(line);
                }
                assert_eq!(inner.pop().map(|line| line.command.as_str()), Some("exit"), "a shell is left with `exit`");
                let lines: Vec<&str> = inner.iter().map(|line| line.command.as_str()).collect();
                let outputs = session(home, next.command.strip_prefix("spfs ").unwrap(), &lines);
                for (line, output) in inner.iter().zip(outputs) {
                    same(&line.command, &output, &line.prints);
                }
            } else {
                let out = home.sh(&format!("exec 2>&1; {}", next.command)).run();
                same(&next.command, &out.stdout, &next.prints);
                home.wait_for_the_end();
            }
        }
    });
}

/// The prompt that the documents recommend tells that one is inside.
#[test]
fn a_prompt_can_tell_that_it_is_inside() {
    let home = Home::new(Caller::user());
    home.set("SHELL", "/bin/bash");
    home.sh(r#"echo "PS1='\${SPFS_RUNTIME:+(spfs) }ready> '" > $HOME/.bashrc"#).run().ok();
    let mut outside = home.command(vec!["bash".into(), "-i".into()]).on_a_terminal();
    assert!(!outside.expect("ready> ").contains("(spfs)"));
    outside.line("spfs shell -");
    outside.expect("(spfs) ready> ");
    outside.line("exit");
    outside.expect("ready> ");
    outside.line("exit");
    outside.finish();
}
