//! What goes wrong below a runtime while it runs: killed servers, payloads that are gone or altered, caches that are lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{Damage, Home, every_caller, full};
use rustix::process::{Pid, Signal, kill_process};

const FILES: [&str; 5] = ["gone", "cut", "altered", "closed", "good"];

/// Commits a file for each word, with the word and a long tail as content, and says where each payload is.
fn payloads(home: &Home) -> Vec<PathBuf> {
    for name in FILES {
        home.write(&format!("tree/{name}"), format!("{name}\n{}", "-".repeat(10_000)));
    }
    home.commit("tree", "tree");
    let digest = |name| home.spfs_line(&format!("write -q -f tree/{name}")).run().ok().text().to_owned();
    FILES.map(|name| home.stored("payloads", &digest(name))).to_vec()
}

/// Does to each payload what its file's name says.
fn damage(payloads: &[PathBuf]) {
    fs::remove_file(&payloads[0]).unwrap();
    Damage::Cut.to(&payloads[1]);
    Damage::Altered.to(&payloads[2]);
    fs::set_permissions(&payloads[3], fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn a_payload_that_is_gone_fails_its_file_and_no_other() {
    every_caller(|home| {
        let payloads = payloads(home);
        let code = "echo ready; read line; for f in gone closed good; do head -1 /spfs/$f; done; ls /spfs | wc -l; stat -c %s /spfs/gone
            read line; head -1 /spfs/gone";
        let mut inside = home.script("tree --runtime-name work", code).stdin_open().spawn();
        inside.wait_for("ready");
        home.spfs_line("runtime info work").run().ok().stderr_is("").stdout_lacks("damaged");
        damage(&payloads);
        inside.send("\n");
        inside.wait_for("10005");
        // The rest of it is told: what stat can see by `runtime info`, and all of it by `check`.
        let told = home.spfs_line("runtime info work").run();
        told.ok().stderr_has("/spfs/gone is damaged: its payload").stderr_has("it is missing");
        told.stderr_has("/spfs/cut is damaged").stderr_has("bytes instead of 10004").stderr_lacks("/spfs/good");
        told.stderr_lacks("/spfs/altered");
        let json: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        let paths: Vec<&str> =
            json["damaged"].as_array().unwrap().iter().map(|bad| bad["path"].as_str().unwrap()).collect();
        // The mode of a payload matters to nobody who owns it.
        assert_eq!(paths, ["cut", "gone"]);
        home.spfs_line("check").run().fails();
        // What is put right again is right in the runtime too.
        fs::write(&payloads[0], fs::read(home.path("tree/gone")).unwrap()).unwrap();
        home.own(&payloads[0], 0o444);
        inside.send("\n");
        let out = inside.finish();
        out.stdout_is("ready\nclosed\ngood\n5\n10005\ngone").stderr_has("/spfs/gone");
    });
}

#[test]
fn walkers_do_not_notice_that_their_server_is_killed() {
    every_caller(|home| {
        let (dirs, rounds) = if full() { (100, 20) } else { (20, 2) };
        let code = format!(
            "cd /spfs; for d in $(seq {dirs}); do mkdir $d; (cd $d; seq 100 | xargs touch; echo $d > data; ln -s data link); done
            spfs commit layer -t many"
        );
        home.script("-", &code).run().ok();
        if home.caller().is_root() {
            // Root has a server only where there is no image.
            home.set("SPFS_FILESYSTEM_BACKEND", "server");
        }
        let walk = "find /spfs -type f -printf x | wc -c; cat /spfs/*/link | wc -l; ls -lR /spfs | wc -l";
        let code = format!("echo ready; for i in 1 2 3 4; do ({walk}) > w$i 2>&1 & done; wait; cat w1 w2 w3 w4");
        let mut killed = 0;
        for _ in 0..rounds {
            let mut inside = home.script("many", &code).spawn();
            inside.wait_for("ready");
            let mut here = 0;
            // After ten deaths the monitor takes its time.
            while inside.is_alive() && here < 9 {
                for (pid, _) in home.processes() {
                    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                    if name.trim() == "spfs-server" && kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok() {
                        here += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            killed += here;
            let said = inside.finish();
            let lines: Vec<&str> = said.ok().stdout.lines().skip(1).collect();
            let first = lines[..3].join("\n") + "\n";
            assert!(first.starts_with(&format!("{}\n{dirs}\n", dirs * 101)), "{said}");
            assert_eq!(said.stdout, format!("ready\n{}", first.repeat(4)), "the walkers do not agree");
        }
        assert!(killed > 0, "no server was met");
    });
}

#[test]
fn a_runtime_outlives_its_caches() {
    every_caller(|home| {
        home.sh("mkdir tree; for i in $(seq 300); do echo $i > tree/$i; done").run().ok();
        home.commit("tree", "tree");
        let code = "echo ready; read line; cat /spfs/300; ls /spfs | wc -l; echo new > /spfs/new; spfs commit layer -q -t new >/dev/null
            spfs diff; cat /spfs/new /spfs/1";
        for harm in [
            "rm -r ~/.cache/spfs",
            "for f in ~/.cache/spfs/*/*; do echo no > $f.x; mv $f.x $f; done",
            "chmod 0 ~/.cache/spfs",
        ] {
            let mut inside = home.script("tree --edit", code).stdin_open().spawn();
            inside.wait_for("ready");
            home.sh(harm).run().ok();
            inside.send("\n");
            inside.finish().ok().stdout_is("ready\n300\n300\nnew\n1");
            home.sh("chmod 700 ~/.cache/spfs").run();
            home.script("tree+new", "ls /spfs | wc -l").run().ok().stdout_is("301");
        }
        home.is_sound();
    });
}
