//! What the program says: help, usage errors, errors with their hints, colours, closed pipes, completion, manual pages.

use std::os::unix::fs::PermissionsExt;

use crate::common::{Caller, Home};

fn home() -> Home {
    Home::new(Caller::all().remove(0))
}

#[test]
fn the_overview() {
    let home = home();
    insta::assert_snapshot!(home.spfs_line("help").run().ok().stdout, @r#"
Isolate, capture and recall software environments under /spfs

Usage: spfs [-v] COMMAND …

Environments
  shell     Enter an environment with your shell
  run       Run a program in an environment
  edit      Allow changes in the environment you are in
  commit    Save active changes as a layer, or the whole environment as a platform
  reset     Throw away active changes, or change what the environment is made of

Looking
  info      Show this environment and its changes, or what a reference is and holds
  diff      Show what was changed in this environment, or what differs between two
  ls        List a directory of a layer or platform, without entering it
  read      Print a file of a layer or platform; of a symlink, its target

Sharing
  push      Send layers, platforms and tags to a remote, with all that they need
  pull      Fetch layers, platforms and tags from a remote, with all that they need

Names
  tag       Give names to a layer, a platform or a file
  untag     Remove a tag, or one version of it
  tags      List all tags
  log       Show what a tag has meant, newest first
  search    Look for tags by a part of their name, in the local repository and in all remotes

More
  store     ls-tags layers platforms write check clean render
  runtimes  join runtime
  set up    doctor serve init config remote server completion man version

spfs help COMMAND, or spfs help TOPIC: environments, references, editing, durable, layers, config, shells
"#);
    let overview = home.spfs_line("help").run().stdout;
    home.spfs_line("--help").run().ok().stdout_is(&overview);
    home.spfs_line("-h").run().ok().stdout_is(&overview);
    home.spfs::<&str>([]).run().code(2).stdout_is("").stderr_is(&overview);
}

#[test]
fn the_help_of_a_command_is_one_text() {
    let home = home();
    insta::assert_snapshot!(home.spfs_line("help run").run().ok().stdout, @r#"
Run a program in an environment

/spfs shows the environment to the program and to everything that it starts, and to nobody else.
spfs becomes the program: same process, same exit status, and nothing between it and the terminal.

An environment of something that exists is read-only unless --edit is given; the empty one is not.

Usage: spfs run [OPTIONS] [REF] -- <COMMAND>...

Arguments:
  [REF]
          The environment: references joined by `+`, the bottom first; `-` is an empty one

  <COMMAND>...
          The program and its arguments, after `--`

Options:
  -e, --edit
          Allow changes to /spfs; an empty environment allows them anyway

  -v, --verbose...
          Show more of what is done; repeat for more

      --no-edit
          Forbid changes to /spfs

      --runtime-name <NAME>
          Name the runtime, instead of a name made up for it

  -k, --keep-runtime
          Keep the runtime and its changes on disk when its last process has gone
          
          [env: SPFS_KEEP_RUNTIME]

      --rerun <NAME>
          Go on with a kept runtime, instead of REF

      --force
          With --rerun: even if it seems to be in use on another machine

      --annotation <KEY=VALUE>
          Annotate the environment: KEY=VALUE, KEY:VALUE, or a map like '{a: b, c: d}'; may be
          repeated

      --annotation-file <FILE>
          Annotate it with a YAML or JSON map from a file, `-` for standard input; may be repeated

      --backend <NAME>
          How /spfs is shown; without it the best way that works

          Possible values:
          - auto:   The best that works here; what cannot be used is told
          - image:  Names from an image that the kernel mounts, data from the store; for root
          - server: Names from a server, data from the store
          - render: Plain directories of links, made once for each environment and kept in the store
          - fuse:   Names and data from a server: slower, and works nearly everywhere

      --sync
          Ask the remotes first, and bring tags up to date that are there already

      --check
          The same, and look below what is there already too, and fill in what is missing

      --resync
          The same, and read and compare what is there already too, and replace what is damaged

      --max-concurrent-payloads <N>
          How many files to move at the same time
          
          [env: SPFS_SYNC_MAX_CONCURRENT_PAYLOADS]

      --progress <STYLE>
          How progress is shown, on standard error: bars are shown on a terminal only

          Possible values:
          - none: Not at all
          - bars: As a bar, if standard error is a terminal and the work takes a while
          - json: As one JSON object a line, with the fields of docs/json.md
          
          [default: bars]

      --lazy
          Fetch each file of a remote only when it is first opened

      --no-lazy
          Fetch everything before it starts, whatever is configured

  -r, --remote <NAME_OR_ADDRESS>
          Look only in this remote, and fetch from it what is not here

  -h, --help
          Print help (see a summary with '-h')

Examples:
  spfs run my-layer -- ls /spfs
  spfs run base+tools -- make -C /src
  spfs run - -- sh -c 'echo hi > /spfs/f; spfs commit layer -t f'
  spfs run --rerun work -- ls /spfs
"#);
    let help = home.spfs_line("help run").run().stdout;
    home.spfs_line("run --help").run().ok().stdout_is(&help);
    home.spfs_line("help layers").run().ok().stdout_has("Usage: spfs layers").stdout_has("LIVE LAYERS");
    home.spfs_line("help rt").run().ok().stdout_has("Usage: spfs runtime");
    home.spfs_line("help nonsense").run().code(1).stderr_has("environments, references");
}

#[test]
fn versions() {
    let home = home();
    home.spfs_line("version").run().ok().stdout_is(env!("CARGO_PKG_VERSION"));
    home.spfs_line("--version").run().ok().stdout_is(concat!("spfs ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_line_that_makes_no_sense_says_the_right_one() {
    let home = home();
    let refused = |words: &[&str]| home.spfs(words).run().code(2).stdout_is("").stderr.clone();
    insta::assert_snapshot!(refused(&["run", "my-layer", "ls", "-l", "a b"]), @r#"
error: unexpected argument 'ls' found

Usage: spfs run [OPTIONS] [REF] -- <COMMAND>...

For more information, try '--help'.

hint: the command comes after `--`: spfs run my-layer -- ls -l 'a b'
"#);
    insta::assert_snapshot!(refused(&["run", "my-layer"]), @r#"
error: the following required arguments were not provided:
  <COMMAND>...

Usage: spfs run <REF> -- <COMMAND>...

For more information, try '--help'.

hint: `spfs run REF -- COMMAND` runs a command, `spfs shell REF` starts your shell
"#);
    insta::assert_snapshot!(refused(&["run", "--", "ls"]), @r#"
error: the following required arguments were not provided:
  <REF>

Usage: spfs run <REF> -- <COMMAND>...

For more information, try '--help'.

hint: `spfs run - -- COMMAND` runs a command in an empty environment
"#);
    insta::assert_snapshot!(refused(&["shell"]), @r#"
error: the following required arguments were not provided:
  <REF>

Usage: spfs shell <REF>

For more information, try '--help'.

hint: `spfs shell -` starts your shell in an empty environment
"#);
}

/// Both callers get the same words.
#[test]
fn errors_say_what_to_type_next() {
    let said = Caller::all().into_iter().map(|caller| errors(&Home::new(caller))).collect::<Vec<_>>();
    for other in &said {
        assert_eq!(other, &said[0]);
    }
    insta::assert_snapshot!(said[0], @r#"
$ spfs run my-lyer -- true
error: unknown reference "my-lyer"
hint: did you mean `my-layer`?
hint: `spfs tags` lists the tags that there are, `spfs search TERM` looks for one
$ spfs run zzz+my-layer -- true
error: unknown reference "zzz"
hint: `spfs tags` lists the tags that there are, `spfs search TERM` looks for one
$ spfs run a++b -- true
error: invalid environment "a++b": an item beside a '+' is empty
$ spfs run my-layer~7 -- true
error: unknown reference "my-layer~7"
hint: did you mean `my-layer`?
hint: `spfs tags` lists the tags that there are, `spfs search TERM` looks for one
$ spfs edit
error: no active runtime
hint: this works inside an environment: `spfs shell -` enters an empty one
$ spfs commit layer
error: no active runtime
hint: this works inside an environment: `spfs shell -` enters an empty one
$ spfs reset
error: no active runtime
hint: this works inside an environment: `spfs shell -` enters an empty one
$ spfs join nothing
error: unknown runtime "nothing"
hint: `spfs runtime list` lists the runtimes
$ spfs runtime info nothing
error: unknown runtime "nothing"
hint: `spfs runtime list` lists the runtimes
$ spfs runtime rm nothing
error: unknown runtime "nothing"
hint: `spfs runtime list` lists the runtimes
$ spfs runtime prune
error: no pruning strategy selected
hint: spfs runtime prune --from-before-boot
$ spfs shell --rerun nothing
error: unknown runtime "nothing"
hint: `spfs runtime list` lists the runtimes
$ spfs tga my-layer x
error: there is no command "tga", and no program spfs-tga on the PATH
hint: did you mean `tag` or `tags`?
hint: `spfs help` lists the commands
$ spfs run - -- spfs commit layer
error: nothing to commit: nothing has changed since the runtime began, or since the last commit
hint: `spfs info` lists the active changes, `spfs edit` allows new ones
"#);
}

fn errors(home: &Home) -> String {
    home.script("-", "echo a > /spfs/a; spfs commit layer -t my-layer").run().ok();
    let lines = [
        "run my-lyer -- true",
        "run zzz+my-layer -- true",
        "run a++b -- true",
        "run my-layer~7 -- true",
        "edit",
        "commit layer",
        "reset",
        "join nothing",
        "runtime info nothing",
        "runtime rm nothing",
        "runtime prune",
        "shell --rerun nothing",
        "tga my-layer x",
        "run - -- spfs commit layer",
    ];
    let mut said = String::new();
    for line in lines {
        let output = home.spfs_line(line).run();
        output.code(1).stdout_is("");
        let errors = output.stderr.replace(home.repository().to_str().unwrap(), "REPOSITORY");
        said.push_str(&format!("$ spfs {line}\n{errors}"));
    }
    said
}

#[test]
fn a_storage_that_cannot_be_used_is_named() {
    let home = Home::new(Caller::user());
    let failed = home.spfs_line("runtime list").env("SPFS_STORAGE_ROOT", "/proc/nowhere").run();
    failed.code(1).stderr_has("/proc/nowhere").stderr_has("caused by: No such file");
    let failed = home.spfs_line("runtime list").env("SPFS_STORAGE_ROOT", "/root/spfs").run();
    failed
        .code(1)
        .stderr_has("/root/spfs")
        .stderr_has("caused by: Permission denied")
        .stderr_has("hint: `spfs config --origin`");
}

#[test]
fn configuration_says_where_it_is_from() {
    let home = home();
    let root = home.path("elsewhere");
    let root = root.to_str().unwrap();
    home.spfs_line("config").env("SPFS_STORAGE_ROOT", root).run().ok().stdout_has(&format!("\"root\": \"{root}\""));
    let lines = home.spfs_line("config --origin").env("SPFS_STORAGE_ROOT", root).run().ok().stdout.clone();
    let line = lines.lines().find(|line| line.starts_with("storage.root ")).unwrap();
    assert!(line.ends_with("  SPFS_STORAGE_ROOT"), "{line}");
    let json = home.spfs_line("config --origin --json").run().ok().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["storage.root"]["origin"], "default");
    home.spfs_line("runtime list")
        .env("SPFS_STORAG_ROOT", "x")
        .run()
        .ok()
        .stderr_has("warning: ")
        .stderr_has("SPFS_STORAG_ROOT");
    let wrong = home.spfs_line("runtime list").env("SPFS_CACHE_MAX_SIZE", "many").run();
    wrong.code(1).stderr_has("SPFS_CACHE_MAX_SIZE").stderr_has("hint: `spfs help config`");
    home.spfs_line("version").env("SPFS_CACHE_MAX_SIZE", "many").run().ok();
}

#[test]
fn repositories_are_made_where_asked() {
    let home = home();
    home.spfs_line("init repo a/b").run().ok().stdout_is("").stderr_is("");
    home.spfs_line("init repo a/b").run().ok();
    for part in ["VERSION", "objects", "payloads", "tags"] {
        assert!(home.path("a/b").join(part).exists(), "{part}");
    }
    home.write("file", "");
    home.spfs_line("init repo file").run().code(1).stderr_has("file");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = home();
    // More than a pipe holds, and nobody there to read it.
    let out = home.sh("{ spfs completion bash; echo $? >&2; } | true; spfs help run | true").run();
    out.ok().stderr_lacks("panicked").stderr_lacks("error");
    let out = home.sh("sleep 0.2 | sleep 0; { sleep 0.2; spfs help run; echo code $? >&2; } | true").run();
    out.stderr_has("code 141").stderr_lacks("error");
    home.sh("spfs help run > /dev/full")
        .run()
        .code(1)
        .stderr_is("error: could not write to standard output\n  caused by: No space left on device (os error 28)");
    // Standard error gone: nobody to tell, and no panic.
    home.sh("spfs nonsense 2>&-").run().code(1);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let home = home();
    let coloured = |home: &Home, name: &str, value: &str| {
        let terminal = home.spfs_line("edit").env("TERM", "xterm-256color").env(name, value).on_a_terminal();
        terminal.finish().1.contains('\x1b')
    };
    assert!(coloured(&home, "NOTHING", "1"), "colours on a terminal");
    assert!(!coloured(&home, "NO_COLOR", "1"), "NO_COLOR");
    assert!(!coloured(&home, "CLICOLOR", "0"), "CLICOLOR=0");
    home.spfs_line("edit").run().code(1).stderr_lacks("\x1b");
    assert!(home.spfs_line("edit").env("CLICOLOR_FORCE", "1").run().stderr.contains('\x1b'));
}

#[test]
fn unknown_commands_are_looked_for_on_the_path() {
    let home = home();
    let program = home.write("bin/spfs-hello", "#!/bin/sh\nfor word; do echo \"<$word>\"; done\nexit 7\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.write("bin/spfs-data", "no program");
    let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
    let words = ["hello", "a b", "--help", "", "-v"];
    home.spfs(words).env("PATH", &path).run().code(7).stdout_is("<a b>\n<--help>\n<>\n<-v>");
    home.spfs(["data"]).env("PATH", &path).run().code(1).stderr_has("there is no command \"data\"");
    home.spfs(["comit"]).run().code(1).stderr_has("did you mean `commit`?");
    home.spfs(["../bin/spfs-hello"]).env("PATH", &path).run().code(1);
}

#[test]
fn shells_complete_commands_tags_and_runtimes() {
    let home = home();
    home.script("-", "echo a > /spfs/a; spfs commit layer -t team/one -t team/two -t other").run().ok();
    for shell in ["bash", "zsh", "fish"] {
        home.spfs(["completion", shell]).run().ok().stdout_has("SPFS_COMPLETE");
    }
    // As the script for bash asks.
    let complete = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let words = ["--", "spfs"].into_iter().chain(words[1..].iter().copied());
        let asked = home.spfs(words).env("SPFS_COMPLETE", "bash").env("_CLAP_IFS", "\n");
        let asked = asked.env("_CLAP_COMPLETE_INDEX", &index).env("_CLAP_COMPLETE_COMP_TYPE", "9");
        asked.run().ok().lines().join(" ")
    };
    assert_eq!(complete(&["spfs", "comm"]), "commit");
    assert_eq!(complete(&["spfs", "shell", "team/"]), "team/one team/two");
    assert_eq!(complete(&["spfs", "run", "other+team/t"]), "other+team/two");
    assert_eq!(complete(&["spfs", "shell", "--keep"]), "--keep-runtime");
    assert_eq!(complete(&["spfs", "runtime", "rm", "wo"]), "");
    home.spfs_line("run --keep-runtime --runtime-name work - -- true").run().ok();
    assert_eq!(complete(&["spfs", "runtime", "rm", "wo"]), "work");
    // A broken configuration must not end up in somebody's command line.
    home.set("SPFS_CACHE_MAX_SIZE", "many");
    assert_eq!(complete(&["spfs", "shell", "team/"]), "");
}

#[test]
fn manual_pages_of_every_command() {
    let home = home();
    home.spfs_line("man pages").run().ok().stdout_is("");
    let page = std::fs::read_to_string(home.path("pages/spfs-run.1")).unwrap();
    assert!(page.contains(".SH SYNOPSIS") && page.contains("my\\-layer"), "{page}");
    assert!(page.contains("\nspfs run [OPTIONS] [REF] \\-\\- <COMMAND>...\n"), "what can be typed: {page}");
    for command in ["spfs", "spfs-shell", "spfs-commit", "spfs-runtime-list"] {
        assert!(home.path(&format!("pages/{command}.1")).exists(), "{command}");
    }
    home.sh("man -l pages/spfs-run.1 2>/dev/null || true").run().ok();
}

/// Each line of a log has the time; the file holds what is told besides, and never more than one command's.
#[test]
fn what_is_told_can_be_logged() {
    let home = home();
    let is_stamped = |line: &str| line.len() > 28 && line.as_bytes()[26] == b'Z' && line.starts_with("20");
    let read = || std::fs::read_to_string(home.path("log")).unwrap();
    for (options, variable) in [("--log-file log", ""), ("", "SPFS_LOG_FILE=log ")] {
        let out = home.sh(&format!("{variable}spfs {options} info nonesuch")).run();
        out.code(1).stderr_has("error: unknown reference");
        let log = read();
        assert!(log.lines().all(is_stamped) && log.lines().count() == out.stderr.lines().count(), "{log}");
    }
    home.spfs_line("tags --log-file log --timestamp").run().ok().stdout_is("").stderr_is("");
    assert_eq!(read(), "");
    for (options, variable) in [("--timestamp", ""), ("", "SPFS_LOG_TIMESTAMP=true ")] {
        let out = home.sh(&format!("{variable}spfs {options} info nonesuch")).run();
        assert!(out.code(1).stderr.lines().all(is_stamped), "{out}");
    }
    home.sh("SPFS_LOG_FILE= SPFS_LOG_TIMESTAMP=0 spfs info x")
        .run()
        .code(1)
        .stderr_has("error: ")
        .stderr_lacks("Z error");
    home.spfs_line("--log-file /proc/none tags").run().ok().stderr_has("nothing is written to the log file /proc/none");
}

#[test]
fn throwing_changes_away_is_asked_for_on_a_terminal() {
    let home = home();
    home.script("-", "echo a > /spfs/a; spfs commit layer -t my-layer").run().ok();
    let reset = |options: &str, answer: &str| {
        let code = format!("touch /spfs/new; spfs reset --ref my-layer {options}; echo code $? $(ls /spfs)");
        let mut terminal = home.pty(["run", "-", "--", "sh", "-c", &code]);
        if !answer.is_empty() {
            terminal.expect("1 active change will be lost. Go on? (y/N) ");
            terminal.line(answer);
        }
        terminal.finish().1
    };
    for (options, answer, shown) in [
        ("", "n", "code 2 new"),
        ("", "yes", "code 0 a"),
        ("--yes", "", "code 0 a"),
        ("--keep-changes", "", "code 0 a new"),
    ] {
        let said = reset(options, answer);
        assert!(said.contains(shown), "{options:?} {answer:?}: {said}");
    }
    // Without a terminal nobody can be asked.
    let code = "touch /spfs/new; spfs reset --ref my-layer; ls /spfs";
    home.script("-", code).run().ok().stdout_is("a");
}

#[test]
fn verbosity_shows_what_is_mounted() {
    let home = home();
    home.spfs_line("run -v - -- true").run().ok().stdout_is("").stderr_has("mounted:");
    home.spfs_line("run - -- true").env("SPFS_LOG", "spfs=debug,info").run().ok().stderr_has("mounted:");
    home.spfs_line("run - -- true").run().ok().stderr_is("");
}
