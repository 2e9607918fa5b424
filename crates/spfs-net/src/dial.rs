//! Making a stream of bytes to a server: TCP, TLS over it, or the standard streams of `ssh`.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use spfs_repo::{Error, NetTrouble, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::LONGEST_FILE;
use crate::address::{Tls, Way};

/// How long making a connection may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// What went wrong on the way: the kind, and what was said.
pub type Trouble = (NetTrouble, Box<dyn std::error::Error + Send + Sync>);

/// Goes `way`. `protocol` is what TLS agrees on: `h2` or `http/1.1`.
pub async fn tcp(host: &str, port: u16, tls: Option<&Tls>, protocol: &str) -> Result<Box<dyn Duplex>, Trouble> {
    let plain = timed(connect(host, port)).await?;
    let Some(tls) = tls else { return Ok(Box::new(plain)) };
    let config = trust(tls, protocol).map_err(|e| (NetTrouble::Tls, e.into()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|e| (NetTrouble::Tls, e.into()))?;
    let secured = async {
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, plain).await.map_err(|e| (NetTrouble::Tls, e.into()))
    };
    Ok(Box::new(timed(secured).await?))
}

async fn timed<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|late| Err((NetTrouble::TimedOut, late.into())))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let found = tokio::net::lookup_host((host, port)).await.map_err(|e| (NetTrouble::Unresolved, e.into()))?;
    let mut last = (NetTrouble::Unresolved, "the name has no address".into());
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) => {
                let trouble = match e.kind() {
                    io::ErrorKind::ConnectionRefused => NetTrouble::Refused,
                    io::ErrorKind::TimedOut => NetTrouble::TimedOut,
                    _ => NetTrouble::NoRoute,
                };
                last = (trouble, e.into());
            }
        }
    }
    Err(last)
}

/// Trusts what `tls` names, else what this system trusts.
fn trust(tls: &Tls, protocol: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(file) => add_file(&mut roots, file)?,
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(io::Error::other("this system trusts nobody; ?ca=FILE names whom to trust"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(config)
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> io::Result<()> {
    let wrong = |reason: String| io::Error::other(format!("{}: {reason}", file.display()));
    let pem = spfs_repo::read_regular(file, LONGEST_FILE).map_err(|e| wrong(e.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it has no certificate".to_owned())) } else { Ok(()) }
}

/// A running `ssh`, and the last that it said. Ends with this value.
pub struct Ssh {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

/// How much of what ssh says is kept.
const SAID: usize = 4096;

/// Starts `ssh`, with `spfs serve --stdio` on the other side. Call it within the runtime.
pub fn ssh(way: &Way, command: Option<&str>) -> io::Result<(Box<dyn Duplex>, Ssh)> {
    let Way::Ssh { target, port, path, program } = way else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut ssh = match command {
        None => Command::new("ssh"),
        // As git does: a command line for the shell, which gets our arguments.
        Some(command) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{command} \"$@\""), command]);
            shell
        }
    };
    ssh.arg("-T");
    if let Some(port) = port {
        ssh.args(["-p", &port.to_string()]);
    }
    let mut remote = format!("{} serve --stdio", quoted(program));
    if !path.is_empty() {
        remote.push(' ');
        remote.push_str(&quoted(path));
    }
    ssh.args(["--", target, &remote]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let input = pipe::Sender::from_owned_fd(child.stdin.take().ok_or_else(missing)?.into())?;
    let output = pipe::Receiver::from_owned_fd(child.stdout.take().ok_or_else(missing)?.into())?;
    let mut errors = pipe::Receiver::from_owned_fd(child.stderr.take().ok_or_else(missing)?.into())?;
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let hear = said.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = errors.read(&mut buffer).await {
            let mut said = hear.lock().unwrap_or_else(PoisonError::into_inner);
            said.extend_from_slice(&buffer[..count]);
            let surplus = said.len().saturating_sub(SAID);
            said.drain(..surplus);
        }
    });
    Ok((Box::new(tokio::io::join(output, input)), Ssh { child, said }))
}

/// A word for the shell on the other side.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

impl Ssh {
    /// Why it ended, if it has ended or does so in a moment.
    pub fn reason(&mut self, program: &str) -> Option<String> {
        let status = self.wait(Duration::from_millis(500))?;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Some(match (status.code(), said.as_str()) {
            // What a shell answers for a command that it does not find.
            (Some(127), _) => format!("there is no program {program:?} on the other side ({said})"),
            (_, "") => format!("ssh ended without a word, {status}"),
            (_, said) => said.to_owned(),
        })
    }

    fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // Its standard input is closed by now, which ends the program over there and then ssh.
        if self.wait(Duration::from_secs(2)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The token in `file`, for the header of every request.
pub fn token(file: &Path) -> Result<http::HeaderValue> {
    let text = spfs_repo::read_text(file, LONGEST_FILE).map_err(Error::io("read the token in", file))?;
    let value = http::HeaderValue::try_from(format!("Bearer {}", text.trim()));
    let invalid = || Error::invalid("token file", file.display().to_string(), "it does not hold one line with a token");
    // Other bytes may stand in a header, and are understood by nobody there.
    let is_token = !text.trim().is_empty() && text.is_ascii();
    let mut value = value.ok().filter(|_| is_token).ok_or_else(invalid)?;
    value.set_sensitive(true);
    Ok(value)
}
