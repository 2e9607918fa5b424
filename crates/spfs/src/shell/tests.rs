//! The plans, run with the real shells. All of them have to be installed.
#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Output, Stdio};

use super::*;

/// One environment's start-up directory and one person's home, both with odd names.
struct World {
    _dir: tempfile::TempDir,
    startup: PathBuf,
    scratch: PathBuf,
    env: Env,
}

impl World {
    fn new(shell: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let startup = dir.path().join("it's a \"start\" $up!");
        let scratch = dir.path().join("run dir/it's 'ours'!");
        let home = dir.path().join("home of $USER's");
        fs::create_dir_all(&startup).unwrap();
        fs::create_dir_all(&home).unwrap();
        let vars = [
            ("SHELL", shell.into()),
            ("PATH", std::env::var_os("PATH").unwrap()),
            ("HOME", home.into_os_string()),
            ("TMPDIR", dir.path().as_os_str().to_owned()),
            ("LD_LIBRARY_PATH", "/some/where".into()),
            ("LC_ALL", "C.UTF-8".into()),
        ];
        let mut env = Env::bare(dir.path());
        env.vars = vars.map(|(name, value)| (OsString::from(name), value)).into_iter().collect();
        World { _dir: dir, startup, scratch, env }
    }

    fn with(mut self, name: &str, value: impl Into<OsString>) -> World {
        self.env = self.env.with_var(name, value);
        self
    }

    fn var(&self, name: &str) -> &OsStr {
        self.env.var(name).unwrap()
    }

    fn startup(self, name: &str, content: &str) -> World {
        fs::write(self.startup.join(name), content).unwrap();
        self
    }

    fn home(self, name: &str, content: &str) -> World {
        fs::write(Path::new(self.var("HOME")).join(name), content).unwrap();
        self
    }

    fn plan(&self, command: &[OsString], terminal: bool) -> ExecPlan {
        let request = ShellRequest { env: &self.env, runtime: "the-runtime", command, scratch: &self.scratch };
        decide(&request, &self.startup, terminal).unwrap()
    }

    /// Runs a plan as the launcher does.
    fn start(&self, plan: &ExecPlan, more: &[&str], input: &str) -> Output {
        plan.write_files().unwrap();
        let mut command = Command::new(&plan.program);
        command.args(&plan.arguments).args(more).env_clear().envs(&self.env.vars);
        for (name, value) in &plan.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A shell that ends early does not read everything; what it printed shows why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        self.start(&self.plan(&words, false), &[], "")
    }

    /// An interactive shell that is given `input`; `-i` because the test has no terminal.
    fn interact(&self, input: &str) -> Output {
        self.start(&self.plan(&[], true), &["-i"], input)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every shell that we know, the suffix of its files, and how it sets a variable for its children.
const SHELLS: [(&str, &str, &str); 7] = [
    ("/bin/bash", "sh", "export SEEN=\"${SEEN}NAME\"\n"),
    ("/bin/sh", "sh", "export SEEN=\"${SEEN}NAME\"\n"),
    ("dash", "sh", "export SEEN=\"${SEEN}NAME\"\n"),
    ("zsh", "sh", "export SEEN=\"${SEEN}NAME\"\n"),
    ("tcsh", "csh", "if (! $?SEEN) setenv SEEN ''\nsetenv SEEN \"${SEEN}NAME\"\n"),
    ("csh", "csh", "if (! $?SEEN) setenv SEEN ''\nsetenv SEEN \"${SEEN}NAME\"\n"),
    ("fish", "fish", "set -gx SEEN \"$SEEN\"NAME\n"),
];

/// What `printf` is given, to come out as it is.
const ODD: [&str; 13] =
    ["", "-x", "--", "a  b", "new\nline", "*", "$HOME `id` !1", "it's", "\"dq\"", "back\\slash", "ünï", "\t", ""];

#[test]
fn a_command_without_startup_files_needs_no_shell() {
    for (shell, suffix, _) in SHELLS {
        // The files of other shells, hidden ones and directories are not for this one.
        let other = if suffix == "sh" { "x.csh" } else { "x.sh" };
        let world = World::new(shell).startup(other, "exit 9\n").startup(&format!(".hidden.{suffix}"), "exit 9\n");
        fs::create_dir(world.startup.join(format!("dir.{suffix}"))).unwrap();
        let plan = world.plan(&["printf".into(), "".into()], false);
        let environment = vec![("SPFS_RUNTIME", Some("the-runtime".into()))];
        let arguments = vec![OsString::new()];
        assert_eq!(plan, ExecPlan { program: "printf".into(), arguments, environment, files: Vec::new() });
    }
}

#[test]
fn a_missing_startup_directory_is_no_error() {
    let world = World::new("/bin/bash");
    fs::remove_dir(&world.startup).unwrap();
    assert_eq!(world.plan(&["true".into()], false).program, "true");
}

#[test]
fn odd_arguments_survive_the_startup_files() {
    for (shell, suffix, script) in SHELLS {
        let script = script.replace("NAME", "x");
        let world = World::new(shell).startup(&format!("it's $odd !1 `x`.{suffix}"), &script);
        let words: Vec<&str> = ["printf", "<%s>\n"].into_iter().chain(ODD).collect();
        let output = world.run(&words);
        let expected: String = ODD.iter().map(|word| format!("<{word}>\n")).collect();
        assert_eq!(text(&output.stdout), expected, "{shell}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{shell}");
    }
}

#[test]
fn arguments_that_are_not_utf8_survive_too() {
    for (shell, suffix, script) in SHELLS {
        let world = World::new(shell).startup(&format!("x.{suffix}"), &script.replace("NAME", "x"));
        let odd = OsString::from_vec(b"a\xff\xfeb".to_vec());
        let output = world.start(&world.plan(&["printf".into(), "%s".into(), odd.clone()], false), &[], "");
        assert_eq!(output.stdout, odd.as_bytes(), "{shell}: {}", text(&output.stderr));
    }
}

#[test]
fn startup_files_are_read_in_the_order_of_their_names() {
    for (shell, suffix, script) in SHELLS {
        let world = World::new(shell)
            .startup(&format!("20 b.{suffix}"), &script.replace("NAME", "2"))
            .startup(&format!("10-a.{suffix}"), &script.replace("NAME", "1"))
            .startup(&format!("Z.{suffix}"), &script.replace("NAME", "3"))
            .startup(&format!("a.{suffix}"), &script.replace("NAME", "4"))
            .with("SPFS_DEBUG", "1");
        let output = world.run(&["printenv", "SEEN", "TMPDIR", "LD_LIBRARY_PATH", "HOME", "SPFS_RUNTIME"]);
        let of = |name| world.var(name).to_str().unwrap();
        let expected = format!("1234\n{}\n/some/where\n{}\nthe-runtime\n", of("TMPDIR"), of("HOME"));
        assert_eq!(text(&output.stdout), expected, "{shell}: {}", text(&output.stderr));
        let echoed = text(&output.stderr);
        let echoed: Vec<&str> = echoed.lines().filter_map(|line| line.rsplit('/').next()).collect();
        let names = ["10-a", "20 b", "Z", "a"].map(|name| format!("{name}.{suffix}"));
        assert_eq!(echoed, names, "{shell}");
    }
}

#[test]
fn the_exit_status_is_the_commands_own() {
    for (shell, suffix, script) in SHELLS {
        let world = World::new(shell).startup(&format!("x.{suffix}"), &script.replace("NAME", "x"));
        assert_eq!(world.run(&["sh", "-c", "exit 23"]).status.code(), Some(23), "{shell}");
        let missing = world.run(&["no-such-program-anywhere"]);
        assert_eq!(missing.status.code(), Some(127), "{shell}: {}", text(&missing.stderr));
        assert!(text(&missing.stderr).contains("no-such-program-anywhere"), "{shell}: {}", text(&missing.stderr));
    }
}

#[test]
fn a_command_never_reads_the_users_files() {
    for (shell, suffix, script) in SHELLS {
        let mut world = World::new(shell).startup(&format!("x.{suffix}"), &script.replace("NAME", "x"));
        for file in [".bashrc", ".bash_profile", ".profile", ".zshenv", ".zshrc", ".cshrc", ".tcshrc", "env"] {
            world = world.home(file, "echo READ\n");
        }
        let env = Path::new(world.var("HOME")).join("env");
        let world = world.with("BASH_ENV", env.clone()).with("ENV", env);
        let fish = Path::new(world.var("HOME")).join(".config/fish");
        fs::create_dir_all(&fish).unwrap();
        fs::write(fish.join("config.fish"), "echo READ\n").unwrap();
        let output = world.run(&["printenv", "SEEN"]);
        assert_eq!(text(&output.stdout), "x\n", "{shell}: {}", text(&output.stderr));
        // What bash was not to read is still there for the command.
        assert_eq!(world.run(&["printenv", "BASH_ENV"]).status.code(), Some(0), "{shell}");
        assert_eq!(world.run(&["printenv", "POSIXLY_CORRECT"]).status.code(), Some(1), "{shell}");
    }
}

#[test]
fn a_shell_without_a_person_reads_commands_from_its_input() {
    for (shell, suffix, script) in SHELLS {
        let world = World::new(shell).startup(&format!("x.{suffix}"), &script.replace("NAME", "x"));
        let output = world.start(&world.plan(&[], false), &[], "echo \"[$SEEN]\"\n");
        assert_eq!(text(&output.stdout), "[x]\n", "{shell}: {}", text(&output.stderr));
    }
}

/// What a person's start-up file is called, per shell, and a line that shows it was read.
fn personal(shell: &str) -> (&'static str, &'static str) {
    match shell {
        "/bin/bash" => (".bashrc", "export MINE=yes; alias hello='echo hi'\n"),
        "/bin/sh" | "dash" => ("my env", "export MINE=yes; alias hello='echo hi'\n"),
        "zsh" => (".zshrc", "export MINE=yes; alias hello='echo hi'\n"),
        "tcsh" => (".tcshrc", "setenv MINE yes; alias hello echo hi\n"),
        "csh" => (".cshrc", "setenv MINE yes; alias hello echo hi\n"),
        _ => (".config/fish/config.fish", "set -gx MINE yes; alias hello 'echo hi'\n"),
    }
}

#[test]
fn an_interactive_shell_reads_the_users_files_then_those_of_the_environment() {
    for (shell, suffix, script) in SHELLS {
        let world = World::new(shell).with("SPFS_SHELL_MESSAGE", "it's \"ready\" $HOME");
        fs::create_dir_all(Path::new(world.var("HOME")).join(".config/fish")).unwrap();
        let (file, content) = personal(shell);
        // What the person says last is seen first: SEEN starts with what their file left.
        let mine = format!("{content}{}", script.replace("NAME", "mine,"));
        let world = world.home(file, &mine).startup(&format!("x.{suffix}"), &script.replace("NAME", "spfs"));
        // POSIX expands ENV once more.
        let world = world.with("ENV", "$HOME/my env");
        let output =
            world.interact("echo \"[$SEEN $MINE]\"\nhello\necho \"[$HOME]\"\nprintenv ENV\nprintenv ZDOTDIR\nexit 5\n");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(out.contains("[mine,spfs yes]"), "{shell}: {out}\n{err}");
        assert!(out.contains("hi\n"), "{shell}: {out}\n{err}");
        assert!(out.contains(&format!("[{}]", world.var("HOME").to_str().unwrap())), "{shell}: {out}\n{err}");
        assert!(out.contains("\n$HOME/my env\n"), "{shell}: ENV is as it was: {out}\n{err}");
        assert!(!out.contains("run dir"), "{shell}: nothing of ours is left in the environment: {out}");
        assert!(err.contains("it's \"ready\" $HOME"), "{shell}: {err}");
        assert_eq!(output.status.code(), Some(5), "{shell}: {out}\n{err}");
    }
}

#[test]
fn the_default_message_is_upstreams_and_an_empty_one_is_none() {
    for (shell, ..) in SHELLS {
        let world = World::new(shell);
        let greeted = text(&world.interact("exit\n").stderr);
        assert!(greeted.contains(DEFAULT_MESSAGE), "{shell}: {greeted}");
        let world = world.with("SPFS_SHELL_MESSAGE", "");
        let silent = text(&world.interact("exit\n").stderr);
        assert!(!silent.contains("configured"), "{shell}: {silent}");
    }
}

#[test]
fn zsh_finds_its_moved_directory_again() {
    let (nested, show) = ("zsh -i -c 'print -r -- \"nested $MINE $ZDOTDIR\"'\n", "print -r -- \"[$MINE $ZDOTDIR]\"\n");
    for by_file in [true, false] {
        let mut world = World::new("zsh");
        let moved = Path::new(world.var("HOME")).join("z dir");
        fs::create_dir(&moved).unwrap();
        fs::write(moved.join(".zshrc"), "export MINE=moved\n").unwrap();
        let expected = format!("moved {}", moved.display());
        // Moved by the user's .zshenv, or by whoever started us.
        world = match by_file {
            true => world.home(".zshenv", "export ZDOTDIR=\"$HOME/z dir\"\n"),
            false => world.with("ZDOTDIR", moved),
        };
        let output = world.interact(&format!("{show}unset MINE\n{nested}"));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(out.contains(&format!("[{expected}]")), "{out}\n{err}");
        assert!(out.contains(&format!("nested {expected}")), "{out}\n{err}");
    }
}

#[test]
fn the_choice_of_shell() {
    let chosen = |shell: &str| choose(Some(OsStr::new(shell)), Some(OsStr::new("/usr/bin:/bin"))).unwrap();
    for (shell, kind) in [
        ("/bin/bash", Kind::Bash),
        ("/bin/sh", Kind::Sh),
        ("/usr/bin/zsh", Kind::Zsh),
        ("/usr/bin/tcsh", Kind::Csh),
        ("/usr/bin/fish", Kind::Fish),
    ] {
        let found = chosen(shell);
        assert_eq!((found.path.to_str(), found.kind), (Some(shell), kind));
    }
    // A bare name is looked up; what we do not know, or is not there, is passed over.
    assert_eq!(chosen("zsh").path, Path::new("/usr/bin/zsh"));
    for shell in ["", "/usr/bin/nologin", "/no/where/bash", "nu"] {
        assert_eq!(chosen(shell).kind, Kind::Bash, "{shell}");
    }
    assert_eq!(choose(None, None).unwrap().path, Path::new("/bin/bash"));
}
