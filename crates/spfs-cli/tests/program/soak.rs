//! A day's worth of runtimes in a few seconds, or in ten minutes with `SPFS_TEST_FULL=1`: everything that people do, in
//! random order, some of it killed; and nothing of it is left.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{Home, Running, every_caller, full, holds_within, strategies};
use rustix::process::Signal;

/// A small generator of random numbers (xorshift); its seed is printed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// What runs; the ones that say `sleep` are killed or left to end.
const WORK: [&str; 12] = [
    "spfs run base -- cat /spfs/base",
    "spfs run base+more -- sh -c 'cat /spfs/more; spfs info >/dev/null'",
    "spfs run base --edit -- sh -c 'echo $$ > /spfs/mine; spfs diff; spfs commit layer -q -t soak/$(($$ % 5)) >/dev/null'",
    "spfs run base --edit -- sh -c 'echo $$ > /spfs/mine; rm /spfs/base; spfs reset; cat /spfs/base'",
    "spfs run base -- spfs run more -- spfs run - -- ls /spfs",
    "spfs run base -- sh -c 'spfs edit; echo x > /spfs/x; spfs edit --off; spfs edit --keep-runtime 2>/dev/null; true'",
    "spfs run - --keep-runtime --runtime-name kept -- sh -c 'echo $$ > /spfs/kept'",
    "spfs run --rerun kept -- sh -c 'ls /spfs >/dev/null; sleep 0.05'",
    "spfs runtime rm --remove-durable kept",
    "spfs run base --runtime-name named -- sleep 0.2",
    "spfs join named -- sh -c 'cat /spfs/base; sleep 0.02'",
    "spfs clean; spfs runtime list; rm -rf ~/.cache/spfs/views",
];

/// What a process of ours that lives throughout has open: descriptors and inotify watches must not gather in it.
fn open_files(pid: i32) -> Vec<String> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.map(|entry| fs::read_link(entry.path()).unwrap_or_default().display().to_string()).collect()
}

fn monitor_of(home: &Home, name: &str) -> i32 {
    let json = home.spfs_line(&format!("runtime info {name}")).run().ok().stdout.clone();
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    i32::try_from(record["status"]["monitor"].as_i64().unwrap()).unwrap()
}

/// Has a runtime that lives throughout do its work once more.
fn ask(long: &mut Running, number: usize) {
    long.send(&format!("{number}\n"));
    let asked = |long: &Running| long.stdout().matches("done").count();
    let is = holds_within(Duration::from_secs(120), || asked(long) >= number);
    assert!(is, "{}\n{}", long.stdout(), long.stderr());
}

fn soak(home: &Home, time: Duration) {
    home.sh("mkdir base more; echo base > base/base; echo more > more/more").run().ok();
    home.commit("base", "base");
    home.commit("more", "more");
    home.set("SPFS_CACHE_MAX_SIZE", "1MiB");
    // One runtime lives through all of it, and is asked for something all the time.
    let code = "echo ready; while read line; do echo $line > /spfs/f; spfs commit layer -q -t long >/dev/null
            spfs edit; spfs reset; spfs diff; cat /spfs/f >/dev/null; echo done; done";
    let mut long = home.script("base --edit --runtime-name long", code).limit(time * 2 + Duration::from_secs(120));
    long = long.stdin_open();
    let mut long = long.spawn();
    long.wait_for("ready");
    ask(&mut long, 1);
    let monitor = monitor_of(home, "long");
    let open = open_files(monitor);
    let seed = u64::from(std::process::id()) << 20 | 1;
    eprintln!("-- seed {seed}");
    let mut dice = Dice(seed);
    let (end, mut number) = (Instant::now() + time, 1);
    while Instant::now() < end {
        let mut running: Vec<Running> = Vec::new();
        for _ in 0..8 {
            let cmd = home.sh(&format!("exec 2>&1; {}", WORK[dice.below(WORK.len())]));
            running.push(cmd.spawn());
            std::thread::sleep(Duration::from_millis(dice.below(8) as u64));
            if dice.below(4) == 0 {
                // The launcher or its command, with or without what belongs to it.
                let victim = &running[dice.below(running.len())];
                let _ = match dice.below(2) {
                    0 => rustix::process::kill_process(
                        rustix::process::Pid::from_raw(victim.pid() as i32).unwrap(),
                        Signal::KILL,
                    ),
                    _ => rustix::process::kill_process_group(
                        rustix::process::Pid::from_raw(victim.pid() as i32).unwrap(),
                        Signal::KILL,
                    ),
                };
            }
            if dice.below(12) == 0 {
                kill_one_of_ours(home, &mut dice, monitor);
            }
        }
        for one in running {
            let out = one.finish();
            assert!(!out.stdout.contains("panicked"), "{out}");
            // (A view that is removed between two steps of a start is gone around, with a word.)
            let said = ["error:", "backend"].iter().any(|word| out.stdout.contains(word));
            assert!(!out.stdout.contains("No such file or directory") || said, "{out}");
        }
        number += 1;
        ask(&mut long, number);
    }
    // It may have been asked by one that was killed, and notice that a moment later.
    // Another backend has a few more; what gathers would be hundreds.
    let as_before = || open_files(monitor).len() <= open.len() + 8;
    let is = holds_within(Duration::from_secs(60), as_before);
    assert!(is, "the monitor of a long runtime has more open: {:#?} instead of {open:#?}", open_files(monitor));
    long.close_stdin();
    long.finish().ok();
    home.wait_for_the_end();
    home.sh("spfs runtime rm --remove-durable kept; spfs runtime ls -q | grep -v long").run();
    for name in home.spfs_line("runtime ls -q").run().ok().lines() {
        home.spfs_line(&format!("runtime rm --remove-durable {name}")).run().ok();
    }
    home.is_sound();
    // What was used in the last hour stays, however much it is.
    home.sh("find ~/.cache/spfs -type f -exec touch -d '2 hours ago' {} +; spfs clean").run().ok();
    let bytes = home.sh("du -sk ~/.cache/spfs | cut -f1").run().ok().text().parse::<u64>().unwrap();
    assert!(bytes < 2048, "the caches have {bytes} KiB, and may have 1024");
}

/// Kills a monitor, a server or a job of any runtime but the long one, whose open files are compared.
fn kill_one_of_ours(home: &Home, dice: &mut Dice, spared: i32) {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<i32>().ok())
    };
    let is_spared = |pid: &i32| {
        let above = std::iter::successors(Some(*pid), |pid| parent(*pid).filter(|above| *above > 1));
        above.take(4).any(|pid| pid == spared)
    };
    let ours: Vec<i32> = home
        .processes()
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("spfs-") && !is_spared(pid)
        })
        .collect();
    if !ours.is_empty() {
        let pid = rustix::process::Pid::from_raw(ours[dice.below(ours.len())]).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[test]
fn a_day_leaves_nothing() {
    let time = Duration::from_secs(if full() { 300 } else { 3 });
    every_caller(|home| soak(home, time));
}

#[test]
fn resets_leave_nothing_open_in_the_monitor() {
    every_caller(|home| {
        for backend in strategies(home.caller()) {
            home.set("SPFS_FILESYSTEM_BACKEND", *backend);
            let code = "while read line; do echo $line > /spfs/f; spfs commit layer -q -t long >/dev/null
                spfs edit; spfs reset; echo done; done";
            let mut long = home.script("- --runtime-name long", code).stdin_open().spawn();
            (1..=3).for_each(|number| ask(&mut long, number));
            let monitor = monitor_of(home, "long");
            let open = open_files(monitor);
            (4..=12).for_each(|number| ask(&mut long, number));
            let as_before = || open_files(monitor).len() <= open.len();
            let is = holds_within(Duration::from_secs(60), as_before);
            assert!(is, "{backend}: {:#?} instead of {open:#?}", open_files(monitor));
            long.close_stdin();
            long.finish().ok();
            home.wait_for_the_end();
        }
    });
}
