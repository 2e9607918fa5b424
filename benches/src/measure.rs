//! Interleaved rounds and medians.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::bench::Result;

/// One contender: its name, and how to do the work once and say how long it took.
pub struct Contender<'a> {
    name: &'a str,
    work: Box<dyn FnMut(usize) -> Result<Duration> + 'a>,
}

impl<'a> Contender<'a> {
    /// Work that times itself; it is told the round, from 0.
    pub fn timed(name: &'a str, work: impl FnMut(usize) -> Result<Duration> + 'a) -> Contender<'a> {
        Contender { name, work: Box::new(work) }
    }

    /// A command, from its start to its end.
    pub fn command(name: &'a str, mut command: Command) -> Contender<'a> {
        Contender::timed(name, move |_| time(&mut command))
    }
}

/// How long a command takes; it must succeed.
pub fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status().map_err(|err| format!("{command:?}: {err}"))?;
    let time = start.elapsed();
    if status.success() { Ok(time) } else { Err(format!("{command:?}: {status}")) }
}

/// How long a command takes, and the most memory that it had, in kB; it must succeed.
pub fn peak(mut command: Command) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let mut child = command.spawn().map_err(|err| format!("{command:?}: {err}"))?;
    let mut most = 0;
    loop {
        // The last look is a few milliseconds before the end, where nothing grows any more.
        most = most.max(high_water(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().map_err(|err| format!("{command:?}: {err}"))? {
            let time = start.elapsed();
            return if status.success() { Ok((time, most)) } else { Err(format!("{command:?}: {status}")) };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory that a process had so far, in kB.
pub fn high_water(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Runs every contender once per round, in turn, and returns the median time of each, in their order.
/// One round more than asked comes first and does not count.
pub fn interleaved(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Result<Vec<Duration>> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let time = (contender.work)(round).map_err(|problem| format!("{}: {problem}", contender.name))?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// The median, of at least one.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How many times `peer` fits into `time`.
pub fn ratio(time: Duration, peer: Duration) -> f64 {
    time.as_secs_f64() / peer.as_secs_f64()
}

/// Keeps this process, and all it starts, on one CPU until dropped.
pub struct Pinned(CpuSet);

impl Pinned {
    /// Pins to the last CPU that this process may use: the first has most of the interrupts.
    pub fn new() -> Result<Pinned> {
        let before = sched_getaffinity(None).map_err(|err| format!("sched_getaffinity: {err}"))?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| before.is_set(*cpu)).ok_or("no CPU")?;
        let mut one = CpuSet::new();
        one.set(last);
        sched_setaffinity(None, &one).map_err(|err| format!("sched_setaffinity: {err}"))?;
        Ok(Pinned(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.0);
    }
}
