//! `--lazy`: environments whose files stay at the origin until they are first opened.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Cmd, Home, Running, eventually, every_caller, strategies};
use crate::hostile_storage::privately;
use crate::remote_wire::gated;

/// A tree at the origin, tagged `tree`; nothing of it is here.
pub fn with_origin(home: &Home) {
    let origin = home.path("origin");
    let data = home.home_dir().join(".local/share");
    home.set("XDG_DATA_HOME", home.path("maker").to_str().unwrap());
    home.write("tree/message", "hello\n");
    home.write("tree/other", "other\n");
    home.write("tree/bin/tool", "#!/bin/sh\necho ran $1\n");
    home.write("tree/big", content());
    home.sh("chmod 755 tree/bin/tool; ln -s bin/tool tree/link; : > tree/empty; cp tree/big tree/same").run().ok();
    home.commit("tree", "tree");
    home.spfs(["init", "repo", origin.to_str().unwrap()]).run();
    home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("file:{}", origin.display()));
    home.spfs_line("push tree").run().ok();
    home.set("XDG_DATA_HOME", data.to_str().unwrap());
    // Only what is opened comes; `lazy_ahead` is about the rest.
    home.set("SPFS_FILESYSTEM_FETCH_AHEAD", "false");
    home.sh("rm -rf ~/.cache/spfs").run().ok();
}

/// A few hundred kilobytes that cannot be compressed.
pub fn content() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..300_000).map(|_| next()).collect()
}

/// `spfs run --lazy tree -- sh -c CODE`.
pub fn lazily(home: &Home, code: &str) -> Cmd {
    home.spfs(["run", "--lazy", "tree", "--", "sh", "-c", code])
}

/// Where the payload of the tree's file `name` is, at the origin or here.
pub fn payload(home: &Home, repository: &Path, name: &str) -> PathBuf {
    let text = home.sh(&format!("spfs write -q -r file:$PWD/scratch?create=true -f tree/{name}")).run();
    let digest = text.ok().text().to_owned();
    repository.join("payloads").join(&digest[..2]).join(&digest[2..])
}

/// How many payloads are here.
pub fn here(home: &Home) -> usize {
    home.sh("find ~/.local/share/spfs/payloads -type f ! -path '*/work/*' | wc -l")
        .run()
        .ok()
        .text()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_file_comes_when_it_is_first_opened() {
    every_caller(|home| {
        with_origin(home);
        for backend in strategies(home.caller()).iter().filter(|backend| **backend != "render") {
            home.set("SPFS_FILESYSTEM_BACKEND", *backend);
            home.sh("rm -rf ~/.local/share/spfs ~/.cache/spfs").run().ok();
            let look = "ls -lR /spfs | wc -l; stat -c %s /spfs/big /spfs/message; readlink /spfs/link; cat /spfs/empty";
            let said = lazily(home, look).run();
            said.ok().stdout_is("13\n300000\n6\nbin/tool").stderr_has("tree is fetched from origin as it is opened");
            assert_eq!(here(home), 1, "the symlink's target");
            let said = lazily(home, "cat /spfs/message; /spfs/bin/tool 1; /spfs/link 2").run();
            said.ok().stdout_is("hello\nran 1\nran 2");
            home.wait_for_the_end();
            assert_eq!(here(home), 3, "{backend}");
            // For everybody else it is not here.
            home.spfs_line("tags").run().ok().stdout_is("");
            home.spfs_line("check").run().ok();
            let origin = home.path("origin");
            fs::rename(&origin, home.path("away")).unwrap();
            home.script("tree", "true").run().fails().stderr_has("could not open repository");
            lazily(home, "cat /spfs/message").run().ok().stdout_is("hello").stderr_has("cannot be asked");
            fs::rename(home.path("away"), &origin).unwrap();
            // In part becomes whole.
            home.script("tree", "cat /spfs/message; cmp /spfs/big tree/big").run().ok().stderr_has("pulled tree");
            lazily(home, "cat /spfs/other").run().ok().stdout_is("other").stderr_is("");
            home.is_sound();
        }
    });
}

/// Reads in ways that a shell has none for.
const READER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char *how = argv[1], buffer[4096];
    int fd = open(argv[2], O_RDONLY | (*how == 'd' ? O_DIRECT : 0));
    if (fd < 0) { perror("open"); return 1; }
    if (*how == 'm' || *how == 'p') {
        char *map = mmap(0, 300000, PROT_READ, *how == 'm' ? MAP_SHARED : MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) { perror("mmap"); return 1; }
        write(1, map + 200000, 1000);
    } else if (*how == 'd') {
        void *aligned;
        if (posix_memalign(&aligned, 4096, 4096) || pread(fd, aligned, 4096, 200704) != 4096) { perror("pread"); return 1; }
        write(1, aligned, 1000);
    } else if (*how == 's') {
        off_t at = 200000;
        return sendfile(1, fd, &at, 1000) != 1000;
    } else {
        if (pread(fd, buffer, 1000, 200000) != 1000) { perror("pread"); return 1; }
        write(1, buffer, 1000);
    }
    return 0;
}
"#;

#[test]
fn every_way_of_reading_waits_for_the_content() {
    every_caller(|home| {
        with_origin(home);
        home.write("reader.c", READER);
        home.sh("cc -w -o reader reader.c").run().ok();
        let whole = content();
        for how in ["map shared", "private map", "read", "direct", "sendfile"] {
            home.sh("rm -rf ~/.local/share/spfs").run().ok();
            let code = format!("exec ./reader {} /spfs/big", how.split(' ').next().unwrap());
            let said = lazily(home, &code).run();
            let from = if how == "direct" { 200_704 } else { 200_000 };
            said.ok();
            assert!(said.stdout_bytes == whole[from..from + 1000], "{how}");
        }
        // A change of mode, a cut and an appended line need the content too; so does a link.
        home.sh("rm -rf ~/.local/share/spfs").run().ok();
        let code = "chmod 700 /spfs/message; echo more >> /spfs/other; ln /spfs/bin/tool /spfs/linked; mv /spfs/big /spfs/moved
            truncate -s 100 /spfs/same
            cat /spfs/message /spfs/other; /spfs/linked 3; cmp /spfs/moved tree/big && cmp -n 100 /spfs/same tree/big && wc -c < /spfs/same";
        home.spfs(["run", "--lazy", "--edit", "tree", "--", "sh", "-c", code])
            .run()
            .ok()
            .stdout_is("hello\nother\nmore\nran 3\n100");
    });
}

#[test]
fn many_readers_fetch_once_and_a_killed_one_does_not_wait() {
    every_caller(|home| {
        with_origin(home);
        let gate = gated(home);
        let code = "echo ready; read l; for i in $(seq 8); do cmp /spfs/big tree/big & cmp /spfs/same tree/big & done
            cat /spfs/big > killed & pid=$!; sleep 0.3; kill $pid; wait $pid; echo killed $?
            echo waiting; for job in $(jobs -p); do wait $job || echo failed $?; done; wait; echo done";
        let mut inside = lazily(home, code).stdin_open().spawn();
        inside.wait_for("ready");
        gate.close();
        let before = gate.passed();
        inside.send("\n");
        inside.wait_for("killed 143\nwaiting");
        gate.open();
        inside.finish().ok().stdout_is("ready\nkilled 143\nwaiting\ndone");
        let passed = gate.passed() - before;
        assert!((300_000..450_000).contains(&passed), "{passed} bytes came for one payload of 300000");
        home.wait_for_the_end();
        home.spfs_line("check").run().ok();
    });
}

#[test]
fn a_killed_server_fetches_again() {
    every_caller(|home| {
        with_origin(home);
        let gate = gated(home);
        let code = "echo ready; read l; cmp /spfs/big tree/big && echo same";
        let mut inside = lazily(home, code).stdin_open().spawn();
        inside.wait_for("ready");
        gate.close();
        inside.send("\n");
        for round in 0..2 {
            eventually("a fetch waits", || gate.held() > round);
            let mut killed = 0;
            for (pid, _) in home.processes() {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if name.trim() == "spfs-server" {
                    killed += usize::from(kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok());
                }
            }
            assert!(killed > 0);
            assert!(!payload(home, &home.repository(), "big").exists());
        }
        gate.open();
        inside.finish().ok().stdout_is("ready\nsame");
        home.is_sound();
    });
}

#[test]
fn what_cannot_be_fetched_is_an_error_that_heals() {
    every_caller(|home| {
        with_origin(home);
        let origin = home.path("origin");
        let code = "echo ready; read l; cat /spfs/message; /spfs/bin/tool; echo $?; read l; cat /spfs/message; /spfs/bin/tool 1
            read l; cat /spfs/other; read l; cat /spfs/other";
        let mut inside =
            home.spfs(["run", "--lazy", "--runtime-name", "work", "tree", "--", "sh", "-c", code]).stdin_open().spawn();
        inside.wait_for("ready");
        fs::rename(&origin, home.path("away")).unwrap();
        inside.send("\n");
        inside.wait_for("126");
        let log = home.run_dir().join("spfs/runtimes/work/log");
        let line = fs::read_to_string(&log).unwrap();
        assert!(line.contains("could not fetch /spfs/message (payload "), "{line}");
        assert!(line.contains("could not open repository") && line.contains("No such file or directory"), "{line}");
        let told = home.spfs_line("runtime info work").run();
        told.ok().stderr_has("could not fetch /spfs/bin/tool").stderr_lacks("damaged");
        let json: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!(json["config"]["lazy"], serde_json::json!(["origin"]));
        let bytes = 300_000 + 6 + 6 + 22;
        let expected = serde_json::json!({"payloads": 4, "payloads_here": 0, "bytes": bytes, "bytes_here": 0});
        assert_eq!(json["here"], expected);
        fs::rename(home.path("away"), &origin).unwrap();
        inside.send("\n");
        inside.wait_for("ran 1");
        // One that is wrong there never gets here.
        let there = payload(home, &origin, "other");
        fs::remove_file(&there).unwrap();
        fs::write(&there, "wrong\n").unwrap();
        inside.send("\n");
        eventually("the log speaks of it", || fs::read_to_string(&log).unwrap().contains("/spfs/other"));
        let line = fs::read_to_string(&log).unwrap();
        assert!(line.contains("the content that arrived has the digest"), "{line}");
        assert!(!payload(home, &home.repository(), "other").exists());
        fs::write(&there, "other\n").unwrap();
        inside.send("\n");
        let out = inside.finish();
        out.stdout_is("ready\n126\nhello\nran 1\nother").stderr_has("Input/output error");
        assert_eq!(out.stderr.matches("Input/output error").count(), 3, "{out}");
        home.wait_for_the_end();
        home.spfs_line("check").run().ok();
    });
}

#[test]
fn a_full_disk_is_an_error_that_heals() {
    every_caller(|home| {
        with_origin(home);
        let code =
            "mkdir -p tiny; mount -t tmpfs -o size=800k,mode=755 tiny tiny; export SPFS_STORAGE_ROOT=$PWD/tiny/store
            spfs run --lazy --runtime-name work tree -- sh -c 'cat /spfs/message; head -c 600000 /dev/zero > tiny/filler
            cat /spfs/big | wc -c; cat $XDG_RUNTIME_DIR/spfs/runtimes/work/log; rm tiny/filler
            cmp /spfs/big tree/big && echo same'
            spfs check > /dev/null && echo sound";
        let out = privately(home, code).run();
        out.ok().stdout_has("hello\n0\n").stdout_has("could not fetch /spfs/big").stdout_has("No space left on device");
        out.stdout_has("\nsame\nsound").stderr_has("Input/output error");
    });
}

#[test]
fn commits_in_a_lazy_runtime_stand_on_whole_ground() {
    every_caller(|home| {
        with_origin(home);
        let code =
            "echo new > /spfs/new; chmod 600 /spfs/message; rm /spfs/other; spfs commit layer -q -t layer; spfs diff
            spfs info | tail -1; cat /spfs/new /spfs/message";
        let edit = |code: &str| home.spfs(["run", "--lazy", "--edit", "tree", "--", "sh", "-c", code]).run();
        edit(code).ok().stdout_has("No Active Changes\nnew\nhello");
        home.wait_for_the_end();
        // A layer holds the changes and nothing else; it refers to nothing that is not here.
        let before = here(home);
        home.spfs_line("check").run().ok();
        home.spfs_line("ls layer").run().ok().stdout_is("message\nnew");
        fs::rename(home.path("origin"), home.path("away")).unwrap();
        let code =
            "echo more > /spfs/more; spfs commit platform -t plat; spfs reset --keep-changes --edit; cat /spfs/more";
        let said = edit(code);
        said.stderr_has("could not open repository").stdout_is("more");
        home.spfs_line("tags").run().ok().stdout_is("layer");
        fs::rename(home.path("away"), home.path("origin")).unwrap();
        assert_eq!(here(home), before + 1, "the new file, and nothing of the base");
        // A platform refers to the base, which comes whole before it.
        edit("echo more > /spfs/more; spfs commit platform -q -t plat").ok();
        home.wait_for_the_end();
        fs::rename(home.path("origin"), home.path("away")).unwrap();
        home.script("plat", "cat /spfs/more /spfs/other; cmp /spfs/big tree/big").run().ok().stdout_is("more\nother");
        home.script("plat+layer", "ls /spfs").run().ok().stdout_lacks("other");
        home.is_sound();
    });
}

#[test]
fn a_kept_lazy_runtime_goes_on_lazily() {
    every_caller(|home| {
        with_origin(home);
        let code = "cat /spfs/message; echo new > /spfs/new";
        home.spfs(["run", "--lazy", "--edit", "-k", "--runtime-name", "work", "tree", "--", "sh", "-c", code])
            .run()
            .ok();
        home.wait_for_the_end();
        let again = "cat /spfs/new /spfs/other; rm /spfs/bin/tool; spfs reset /new; ls /spfs";
        let out = home.spfs(["run", "--rerun", "work", "--", "sh", "-c", again]).run();
        out.ok().stdout_has("new\nother\n").stdout_lacks("new\nsame");
        home.wait_for_the_end();
        home.spfs_line("runtime rm --remove-durable work").run().ok();
        home.spfs_line("check").run().ok();
    });
}

#[test]
fn what_is_wholly_here_is_run_as_ever() {
    every_caller(|home| {
        with_origin(home);
        home.spfs_line("pull tree").run().ok();
        home.set("SPFS_FILESYSTEM_LAZY", "true");
        fs::rename(home.path("origin"), home.path("away")).unwrap();
        let code = "cat /spfs/message; spfs runtime info $SPFS_RUNTIME | grep -c '^    .lazy'";
        home.script("tree", code).run().stdout_is("hello\n0").stderr_is("");
        fs::rename(home.path("away"), home.path("origin")).unwrap();
        // Nothing but objects was missing: then it comes whole.
        home.sh("rm -rf ~/.local/share/spfs/objects/?? ~/.local/share/spfs/tags/*").run().ok();
        home.script("tree", code).run().stdout_is("hello\n0").stderr_has("pulled tree");
        // What every file is needed for, gets every file.
        home.sh("rm -rf ~/.local/share/spfs").run().ok();
        home.spfs_line("run --no-lazy tree -- cat /spfs/message").run().ok().stderr_has("pulled tree");
        home.sh("rm -rf ~/.local/share/spfs").run().ok();
        let out = home.spfs_line("run --backend render tree -- cat /spfs/message").run();
        out.ok().stderr_has("needs every file").stderr_has("pulled tree");
    });
}

/// `spfs server` on the origin, and its port.
pub fn server(home: &Home, port: u16) -> (Running, u16) {
    let origin = home.path("origin");
    let line = format!("server -r {} --listen 127.0.0.1:{port}", origin.display());
    let mut running = home.spfs_line(&line).spawn();
    running.wait_for("listening on: ");
    running.wait_for("\n");
    let port = running.stdout().trim().rsplit(':').next().unwrap().parse().unwrap();
    (running, port)
}

#[test]
fn a_server_that_comes_back_is_asked_again() {
    every_caller(|home| {
        with_origin(home);
        let (first, port) = server(home, 0);
        home.set("SPFS_REMOTE_ORIGIN_ADDRESS", format!("grpc://127.0.0.1:{port}"));
        let code = "cat /spfs/message; echo ready; read l; cat /spfs/other; echo $?; read l; cat /spfs/other; cmp /spfs/big tree/big && echo same";
        let mut inside = lazily(home, code).stdin_open().spawn();
        inside.wait_for("hello\nready");
        first.signal(Signal::KILL);
        first.finish().killed_by(Signal::KILL);
        inside.send("\n");
        inside.wait_for("1\n");
        let (second, _) = server(home, port);
        inside.send("\n");
        inside.finish().ok().stdout_is("hello\nready\n1\nother\nsame").stderr_has("Input/output error");
        second.signal(Signal::TERM);
        second.finish().ok();
        home.wait_for_the_end();
        home.spfs_line("check").run().ok();
    });
}
