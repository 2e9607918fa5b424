//! Progress of long work on standard error: bars on a terminal, or lines of JSON for programs.

use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use spfs::repo::Progress;

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// The least time between two lines of JSON.
const INTERVAL: Duration = Duration::from_millis(200);
/// Over how much of the past the rate is taken, about.
const MEMORY: f64 = 3.0;

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Style {
    /// Not at all
    None,
    /// As a bar, if standard error is a terminal and the work takes a while
    #[default]
    Bars,
    /// As one JSON object a line, with the fields of docs/json.md
    Json,
}

/// The progress of one piece of work. It draws from the thread that reports, and starts no thread of its own: a process
/// that enters namespaces has to be single-threaded. A bar is gone without a trace when dropped.
pub struct Bar {
    what: &'static str,
    style: Style,
    bar: ProgressBar,
    started: Instant,
    /// Whether standard error is a terminal, and the bar not yet visible.
    hidden: AtomicBool,
    items: AtomicU64,
    items_expected: AtomicU64,
    rate: Mutex<Rate>,
}

/// Bytes a second, of late.
struct Rate {
    at: Instant,
    bytes: u64,
    per_second: f64,
    said: Option<Instant>,
}

/// One line of JSON.
#[derive(Serialize)]
struct Line {
    progress: &'static str,
    items: u64,
    items_expected: u64,
    bytes: u64,
    bytes_expected: u64,
    bytes_per_second: u64,
    /// `null` as long as nothing can be said.
    seconds_left: Option<u64>,
    done: bool,
}

impl Bar {
    /// Progress of what is being done, as in "committing".
    pub fn new(what: &'static str, style: Style) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // The template is a constant; were it wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        let now = Instant::now();
        Bar {
            what,
            style,
            bar,
            started: now,
            hidden: AtomicBool::new(style == Style::Bars && std::io::stderr().is_terminal()),
            items: AtomicU64::new(0),
            items_expected: AtomicU64::new(0),
            rate: Mutex::new(Rate { at: now, bytes: 0, per_second: 0.0, said: None }),
        }
    }

    /// Shows how far it is, if it is time for that.
    fn show(&self) {
        match self.style {
            Style::None => {}
            Style::Bars => self.draw(),
            Style::Json => self.say(false),
        }
    }

    /// Draws, once the work has taken long enough.
    fn draw(&self) {
        if self.hidden.load(Relaxed) {
            if self.started.elapsed() < PATIENCE || !self.hidden.swap(false, Relaxed) {
                return;
            }
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if !self.bar.is_hidden() {
            let rate = self.rate().update(self.bar.position());
            self.bar.set_message(shown(&self.line(rate, false)));
        }
    }

    /// Writes a line of JSON, unless the last one is not long ago.
    fn say(&self, done: bool) {
        let mut rate = self.rate();
        if !done && rate.said.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        rate.said = Some(Instant::now());
        let per_second = rate.update(self.bar.position());
        let text = serde_json::to_string(&self.line(per_second, done)).unwrap_or_default();
        // Nobody to tell is no reason to fail. The lock is still held: lines do not mix.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn rate(&self) -> std::sync::MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, per_second: f64, done: bool) -> Line {
        let (bytes, expected) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let left = expected.saturating_sub(bytes) as f64;
        Line {
            progress: self.what,
            items: self.items.load(Relaxed),
            items_expected: self.items_expected.load(Relaxed),
            bytes,
            bytes_expected: expected,
            bytes_per_second: per_second as u64,
            seconds_left: (per_second >= 1.0 && expected > 0).then(|| (left / per_second).ceil() as u64),
            done,
        }
    }
}

impl Rate {
    /// Takes in how many bytes there are now; returns bytes a second, where older ones count less and less.
    fn update(&mut self, bytes: u64) -> f64 {
        let elapsed = self.at.elapsed().as_secs_f64();
        if elapsed > 0.05 {
            let now = bytes.saturating_sub(self.bytes) as f64 / elapsed;
            let weight = (-elapsed / MEMORY).exp();
            let first = self.per_second == 0.0;
            self.per_second = if first { now } else { self.per_second * weight + now * (1.0 - weight) };
            (self.at, self.bytes) = (Instant::now(), bytes);
        }
        self.per_second
    }
}

/// `12/340, 1.20/30.00 MiB, 5.00 MiB/s, 6 seconds left`.
fn shown(line: &Line) -> String {
    let mut text = format!("{}/{}", HumanCount(line.items), HumanCount(line.items_expected));
    if line.bytes_expected > 0 {
        text += &format!(", {} of {}", HumanBytes(line.bytes), HumanBytes(line.bytes_expected));
    }
    if line.bytes_per_second > 0 {
        text += &format!(", {}/s", HumanBytes(line.bytes_per_second));
    }
    if let Some(seconds) = line.seconds_left {
        text += &format!(", {} left", HumanDuration(Duration::from_secs(seconds)));
    }
    text
}

impl Progress for Bar {
    fn expect(&self, items: u64, bytes: u64) {
        self.items_expected.fetch_add(items, Relaxed);
        self.bar.inc_length(bytes);
        self.show();
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Relaxed);
        self.bar.inc(bytes);
        self.show();
    }
}

/// The progress of work that is hardly ever needed: a bar made when that begins.
pub struct Late {
    what: &'static str,
    style: Style,
    bar: OnceLock<Bar>,
}

impl Late {
    /// Says that `what` is being done, in this style.
    pub fn new(what: &'static str, style: Style) -> Self {
        Late { what, style, bar: OnceLock::new() }
    }

    fn bar(&self) -> &Bar {
        self.bar.get_or_init(|| Bar::new(self.what, self.style))
    }
}

impl Progress for Late {
    fn expect(&self, items: u64, bytes: u64) {
        self.bar().expect(items, bytes);
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.bar().advance(items, bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        // Work that had nothing to do says nothing.
        if self.style == Style::Json && self.items_expected.load(Relaxed) > 0 {
            self.say(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bar_says() {
        let line = Line {
            progress: "moving",
            items: 12,
            items_expected: 3400,
            bytes: 1 << 20,
            bytes_expected: 30 << 20,
            bytes_per_second: 5 << 20,
            seconds_left: Some(6),
            done: false,
        };
        assert_eq!(shown(&line), "12/3,400, 1.00 MiB of 30.00 MiB, 5.00 MiB/s, 6 seconds left");
        let bare = Line { bytes: 0, bytes_expected: 0, bytes_per_second: 0, seconds_left: None, ..line };
        assert_eq!(shown(&bare), "12/3,400");
    }
}
