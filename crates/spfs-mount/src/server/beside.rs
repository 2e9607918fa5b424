//! Staying on the processor of whoever asks.
//!
//! One request is a microsecond of work. A server that sleeps on another processor than its client must be woken by an
//! interrupt each time, which costs 10 to 30 times as much (most of all in a virtual machine); on the same processor
//! it is a mere switch. So the server follows whoever has been asking for a while (`docs/performance.md`).

use std::ffi::CStr;
use std::io::Write;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::CpuSet;

/// How many requests pass between two looks at where the client runs.
const PACE: u32 = 64;

/// The place of the processor in `/proc/PID/stat`, counted from the field after the name (`proc(5)`, field 39).
const PROCESSOR: usize = 39 - 3;

/// Moves the server to its client's processor, now and then. Without `/proc` it stays where the kernel puts it.
#[derive(Default)]
pub(super) struct Beside {
    requests: u32,
    current: Option<usize>,
}

impl Beside {
    /// Notes one request of the process `pid` (0: one of another pid namespace).
    pub fn request_of(&mut self, pid: u32) {
        self.requests += 1;
        if self.requests < PACE || pid == 0 {
            return;
        }
        self.requests = 0;
        let Some(processor) = processor(pid).filter(|found| Some(*found) != self.current) else { return };
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
    fn who_cannot_be_seen_is_not_followed() {
        let mut beside = Beside::default();
        (0..1000).for_each(|_| beside.request_of(0));
        assert_eq!(beside.current, None);
        assert_eq!(processor(u32::MAX), None);
    }
}
