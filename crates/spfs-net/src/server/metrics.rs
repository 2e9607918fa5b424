//! What the server counts, and its text in the format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram of latencies, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Counters of one server.
#[derive(Default)]
pub struct Metrics {
    received: AtomicU64,
    sent: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicU64,
    /// Connections that were cut because they stalled.
    cut: AtomicU64,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    requests: Mutex<BTreeMap<(&'static str, String), u64>>,
    latencies: Mutex<BTreeMap<&'static str, Latency>>,
}

#[derive(Default)]
struct Latency {
    /// Requests below each bound, and above all of them.
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

/// What is so at the moment, and not counted.
pub struct Now {
    /// Requests that are worked on.
    pub requests: usize,
    /// Bytes of memory that messages have.
    pub memory: usize,
}

impl Metrics {
    /// Bytes that came in.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that went out.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A connection was accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was cut.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// The configuration was read again, well or not.
    pub fn reloaded(&self, well: bool) {
        let counter = if well { &self.reloads } else { &self.failed_reloads };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended. `method` is one of a fixed set, so that clients cannot make this grow.
    pub fn request(&self, method: &'static str, status: &str, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, status.to_owned())).or_default() += 1;
        drop(requests);
        let seconds = took.as_secs_f64();
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = latencies.entry(method).or_default();
        latency.counts[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
        latency.seconds += seconds;
    }

    /// The text of `/metrics`.
    pub fn text(&self, now: &Now) -> String {
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        one("spfs_server_received_bytes_total", "counter", "Bytes that came in.", load(&self.received));
        one("spfs_server_sent_bytes_total", "counter", "Bytes that went out.", load(&self.sent));
        one("spfs_server_connections_total", "counter", "Connections that were accepted.", load(&self.accepted));
        one(
            "spfs_server_connections_cut_total",
            "counter",
            "Connections that were cut: they stalled.",
            load(&self.cut),
        );
        one(
            "spfs_server_connections",
            "gauge",
            "Connections now.",
            load(&self.accepted).saturating_sub(load(&self.ended)),
        );
        one("spfs_server_requests_in_flight", "gauge", "Requests now.", now.requests as u64);
        one("spfs_server_message_memory_bytes", "gauge", "Memory that messages have now.", now.memory as u64);
        one("spfs_server_reloads_total", "counter", "Configuration read again.", load(&self.reloads));
        one("spfs_server_reload_failures_total", "counter", "Configuration not taken.", load(&self.failed_reloads));
        self.write_requests(&mut out);
        self.write_latencies(&mut out);
        out
    }

    fn write_requests(&self, out: &mut String) {
        let name = "spfs_server_requests_total";
        let _ = writeln!(out, "# HELP {name} Requests by method and status.\n# TYPE {name} counter");
        for ((method, status), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "{name}{{method=\"{method}\",status=\"{status}\"}} {count}");
        }
    }

    fn write_latencies(&self, out: &mut String) {
        let name = "spfs_server_request_seconds";
        let help = "From the head of a request to the end of its answer.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (method, latency) in self.latencies.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut below = 0;
            for (count, bound) in latency.counts.iter().zip(BOUNDS) {
                below += count;
                let _ = writeln!(out, "{name}_bucket{{method=\"{method}\",le=\"{bound}\"}} {below}");
            }
            below += latency.counts[BOUNDS.len()];
            let _ = writeln!(out, "{name}_bucket{{method=\"{method}\",le=\"+Inf\"}} {below}");
            let _ = writeln!(out, "{name}_sum{{method=\"{method}\"}} {}", latency.seconds);
            let _ = writeln!(out, "{name}_count{{method=\"{method}\"}} {below}");
        }
    }
}
