//! The file of settings of a server: TOML, every key optional, with the words of the options of `spfs server`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use spfs_repo::{Error, Result};

use super::{Limits, Options, TlsFiles};
use crate::LONGEST_FILE;

/// What a file of settings says. Paths in it are relative to the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What is served: a configured remote or an address.
    pub repository: Option<String>,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for payloads alone.
    pub payloads_listen: Option<SocketAddr>,
    payloads_root: Option<String>,
    read_only: bool,
    append_only: bool,
    tokens: Option<PathBuf>,
    plain_tokens: bool,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    /// Where the access log goes; `-` for standard error.
    pub access_log: Option<PathBuf>,
    limits: LimitSettings,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitSettings {
    connections: Option<usize>,
    requests: Option<usize>,
    message_bytes: Option<usize>,
    memory_bytes: Option<usize>,
    payload_bytes: Option<u64>,
    header_bytes: Option<usize>,
    begin_seconds: Option<f64>,
    idle_seconds: Option<f64>,
    stall_seconds: Option<f64>,
    grace_seconds: Option<f64>,
}

impl Settings {
    /// Reads a file of settings. Errors name it, and the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = spfs_repo::read_text(path, LONGEST_FILE).map_err(Error::io("read", path))?;
        let wrong = |reason: String| Error::invalid("settings of a server", path.display().to_string(), reason);
        let mut settings: Settings = toml::from_str(&text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        settings.limits.check().map_err(wrong)?;
        if settings.tls_cert.is_some() != settings.tls_key.is_some() {
            return Err(wrong("tls_cert and tls_key go together".to_owned()));
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let Settings { tokens, tls_cert, tls_key, access_log, .. } = &mut settings;
        for path in [tokens, tls_cert, tls_key, access_log].into_iter().flatten().filter(|p| *p != Path::new("-")) {
            *path = above.join(&path);
        }
        Ok(settings)
    }

    /// The options that the settings mean.
    pub fn options(&self) -> Options {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Options {
            read_only: self.read_only,
            append_only: self.append_only,
            payloads_root: self.payloads_root.clone(),
            payloads_listen: self.payloads_listen,
            tls: tls.map(|(cert, key)| TlsFiles { cert, key }),
            tokens: self.tokens.clone(),
            plain_tokens: self.plain_tokens,
            limits: self.limits.limits(),
        }
    }
}

impl LimitSettings {
    /// Refuses what would make a server that serves nobody.
    fn check(&self) -> std::result::Result<(), String> {
        let least = [
            ("connections", self.connections, 1),
            ("requests", self.requests, 1),
            ("message_bytes", self.message_bytes, 4096),
            ("memory_bytes", self.memory_bytes, 1 << 20),
            ("header_bytes", self.header_bytes, 1024),
        ];
        for (name, value, least) in least {
            if value.is_some_and(|value| value < least || value > u32::MAX as usize) {
                return Err(format!("limits.{name} is a number from {least} to {}", u32::MAX));
            }
        }
        let times = [
            ("begin_seconds", self.begin_seconds),
            ("idle_seconds", self.idle_seconds),
            ("stall_seconds", self.stall_seconds),
            ("grace_seconds", self.grace_seconds),
        ];
        for (name, value) in times {
            // A week is longer than anybody waits.
            if value.is_some_and(|value| !(0.01..=604_800.0).contains(&value)) {
                return Err(format!("limits.{name} is a time from 0.01 to 604800 seconds"));
            }
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let usual = Limits::default();
        let time = |value: Option<f64>, usual| value.map_or(usual, Duration::from_secs_f64);
        Limits {
            connections: self.connections.unwrap_or(usual.connections),
            requests: self.requests.unwrap_or(usual.requests),
            message: self.message_bytes.unwrap_or(usual.message),
            memory: self.memory_bytes.unwrap_or(usual.memory),
            payload: self.payload_bytes.or(usual.payload),
            headers: self.header_bytes.unwrap_or(usual.headers),
            begin: time(self.begin_seconds, usual.begin),
            idle: time(self.idle_seconds, usual.idle),
            stall: time(self.stall_seconds, usual.stall),
            grace: time(self.grace_seconds, usual.grace),
        }
    }
}
