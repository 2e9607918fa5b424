//! TLS by rustls: the server's certificate and key, read from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spfs_repo::{Error, Result};
use tokio_rustls::TlsAcceptor;

use crate::LONGEST_FILE;

/// Where the certificate and its key are, both in PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate, followed by those between it and one that clients trust.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Reads the files. Errors name the file.
pub fn load(files: &Files) -> Result<TlsAcceptor> {
    let wrong = |path: &Path, reason: String| Error::invalid("TLS file", path.display().to_string(), reason);
    let read = |path: &Path| spfs_repo::read_regular(path, LONGEST_FILE).map_err(Error::io("read", path));
    let certs: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&read(&files.cert)?)
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(&files.cert, e.to_string()))?;
    if certs.is_empty() {
        return Err(wrong(&files.cert, "there is no certificate in it (PEM, BEGIN CERTIFICATE)".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|e| wrong(&files.key, format!("there is no private key in it (PEM): {e}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&files.cert, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| wrong(&files.key, format!("it does not fit {}: {e}", files.cert.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
