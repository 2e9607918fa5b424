//! Staying on the processor of whoever asks.
//!
//! One request is a microsecond of work. A server that sleeps on another processor than its client must be woken by an
//! interrupt each time, which costs 10 to 30 times as much (most of all in a virtual machine); on the same processor
//! it is a mere switch. So the server follows whoever has been asking for a while (`docs/performance.md`).

use std::ffi::CStr;
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::CpuSet;

/// How many requests pass between two looks at where the client runs, and at their pace.
pub(super) const PACE: u32 = 64;

/// For how many requests it counts if one had to be waited for: the client may be elsewhere.
const WAIT: u32 = 8;

/// In what time so many come from somebody who is busy asking.
const STEADY: Duration = Duration::from_millis(32);

/// The place of the processor in `/proc/PID/stat`, counted from the field after the name (`proc(5)`, field 39).
const PROCESSOR: usize = 39 - 3;

/// Moves the server to its client's processor, now and then. Without `/proc` it stays where the kernel puts it.
#[derive(Default)]
pub(super) struct Beside {
    requests: u32,
    /// How many of them were of the process that asked last.
    in_a_row: u32,
    last: u32,
    /// How many since the last look at where the client runs.
    unseen: u32,
    since: Option<Instant>,
    current: Option<usize>,
}

/// What the last [`PACE`] requests were like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// One after the other from one process that we can see, and soon.
    Steady,
    /// Anything else.
    Loose,
}

impl Beside {
    /// Notes one request of the process `pid` (0: one of another pid namespace); says now and then how they come.
    pub fn request_of(&mut self, pid: u32) -> Option<Pace> {
        self.requests += 1;
        self.in_a_row = if pid == self.last { self.in_a_row + 1 } else { 1 };
        self.last = pid;
        self.unseen += 1;
        if self.unseen >= PACE {
            self.unseen = 0;
            self.follow(pid);
        }
        if self.requests < PACE {
            return None;
        }
        self.requests = 0;
        let now = Instant::now();
        let soon = self.since.replace(now).is_some_and(|since| now - since < STEADY);
        Some(if soon && pid != 0 && self.in_a_row >= PACE { Pace::Steady } else { Pace::Loose })
    }

    /// Notes that there was no request yet when the last one had been answered.
    pub fn had_to_wait(&mut self) {
        self.unseen += WAIT - 1;
    }

    fn follow(&mut self, pid: u32) {
        let found = if pid == 0 { None } else { processor(pid) };
        let Some(processor) = found.filter(|found| Some(*found) != self.current) else { return };
        let mut one = CpuSet::new();
        one.set(processor);
        // Not allowed by a cpuset, perhaps: then as before.
        if rustix::thread::sched_setaffinity(None, &one).is_ok() {
            self.current = Some(processor);
        }
    }
}

/// The processor that a process ran on last. Nothing is allocated.
fn processor(pid: u32) -> Option<usize> {
    let mut path = [0u8; 32];
    write!(&mut path[..], "/proc/{pid}/stat\0").ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0u8; 1024];
    let length = rustix::io::read(&file, &mut text).ok()?;
    parse(&text[..length])
}

fn parse(stat: &[u8]) -> Option<usize> {
    // The name is in brackets and may hold anything.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let field = stat.get(end + 2..)?.split(|byte| *byte == b' ').nth(PROCESSOR)?;
    let processor = std::str::from_utf8(field).ok()?.parse().ok()?;
    (processor < CpuSet::MAX_CPU).then_some(processor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found_behind_any_name() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        for name in ["sh", "a b) 1 2", ") ) )"] {
            assert_eq!(parse(format!("77 ({name}) S {}\n", fields.join(" ")).as_bytes()), Some(39));
        }
        assert_eq!(parse(b"77 (cut short) S 1 2"), None);
        assert_eq!(parse(b""), None);
        let own = processor(std::process::id());
        assert!(own.is_some_and(|own| own < CpuSet::MAX_CPU), "{own:?}");
    }

    #[test]
    fn the_pace_is_steady_while_one_process_asks() {
        // (Loose are also those that came too slowly: on a busy machine all of them may be, but never one of two.)
        let mut beside = Beside::default();
        let own = std::process::id();
        assert_eq!((1..PACE).find_map(|_| beside.request_of(own)), None);
        assert_eq!(beside.request_of(own), Some(Pace::Loose), "the first are not known to have come soon");
        let paces: Vec<Pace> = (0..1000 * PACE).filter_map(|_| beside.request_of(own)).collect();
        assert!(paces.contains(&Pace::Steady), "nobody is that slow a thousand times");
        let in_turn = (0..10 * PACE).filter_map(|n| beside.request_of(own + n % 2)).collect::<Vec<_>>();
        assert_eq!(in_turn, [Pace::Loose; 10]);
    }

    #[test]
    fn who_cannot_be_seen_is_not_followed() {
        let mut beside = Beside::default();
        assert_eq!((0..10 * PACE).filter_map(|_| beside.request_of(0)).collect::<Vec<_>>(), [Pace::Loose; 10]);
        assert_eq!(beside.current, None);
        assert_eq!(processor(u32::MAX), None);
    }
}
