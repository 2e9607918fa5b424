//! The server: the wire protocol and the payload channel, on every port that it listens on.
//!
//! `accept.rs` takes connections and ends those that stall (`link.rs`). `exchange.rs` leads one request from its head to
//! the last byte of its answer: who asks (`tokens.rs`), its turn (`limits.rs`), its line in the log (`metrics.rs`). A
//! request whose content type is `application/grpc` is a call (`calls.rs`), everything else belongs to the payload
//! channel (`payloads.rs`), `/healthz` and `/metrics` included. Repository work is done on blocking threads.

mod accept;
mod batches;
mod calls;
mod exchange;
mod fields;
mod limits;
mod link;
mod metrics;
mod payloads;
mod reply;
mod settings;
mod tls;
mod tokens;
pub(crate) mod uploads;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::Uri;
use spfs_repo::{Error, Repository, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use batches::Batches;
pub use limits::Limits;
use limits::{Places, UNIT};
use metrics::Metrics;
pub use settings::Settings;
pub use tls::Files as TlsFiles;
pub use tokens::hash as token_hash;

/// The header by which our own server makes itself known; its value is the version of the exchange.
pub const EXCHANGE: &str = "x-spfs-exchange";

/// How a server behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Refuse everything that changes something.
    pub read_only: bool,
    /// Refuse everything that removes something.
    pub append_only: bool,
    /// Where payloads are to be had, if it is not where the caller connected to.
    pub payloads_root: Option<String>,
    /// Listen here too, for payloads alone; callers are told to come here for them.
    pub payloads_listen: Option<SocketAddr>,
    /// The certificate; without one, everything goes in plain text.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; without one, everything is allowed to everybody.
    pub tokens: Option<PathBuf>,
    /// Take tokens in plain text from other machines too.
    pub plain_tokens: bool,
    /// What it bears.
    pub limits: Limits,
}

/// Where the words of a server go.
pub trait Journal: Send + Sync {
    /// Something that whoever runs the server wants to know.
    fn note(&self, message: &str);
    /// One line of the access log: an object of JSON, without a newline.
    fn access(&self, line: &str);
    /// Whether there is an access log at all.
    fn wants_access(&self) -> bool;
    /// Opens again what it writes to: the file may have been moved away.
    fn reopen(&self);
}

/// Says nothing.
struct Silent;

impl Journal for Silent {
    fn note(&self, _: &str) {}
    fn access(&self, _: &str) {}
    fn wants_access(&self) -> bool {
        false
    }
    fn reopen(&self) {}
}

/// Reads the configuration again; an error is in words for the journal.
pub type Reload = Box<dyn Fn() -> std::result::Result<Options, String> + Send + Sync>;

/// What may change while the server runs.
struct Live {
    options: Options,
    tokens: Option<tokens::Table>,
    tls: Option<TlsAcceptor>,
}

impl Live {
    /// Reads what the options name. `exposed` is an address that other machines can reach, if there is one.
    fn load(options: Options, exposed: Option<SocketAddr>) -> Result<Self> {
        if let Some(address) = exposed
            && options.tokens.is_some()
            && options.tls.is_none()
            && !options.plain_tokens
        {
            let reason = "tokens would go over the network in plain text, for everyone on the way to read and use";
            return Err(Error::invalid("way to listen", address.to_string(), reason));
        }
        if let Some(root) = &options.payloads_root
            && !root.parse::<Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
        {
            return Err(Error::invalid("address of payloads", root, "write http://HOST:PORT/ or https://HOST:PORT/"));
        }
        let tokens = options.tokens.as_deref().map(tokens::Table::read).transpose()?;
        let tls = options.tls.as_ref().map(tls::load).transpose()?;
        Ok(Live { options, tokens, tls })
    }
}

/// What every request is served from.
struct State {
    repository: Arc<dyn Repository>,
    batches: Arc<Batches>,
    live: RwLock<Arc<Live>>,
    exposed: Option<SocketAddr>,
    /// Where payloads are to be had, if they have an address of their own.
    payloads_at: Option<SocketAddr>,
    connections: Places,
    requests: Places,
    /// In units of [`UNIT`] bytes.
    memory: Places,
    /// Bytes that connections may have in transit, and that none has yet.
    windows: AtomicUsize,
    metrics: Arc<Metrics>,
    journal: Arc<dyn Journal>,
}

impl State {
    fn new(repository: Arc<dyn Repository>, live: Live, at: (Option<SocketAddr>, Option<SocketAddr>)) -> Self {
        let limits = &live.options.limits;
        State {
            batches: Arc::new(Batches::new(repository.clone(), limits.memory)),
            repository,
            exposed: at.0,
            payloads_at: at.1,
            connections: Places::new(limits.connections),
            requests: Places::new(limits.requests.min(limits::REQUESTS)),
            memory: Places::new(limits.memory / UNIT),
            windows: AtomicUsize::new(limits.memory / 2),
            metrics: Arc::default(),
            journal: Arc::new(Silent),
            live: RwLock::new(Arc::new(live)),
        }
    }

    fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes new options, or keeps the old ones and says why.
    fn reload(&self, reload: Option<&Reload>) {
        self.journal.reopen();
        let fresh = match reload {
            Some(reload) => reload(),
            None => Ok(self.live().options.clone()),
        };
        match fresh.and_then(|options| Live::load(options, self.exposed).map_err(|e| crate::convert::with_causes(&e))) {
            Ok(live) => {
                let limits = &live.options.limits;
                self.connections.resize(limits.connections);
                self.requests.resize(limits.requests.min(limits::REQUESTS));
                self.memory.resize(limits.memory / UNIT);
                let tokens = live.tokens.as_ref().map_or(0, tokens::Table::len);
                self.journal.note(&format!("read the configuration again: {tokens} tokens"));
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
                self.metrics.reloaded(true);
            }
            Err(reason) => {
                self.journal.note(&format!("the configuration stays as it was: {reason}"));
                self.metrics.reloaded(false);
            }
        }
    }
}

/// What is answered on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    All,
    Payloads,
}

/// A server that listens, and answers once [`Server::run`] is called.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listeners: Vec<(TcpListener, Role)>,
    state: State,
    reload: Option<Reload>,
    signals: Signals,
}

/// The signals that a server hears: from the moment that it listens, so that who starts it may stop it at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new(runtime: &tokio::runtime::Runtime) -> io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Server {
    /// Listens on every one of `addresses`; port 0 takes any free port.
    ///
    /// Errors: an address that cannot be listened on, tokens and certificates that cannot be read, and tokens that
    /// would go over a network in plain text without [`Options::plain_tokens`].
    pub fn bind(repository: Arc<dyn Repository>, addresses: &[SocketAddr], options: Options) -> Result<Self> {
        let payloads = options.payloads_listen;
        let exposed = addresses.iter().copied().chain(payloads).find(|address| !address.ip().is_loopback());
        let live = Live::load(options, exposed)?;
        let runtime = runtime()?;
        let signals = Signals::new(&runtime).map_err(Error::io("hear", "signals"))?;
        let listen = |address: SocketAddr, role| {
            let failed = || Error::io("listen on", address.to_string());
            let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed())?;
            let at = listener.local_addr().map_err(failed())?;
            Ok(((listener, role), at))
        };
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(listen(*address, Role::All)?.0);
        }
        let mut payloads_at = None;
        if let Some(address) = payloads {
            let (listener, at) = listen(address, Role::Payloads)?;
            listeners.push(listener);
            payloads_at = Some(at);
        }
        let state = State::new(repository, live, (exposed, payloads_at));
        Ok(Server { runtime, listeners, state, reload: None, signals })
    }

    /// Sends its words to `journal`; without this it says nothing.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.state.journal = journal;
        self
    }

    /// What SIGHUP asks for new options. Those about addresses need a new server; without this, only the files that the
    /// options name are read again.
    pub fn reload(mut self, reload: Reload) -> Self {
        self.reload = Some(reload);
        self
    }

    /// Where it listens, in the order of the addresses given; the address for payloads alone is the last.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Answers until SIGTERM or SIGINT, or until `stop` is ready; then lets transfers end, within the grace
    /// and before a second signal.
    pub fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Server { runtime, listeners, state, reload, signals } = self;
        let batches = state.batches.clone();
        let done = runtime.block_on(serve(listeners, Arc::new(state), reload, signals, stop));
        // A blocking thread that waits for a client that has gone is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        batches.close();
        done
    }
}

/// Serves one connection, which is standard input and output, until its end: for `ssh`.
pub fn serve_stdio(repository: Arc<dyn Repository>, options: Options) -> Result<()> {
    let state = Arc::new(State::new(repository, Live::load(options, None)?, (None, None)));
    let batches = state.batches.clone();
    let runtime = runtime()?;
    let done = runtime.block_on(async move {
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        accept::stdio(stream, state).await
    });
    // The thread that reads standard input may wait for ever.
    runtime.shutdown_background();
    batches.close();
    done.map_err(Error::io("serve", "standard input and output"))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("spfs-server")
        .max_blocking_threads(limits::REQUESTS + 64)
        .enable_all()
        .build()
        .map_err(Error::io("start", "the threads of the server"))
}

async fn serve(
    listeners: Vec<(TcpListener, Role)>,
    state: Arc<State>,
    reload: Option<Reload>,
    signals: Signals,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let Signals { mut terminate, mut interrupt, mut hangup } = signals;
    // Every connection holds a sender of `alive` until its end.
    let (halt, halted) = watch::channel(false);
    let (alive, mut ended) = mpsc::channel::<()>(1);
    for (listener, role) in listeners {
        tokio::spawn(accept::listen(listener, role, state.clone(), halted.clone(), alive.clone()));
    }
    drop(alive);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut stop => break,
            _ = hangup.recv() => state.reload(reload.as_ref()),
        }
    }
    let _ = halt.send(true);
    let grace = state.live().options.limits.grace;
    let requests = state.requests.taken();
    if requests > 0 {
        state.journal.note(&format!("stopping; {requests} requests have {} s to end", grace.as_secs()));
    }
    tokio::select! {
        done = tokio::time::timeout(grace, ended.recv()) => {
            if done.is_err() {
                state.journal.note("the time is over: what has not ended is cut");
            }
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
