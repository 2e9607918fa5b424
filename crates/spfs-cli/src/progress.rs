//! Progress bars: on a terminal, and only for work that takes a while.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use spfs::repo::Progress;

/// Work that is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar for one piece of work. It draws from the thread that reports, and starts no thread of its own: a process
/// that enters namespaces has to be single-threaded. Gone without a trace when dropped.
pub struct Bar {
    bar: ProgressBar,
    started: Instant,
    /// Whether standard error is a terminal, and the bar not yet visible.
    hidden: AtomicBool,
    items: AtomicU64,
    items_expected: AtomicU64,
}

impl Bar {
    /// A bar that says `what` is being done, as in "committing".
    pub fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // The template is a constant; were it wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        let hidden = AtomicBool::new(std::io::stderr().is_terminal());
        Bar { bar, started: Instant::now(), hidden, items: AtomicU64::new(0), items_expected: AtomicU64::new(0) }
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
            self.bar.set_message(counts(
                self.items.load(Relaxed),
                self.items_expected.load(Relaxed),
                self.bar.position(),
            ));
        }
    }
}

/// `12/340 files, 1.20 MiB`.
fn counts(items: u64, expected: u64, bytes: u64) -> String {
    format!("{}/{}, {}", HumanCount(items), HumanCount(expected), HumanBytes(bytes))
}

impl Progress for Bar {
    fn expect(&self, items: u64, bytes: u64) {
        self.items_expected.fetch_add(items, Relaxed);
        self.bar.inc_length(bytes);
        self.draw();
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Relaxed);
        self.bar.inc(bytes);
        self.draw();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
