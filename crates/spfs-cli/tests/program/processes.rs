//! The command is the process that the caller started: its pid, status, signals, terminal and children are its own.

use crate::common::{Caller, Home, eventually, every_caller, everywhere, is_root};
use rustix::process::Signal;

/// Says whether `wait(-1)` finds a child: there is none, although a monitor was started.
const WAIT: &str = "perl -e 'use POSIX; my $p = waitpid(-1, WNOHANG); print \"$p \", $!{ECHILD} ? \"none\" : \"some\"'";

#[test]
fn the_command_is_the_callers_own_process() {
    everywhere(|home| {
        let mut inside = home.script("-", "echo $$; cat").stdin_open().spawn();
        inside.wait_for("\n");
        assert_eq!(inside.stdout().trim(), inside.pid().to_string());
        inside.close_stdin();
        inside.finish().ok();
        // Group, session and parent too.
        let ids = "perl -e 'print join(\" \", getpgrp(), getppid(), (split \" \", `cat /proc/$$/stat`)[5])'";
        let outside = home.sh(&format!("{ids}; true")).run();
        let words = |text: &str| text.split(' ').map(|word| word == outside.pid.to_string()).collect::<Vec<_>>();
        let inside = home.sh(&format!("spfs run - -- {ids}; true")).run();
        let same = inside.text().replace(&inside.pid.to_string(), &outside.pid.to_string());
        assert_eq!(words(&same), words(outside.text()), "{inside}{outside}");
    });
}

#[test]
fn the_exit_status_is_the_commands() {
    everywhere(|home| {
        for code in [0, 1, 2, 42, 126, 127, 255] {
            home.script("-", &format!("exit {code}")).run().code(code);
        }
        for (name, signal) in [("KILL", Signal::KILL), ("TERM", Signal::TERM), ("SEGV", Signal::SEGV)] {
            home.script("-", &format!("kill -{name} $$")).run().killed_by(signal);
        }
    });
}

#[test]
fn signals_go_to_the_command_and_to_nothing_else() {
    every_caller(|home| {
        let code = "trap 'echo caught' TERM; trap 'echo hup' HUP; echo ready; while :; do read line && break; done
            echo hi > /spfs/f && spfs diff";
        let mut inside = home.script("-", code).stdin_open().spawn();
        inside.wait_for("ready");
        inside.signal(Signal::TERM);
        inside.wait_for("caught");
        // The whole group, as a terminal does it: the monitor is not in it.
        inside.signal_group(Signal::HUP);
        inside.wait_for("hup");
        inside.send("go\n");
        inside.finish().ok().stdout_is("ready\ncaught\nhup\n+/spfs/f");
        home.script("-", "echo ready; exec sleep 1000").spawn().wait_for("ready");
    });
}

#[test]
fn signal_dispositions_and_masks_are_inherited_as_without_us() {
    every_caller(|home| {
        let look = "grep -E '^Sig(Blk|Ign|Cgt):|^Umask' /proc/self/status";
        for setup in ["true", "trap '' HUP", "trap '' INT QUIT", "trap '' PIPE", "umask 027", "umask 0777"] {
            let outside = home.sh(&format!("{setup}; {look}")).run().ok().stdout.clone();
            home.sh(&format!("{setup}; spfs run - -- {look}")).run().ok().stdout_is(&outside);
        }
        let blocked = "use POSIX; sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1, SIGTERM)); exec @ARGV";
        let outside = home.sh(&format!("perl -e '{blocked}' {look}")).run().ok().stdout.clone();
        assert!(!outside.contains("SigBlk:\t0000000000000000"), "{outside}");
        home.sh(&format!("perl -e '{blocked}' spfs run - -- {look}")).run().ok().stdout_is(&outside);
    });
}

#[test]
fn a_command_has_no_child_and_no_descriptor_of_ours() {
    everywhere(|home| {
        home.script("-", WAIT).run().ok().stdout_is("-1 none");
        home.spfs(["run", "-", "--", "perl", "-e", "use POSIX; print wait(), $!{ECHILD} ? ' none' : ' some'"])
            .run()
            .ok()
            .stdout_is("-1 none");
        let outside = home.sh("ls /proc/self/fd").run().ok().stdout.clone();
        home.script("-", "ls /proc/self/fd").run().ok().stdout_is(&outside);
        home.spfs(["run", "-", "--", "perl", "-e", "print join ' ', map { readlink } glob '/proc/self/fd/*'"])
            .run()
            .ok()
            .stdout_lacks("spfs");
        // Zombies neither.
        home.script("-", "ps -o stat= --ppid $$ | grep -c Z; true").run().ok().stdout_is("0");
    });
}

#[test]
fn a_subreaper_and_pid_1_of_a_container_meet_no_stranger() {
    everywhere(|home| {
        let wait =
            "use POSIX; my $p = wait(); print $p, $!{ECHILD} ? ' none' : ' some', \" $$\", -e '/spfs' ? ' in' : '';";
        home.write("wait.pl", wait);
        // PR_SET_CHILD_SUBREAPER is 36, prctl is 157 on x86-64 and 167 on aarch64.
        let number = if cfg!(target_arch = "x86_64") { 157 } else { 167 };
        let start = "exec 'spfs', 'run', '-', '--', 'perl', 'wait.pl'";
        home.write("reaper.pl", format!("syscall({number}, 36, 1, 0, 0, 0) == 0 or die; {start}"));
        let reaper = home.sh("exec perl reaper.pl").run();
        reaper.ok().stdout_is(&format!("-1 none {} in", reaper.pid));
        let unshare = if home.caller().is_root() { "unshare" } else { "unshare --map-current-user --user" };
        let container = format!("exec {unshare} --pid --fork --mount-proc");
        home.sh(&format!("{container} spfs run - -- perl wait.pl")).run().ok().stdout_is("-1 none 1 in");
        home.sh(&format!(
            "{container} spfs run - -- sh -c 'echo hi > /spfs/f; spfs commit layer -q -t c >&2; cat /spfs/f'"
        ))
        .run()
        .ok()
        .stdout_is("hi");
        // The end of pid 1 is the end of everything in a container, also of a monitor that is about to clean up.
        home.spfs_line("runtime list").run().ok().stdout_is("");
    });
}

#[test]
fn a_substitution_returns_with_its_command() {
    every_caller(|home| {
        home.sh("x=$(spfs run - -- echo inside); echo \"<$x>\"").run().ok().stdout_is("<inside>");
        // It must not wait for what the command left running there either, once that has closed its output.
        let code = "x=$(spfs run - -- sh -c 'sleep 1000 >/dev/null 2>&1 </dev/null & echo $!'); kill $x && echo killed";
        home.sh(code).run().ok().stdout_is("killed");
        home.sh("spfs run - -- sh -c 'cat; echo end' | tr a-z A-Z").stdin("text\n").run().ok().stdout_is("TEXT\nEND");
    });
}

#[test]
fn the_interrupt_key_ends_the_command_and_spares_the_monitor() {
    everywhere(|home| {
        let mut terminal = home.pty(["run", "-", "--", "sh", "-c", "echo rea''dy; exec sleep 1000"]);
        terminal.expect("ready");
        eventually("the program runs", || home.processes().iter().any(|(_, line)| line.contains("] sleep")));
        terminal.keys("\x03");
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(terminal.finish().0.signal(), Some(Signal::INT.as_raw()));
        // One that goes on after Ctrl-C still has its monitor.
        let code = "trap 'echo cau''ght' INT; echo rea''dy; read line; read line; echo x > /spfs/f; spfs diff";
        let mut terminal = home.pty(["run", "-", "--", "bash", "-c", code]);
        terminal.expect("ready");
        // A shell that is just about to read runs its trap after the line.
        terminal.keys("\x03");
        terminal.keys("\n");
        terminal.expect("caught");
        terminal.keys("\n");
        terminal.expect("+/spfs/f");
        assert!(terminal.finish().0.success());
    });
}

#[test]
fn jobs_are_stopped_and_continued_by_the_callers_shell() {
    every_caller(|home| {
        let mut shell = home.command(["bash", "--norc", "-i"].map(String::from).to_vec()).on_a_terminal();
        shell.line("PS1='$ '; spfs run - -- sh -c 'echo rea''dy; cat; echo o''ver'");
        shell.expect("ready");
        eventually("the program runs", || home.processes().iter().any(|(_, line)| line.ends_with("] cat ")));
        shell.keys("\x1a");
        shell.expect("Stopped");
        // One that has not noticed yet would still take the next line.
        eventually("it is stopped", || {
            home.processes().iter().any(|(pid, line)| line.ends_with("] cat ") && stopped(*pid))
        });
        shell.line("jobs -l; echo sti''ll");
        shell.expect("still");
        shell.line("fg");
        shell.expect("fg");
        shell.line("echoed");
        shell.expect("echoed");
        shell.keys("\x04");
        shell.expect("over");
        shell.line("exit 5");
        assert_eq!(shell.finish().0.code(), Some(5));
    });
}

/// Whether a process is stopped (`proc_pid_stat(5)`, the field after the name).
fn stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

#[test]
fn jobs_are_controlled_inside_too() {
    everywhere(|home| {
        std::fs::write(home.home_dir().join(".bashrc"), "PS1='$ '\n").unwrap();
        home.set("SHELL", "/bin/bash");
        let mut shell = home.pty(["shell", "-"]);
        shell.line("echo in''side $-");
        assert!(!shell.expect("inside").contains("no job control"));
        shell.line("sleep 1000");
        eventually("the program runs", || home.processes().iter().any(|(_, line)| line.contains("] sleep")));
        shell.keys("\x1a");
        shell.expect("Stopped");
        shell.line("bg; jobs; kill %1; wait; echo cleared");
        shell.expect("cleared");
        shell.line("tty; echo hi > /spfs/f; spfs commit layer -t f; exit 4");
        shell.expect("created tag");
        assert_eq!(shell.finish().0.code(), Some(4));
    });
}

#[test]
fn directories_and_odd_arguments_survive() {
    everywhere(|home| {
        home.write("sub/file", "");
        home.sh("cd sub && spfs run - -- pwd").run().ok().stdout_is(home.path("sub").to_str().unwrap());
        let argv = ["", " ", "a b", "-x", "--", "--edit", "$HOME", "`id`", "\\", "ü", "new\nline", "*", "'\""];
        let out = home.spfs(["run", "-", "--", "printf", "<%s>"].iter().chain(&argv)).run();
        assert_eq!(out.ok().stdout, argv.map(|word| format!("<{word}>")).concat());
        home.spfs(["run", "-", "--", "sh", "-c", "echo $0 $#", "zero", "one"]).run().ok().stdout_is("zero 1");
        // A directory that is gone.
        home.sh("mkdir gone && cd gone && rmdir ../gone && spfs run - -- echo fine").run().ok().stdout_is("fine");
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    everywhere(|home: &Home| {
        home.write("text", "no program");
        home.spfs_line("run - -- /no/such/program").run().code(127);
        home.spfs_line("run - -- ./text").run().code(126);
        home.spfs_line("run - -- /").run().code(126);
        home.spfs_line("run no/such/tag -- true").run().code(1).stderr_has("no/such/tag");
        home.spfs_line("run x+- -- true").run().code(1).stderr_has("stands alone");
        home.spfs_line("run - --keep-runtime --runtime-name kept -- /no/such/program").run().code(127);
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
        let bad = home.write("live.spfs.yaml", "api: spfs/v0/livelayer\ncontents: [{bind: gone, dest: x}]\n");
        home.spfs(["run", bad.to_str().unwrap(), "--", "true"]).run().code(1).stderr_has("live.spfs.yaml");
        home.write("dir/x", "");
        // A mount for which there is no place.
        let binds = "[{bind: dir, dest: d}, {bind: text, dest: d/x/y}]";
        let live = home.write("over.spfs.yaml", format!("api: spfs/v0/livelayer\ncontents: {binds}\n"));
        home.spfs(["run", live.to_str().unwrap(), "--", "true"]).run().fails();
        home.script("-", "true").env("SPFS_FILESYSTEM_TMPFS_SIZE", "nonsense").run().fails();
        home.wait_for_the_end();
        assert_eq!(home.records(), Vec::<String>::new());
    });
}

/// Whatever root directory is made for it: the host's names, what the host mounts and unmounts later, and namespaces of
/// one's own, which the kernel refuses to who is in a chroot.
#[test]
fn inside_everything_else_is_the_hosts() {
    everywhere(|home| {
        let names = home.sh("ls -A / | grep -vx spfs").run().ok().stdout.clone();
        let code = "ls -A / | grep -vx spfs; read line; cat at/file; read line
            test ! -e at/file; test -e /spfs && unshare --user --map-root-user --mount --pid --fork true && echo all";
        let mut inside = home.sh(&format!("mkdir at; exec spfs run - -- sh -c \"{code}\"")).stdin_open().spawn();
        inside.wait_for(names.lines().last().unwrap());
        if is_root() {
            let root = Home::on(Caller::Root, home.host().clone());
            let at = home.path("at").display().to_string();
            root.sh(&format!("mount -t tmpfs none {at}; echo later > {at}/file")).run().ok();
            inside.send("\n");
            inside.wait_for("later");
            root.sh(&format!("umount {at}")).run().ok();
        }
        inside.close_stdin();
        let mounted = if is_root() { "later\n" } else { "" };
        assert_eq!(inside.finish().ok().stdout, format!("{names}{mounted}all\n"));
    });
}
