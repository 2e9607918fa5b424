//! Shells and commands in a real environment with start-up files, and what they inherit.

use crate::common::{Home, every_caller, everywhere};

/// An environment with start-up files for every shell, called `base`.
fn with_startup_files(home: &Home) {
    let code = r#"d=/spfs/etc/spfs/startup.d; mkdir -p $d
        echo 'export GREETING="${GREETING}one "' > "$d/1 one.sh"
        echo 'export GREETING="${GREETING}two"' > $d/2.sh
        echo 'setenv GREETING "csh"' > $d/1.csh
        echo 'set -gx GREETING fish' > $d/1.fish
        spfs commit layer -t base"#;
    home.script("-", code).run().ok();
}

#[test]
fn commands_get_what_the_startup_files_say() {
    everywhere(|home| {
        with_startup_files(home);
        for (shell, greeting) in [
            ("/bin/bash", "one two"),
            ("/bin/sh", "one two"),
            ("/usr/bin/zsh", "one two"),
            ("/usr/bin/tcsh", "csh"),
            ("/bin/csh", "csh"),
            ("/usr/bin/fish", "fish"),
        ] {
            let run = |words: &[&str]| home.spfs(["run", "base", "--"].iter().chain(words)).env("SHELL", shell).run();
            run(&["printenv", "GREETING"]).ok().stdout_is(greeting).stderr_is("");
            run(&["printf", "<%s>", "", "a b", "*", "it's", "!x", "new\nline", "-"])
                .ok()
                .stdout_is("<><a b><*><it's><!x><new\nline><->");
            run(&["sh", "-c", "exit 42"]).code(42);
            let commands = "printenv GREETING\n";
            home.spfs_line("shell base").env("SHELL", shell).stdin(commands).run().ok().stdout_is(greeting);
        }
        home.spfs_line("run base -- true")
            .env("SPFS_DEBUG", "1")
            .run()
            .ok()
            .stderr_is("source /spfs/etc/spfs/startup.d/1 one.sh\nsource /spfs/etc/spfs/startup.d/2.sh");
    });
}

#[test]
fn the_environment_is_inherited_whole() {
    every_caller(|home| {
        let run = |reference: &str| {
            let command = home.spfs(["run", reference, "--", "env"]);
            let command = command.env("TMPDIR", home.path("").to_str().unwrap()).env("LD_LIBRARY_PATH", "/lib/x");
            command.env("SHELL", "/usr/bin/tcsh").env("SPFS_KEEP_RUNTIME", "0").run().ok().stdout.clone()
        };
        let has = |env: &str, line: String| assert!(env.lines().any(|there| there == line), "{line} is not in\n{env}");
        with_startup_files(home);
        for reference in ["-", "base"] {
            let env = run(reference);
            has(&env, "LD_LIBRARY_PATH=/lib/x".to_owned());
            has(&env, format!("TMPDIR={}", home.path("").display()));
            has(&env, format!("HOME={}", home.home_dir().display()));
            assert!(env.contains("SPFS_RUNTIME="), "{env}");
        }
    });
}

#[test]
fn commands_without_startup_files_start_no_shell() {
    every_caller(|home| {
        // A shell that would tell, and a user's file that would too.
        home.write("marker", "");
        std::fs::write(home.home_dir().join(".bashrc"), "echo READ").unwrap();
        home.spfs_line("run - -- readlink /proc/self/exe").run().ok().stdout_has("/readlink");
        let command = home.spfs_line("run - -- cat /proc/self/status").run().ok().stdout.clone();
        assert!(command.contains("Name:\tcat"), "{command}");
        home.spfs_line("run - -- no-such-program").run().code(127).stderr_has("could not run no-such-program");
        home.spfs_line("run - -- ./marker").run().code(126).stderr_has("Permission denied");
    });
}

#[test]
fn an_interactive_shell_greets_and_ends_with_its_code() {
    every_caller(|home| {
        with_startup_files(home);
        for shell in ["/bin/bash", "/bin/sh", "/usr/bin/zsh", "/usr/bin/tcsh", "/usr/bin/fish"] {
            // zsh asks a new user questions unless there is a file.
            std::fs::write(home.home_dir().join(".zshrc"), "MINE=yes\n").unwrap();
            home.set("SHELL", shell);
            let mut terminal = home.pty(["shell", "base", "--edit"]);
            terminal.expect("* You are now in a configured subshell *");
            terminal.line("echo \"greeting $GREETING .\"");
            let greeting = if shell.ends_with("tcsh") { "csh" } else { "" };
            let greeting = if shell.ends_with("fish") { "fish" } else { greeting };
            let greeting = if greeting.is_empty() { "one two" } else { greeting };
            terminal.expect(&format!("greeting {greeting} ."));
            terminal.line("echo hi > /spfs/f && exit 3");
            let (status, screen) = terminal.finish();
            assert_eq!(status.code(), Some(3), "{shell}: {screen}");
            home.unset("SHELL");
        }
    });
}

#[test]
fn what_a_start_leaves_behind_is_nothing() {
    every_caller(|home| {
        with_startup_files(home);
        home.spfs_line("run base -- true").env("SHELL", "/usr/bin/tcsh").run().ok();
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}
