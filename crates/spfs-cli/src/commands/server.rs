//! `spfs server`.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use spfs_net::server::{Options, Server};

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
/// 127.0.0.1:7737, for this machine only.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  spfs server\n  spfs server -r /shared/spfs --listen 127.0.0.1:0\n  \
                        spfs server --listen 0.0.0.0:7737 --read-only")]
pub struct Args {
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
    /// Refuse everything that changes something
    #[arg(long)]
    read_only: bool,
    /// Seconds that transfers may take to end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    #[command(flatten)]
    repository: Choice,
}

impl Run for Args {
    fn run(self, context: &Context) -> Result<ExitCode> {
        let repository = self.repository.open(context.spfs()?)?;
        let (listen, payloads) = self.addresses()?;
        let open = listen.iter().chain(&payloads).any(|address| !address.ip().is_loopback());
        if open && !self.read_only {
            warn("whoever reaches this server may change the repository; --read-only forbids it");
        }
        let options = Options {
            read_only: self.read_only,
            payloads_root: self.payloads_root,
            payloads_listen: payloads,
            grace: Duration::from_secs(self.grace),
            ..Options::default()
        };
        let server = Server::bind(repository, &listen, options).map_err(cannot_listen)?;
        let mut out = context.out();
        let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
        writeln!(out, "listening on: {}", addresses.join(", "))?;
        out.flush()?;
        if !open {
            context.remark("only this machine can connect; --listen 0.0.0.0:7737 is for all");
        }
        server.run(std::future::pending())?;
        out.finish()
    }
}

impl Args {
    /// Where to listen: for everything, and for payloads alone.
    fn addresses(&self) -> Result<(Vec<SocketAddr>, Option<SocketAddr>)> {
        let words = if self.addresses.is_empty() { &self.listen } else { &self.addresses[..1] };
        let mut listen = words.iter().map(|word| address(word)).collect::<Result<Vec<_>>>()?;
        if listen.is_empty() {
            listen.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        let payloads = self.addresses.get(1).or(self.payloads_listen.as_ref());
        Ok((listen, payloads.map(|word| address(word)).transpose()?))
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

fn cannot_listen((address, error): (SocketAddr, std::io::Error)) -> Failure {
    let failure = Failure::new(format!("could not listen on {address}: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            failure.hint("another program has this port; port 0 takes any free one, and prints it")
        }
        std::io::ErrorKind::PermissionDenied => failure.hint("ports below 1024 are for root; take a higher one"),
        _ => failure,
    }
}
