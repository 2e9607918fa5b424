//! `spfs server`.

mod journal;
mod token;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use spfs_net::server::{Options, Server, Settings, TlsFiles};

use super::Run;
use crate::context::Context;
use crate::errors::{Failure, Result, warn};
use crate::repository::Choice;

/// The port of the protocol where nothing else is said.
const PORT: u16 = 7737;

/// Serve a repository to other machines
///
/// It answers the protocol and the transfer of payloads on one port, until SIGTERM or SIGINT (Ctrl-C): then it takes no
/// new connections and lets transfers end; a second signal ends it at once. Where nothing is said it listens on
/// 127.0.0.1:7737, for this machine only. SIGHUP reads the settings, tokens and certificates again.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  spfs server\n  spfs server -r /shared/spfs --listen 127.0.0.1:0\n  \
                  spfs server --listen 0.0.0.0:7737 --tls-cert cert.pem --tls-key key.pem --tokens tokens.toml"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Listen here, as --listen; a second address is for payloads alone, as --payloads-listen
    #[arg(value_name = "ADDRESS", num_args = 0..=2, conflicts_with_all = ["listen", "payloads_listen"])]
    addresses: Vec<String>,
    /// Listen on this address, as in 127.0.0.1:7737; port 0 takes any free port. May be given again
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Send existing clients here for payloads; else these come and go where the protocol is answered
    #[arg(long, value_name = "ADDRESS")]
    payloads_listen: Option<String>,
    /// Tell clients that payloads are to be had here, where a proxy stands in front; else where they connected to
    #[arg(long, value_name = "URL")]
    payloads_root: Option<String>,
    /// Read settings from this file (TOML); options of the command line win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Refuse everything that changes something
    #[arg(long)]
    read_only: bool,
    /// Refuse everything that removes something
    #[arg(long)]
    append_only: bool,
    /// Let in only who shows one of these tokens (TOML; `spfs server token` makes them)
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Take tokens from other machines without TLS, for everyone on the way to read
    #[arg(long)]
    plain_tokens: bool,
    /// Talk TLS, with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Write a line of JSON about every request to this file, `-` for standard error; SIGHUP opens it again
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Seconds that transfers may take to end after SIGTERM [default: 30]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    #[command(flatten)]
    repository: Choice,
}

#[derive(Subcommand)]
enum What {
    Token(token::Token),
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        if let Some(What::Token(token)) = self.what {
            return token.make(context);
        }
        let settings = self.settings()?;
        let choice = Choice { remote: self.repository.remote.clone().or(settings.repository.clone()) };
        let repository = choice.open(context.spfs()?)?;
        let (listen, payloads) = self.addresses(&settings)?;
        let options = Options { payloads_listen: payloads, ..self.options(&settings) };
        let open = listen.iter().chain(&payloads).any(|address| !address.ip().is_loopback());
        if open && options.tokens.is_none() && !options.read_only {
            warn("whoever reaches this server may change the repository; --tokens or --read-only forbids it");
        }
        let journal = journal::Journal::open(self.access_log.as_ref().or(settings.access_log.as_ref()).map(|p| &**p))?;
        let server = Server::bind(repository, &listen, options).map_err(not_started)?;
        let mut out = context.out();
        let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
        writeln!(out, "listening on: {}", addresses.join(", "))?;
        out.flush()?;
        if !open {
            context.remark("only this machine can connect; --listen 0.0.0.0:7737 is for all");
        }
        let reload = move || match self.settings() {
            Ok(settings) => Ok(Options { payloads_listen: payloads, ..self.options(&settings) }),
            Err(failure) => Err(failure.to_string()),
        };
        server.journal(Arc::new(journal)).reload(Box::new(reload)).run(std::future::pending())?;
        out.finish()
    }
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        Ok(self.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default())
    }

    /// What the settings say, and the command line in their stead.
    fn options(&self, settings: &Settings) -> Options {
        let mut options = settings.options();
        options.read_only |= self.read_only;
        options.append_only |= self.append_only;
        options.plain_tokens |= self.plain_tokens;
        options.payloads_root = self.payloads_root.clone().or(options.payloads_root);
        options.tokens = self.tokens.clone().or(options.tokens);
        if let Some((cert, key)) = self.tls_cert.clone().zip(self.tls_key.clone()) {
            options.tls = Some(TlsFiles { cert, key });
        }
        if let Some(seconds) = self.grace {
            options.limits.grace = Duration::from_secs(seconds);
        }
        options
    }

    /// Where to listen: for everything, and for payloads alone.
    fn addresses(&self, settings: &Settings) -> Result<(Vec<SocketAddr>, Option<SocketAddr>)> {
        let words = if self.addresses.is_empty() { &self.listen } else { &self.addresses[..1] };
        let mut listen = words.iter().map(|word| address(word)).collect::<Result<Vec<_>>>()?;
        if listen.is_empty() {
            listen.clone_from(&settings.listen);
        }
        if listen.is_empty() {
            listen.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        let payloads = self.addresses.get(1).or(self.payloads_listen.as_ref()).map(|word| address(word));
        Ok((listen, payloads.transpose()?.or(settings.payloads_listen)))
    }
}

fn address(word: &str) -> Result<SocketAddr> {
    word.parse().map_err(|_| {
        let failure =
            Failure::new(format!("{word:?} is no address to listen on: write IP:PORT, as in 127.0.0.1:{PORT}"));
        match word.contains('/') {
            true => failure.hint(format!("`spfs server -r {word}` serves that repository")),
            false => failure,
        }
    })
}

fn not_started(error: spfs::repo::Error) -> Failure {
    use std::io::ErrorKind;
    let hint = match &error {
        spfs::repo::Error::Io { action: "listen on", source, .. } => match source.kind() {
            ErrorKind::AddrInUse => "another program has this port; port 0 takes any free one, and prints it",
            ErrorKind::PermissionDenied => "ports below 1024 are for root; take a higher one",
            ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 means all that it has",
            _ => "`ip address` shows the addresses of this machine",
        },
        spfs::repo::Error::Invalid { what: "way to listen", .. } => {
            "give it --tls-cert and --tls-key; behind a proxy that speaks TLS, or in a network of your own, --plain-tokens"
        }
        _ => "`spfs help server` says what these files look like",
    };
    Failure::from(error).hint(hint)
}
