//! A test that blocks for ever ends the whole run, with its name: libtest itself would wait until somebody looks.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::full;

/// What runs: since when, and which test it is.
static RUNNING: Mutex<BTreeMap<Instant, String>> = Mutex::new(BTreeMap::new());

/// Part of a test; it must be over in time.
pub struct Watch(Instant);

impl Watch {
    /// From now on, until it is dropped.
    pub fn start() -> Watch {
        static WATCHER: Once = Once::new();
        WATCHER.call_once(|| drop(thread::spawn(watch)));
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = Instant::now();
        while running.contains_key(&now) {
            now += Duration::from_nanos(1);
        }
        running.insert(now, thread::current().name().unwrap_or("a test").to_owned());
        Watch(now)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn watch() {
    let limit = Duration::from_secs(if full() { 3600 } else { 300 });
    loop {
        thread::sleep(Duration::from_secs(1));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, test)) = running.first_key_value()
            && since.elapsed() > limit
        {
            // Not by eprintln!, which the test's own capture would keep.
            let limit = limit.as_secs();
            let _ = writeln!(std::io::stderr(), "\n!!! {test} has not ended within {limit} s; nothing after it is run");
            std::process::exit(101);
        }
    }
}
