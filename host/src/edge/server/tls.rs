//! TLS from two PEM files, read again when they change. A pair that cannot be used leaves the old one in place: a
//! renewal that went wrong must not take Bay off the network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What is offered, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there is no TLS, or no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is not there, cannot be read, or holds no such PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The two do not belong together, or are of a kind that is not known.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// When a file was written, and which file it is: a renewal replaces it, or the link to it.
type Stamp = (SystemTime, u64, u64);

/// A certificate in use.
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
    /// As they were when last read.
    seen: Mutex<[Option<Stamp>; 2]>,
}

impl Tls {
    /// Reads the pair. Blocks for two small files: call it at start-up.
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let seen = [stamp(cert), stamp(key)];
        let current = ArcSwap::from_pointee(read(cert, key)?);
        let tls = Self { cert: cert.to_owned(), key: key.to_owned(), current, seen: Mutex::new(seen) };
        Ok(Arc::new(tls))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }

    /// Reads the pair anew; what fails is told in the log, and the old one stays. Connections go on as they began.
    pub fn reload(&self) {
        *self.seen() = [stamp(&self.cert), stamp(&self.key)];
        match read(&self.cert, &self.key) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(cert = %self.cert.display(), "took a new certificate");
            }
            Err(error) => tracing::error!(%error, "kept the old certificate"),
        }
    }

    /// Looks at the files for ever.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = Arc::clone(&self);
            // Where it fails, a signal still helps.
            let _panicked = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await;
        }
    }

    fn reload_if_changed(&self) {
        let now = [stamp(&self.cert), stamp(&self.key)];
        let before = *self.seen();
        if now != before {
            self.reload();
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, [Option<Stamp>; 2]> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len(), data.ino()))
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let wrong = |path: &Path, reason: String| TlsError::File { path: path.to_owned(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(cert, "holds no CERTIFICATE".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    // The provider is named: which one is the default would depend on what else is linked.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(config)
}
