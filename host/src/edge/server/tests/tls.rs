//! TLS: what is offered, and a certificate that changes.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::super::{Limits, Tls};
use super::harness::{PATIENCE, Running, limits, rest};

/// Writes a pair for `localhost`; the certificate.
fn issue(dir: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

/// A client that trusts this certificate alone.
async fn connect(
    server: &Running,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn hello(mut stream: TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn both_protocols_are_offered_and_plain_http_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = issue(dir.path());
    let tls = Tls::load(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
    let server = Running::start(limits(), Some(tls)).await;
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let stream = connect(&server, &trusted, protocol).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    }
    let stream = connect(&server, &trusted, b"http/1.1").await.unwrap();
    assert!(hello(stream).await.ends_with("hello"));
    let mut plain = server.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!rest(&mut plain).await.contains("hello"));
    // Who never says hello is not waited for.
    let mut silent = server.send("").await;
    assert_eq!(rest(&mut silent).await, "");
    server.end().await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let first = issue(dir.path());
    let tls = Tls::load(&cert, &key).unwrap();
    let patient = Limits { idle: PATIENCE, head: PATIENCE, ..limits() };
    let server = Running::start(patient, Some(Arc::clone(&tls))).await;
    let open = connect(&server, &first, b"http/1.1").await.unwrap();

    let old_key = std::fs::read(&key).unwrap();
    let second = issue(dir.path());
    let new_key = std::fs::read(&key).unwrap();
    // Half of a renewal: the key is still the old one.
    std::fs::write(&key, old_key).unwrap();
    tls.reload();
    assert!(connect(&server, &first, b"http/1.1").await.is_ok(), "the old pair stays");
    std::fs::write(&key, "no PEM").unwrap();
    tls.reload();
    assert!(connect(&server, &first, b"http/1.1").await.is_ok(), "the old pair stays");

    std::fs::write(&key, new_key).unwrap();
    tls.reload();
    assert!(connect(&server, &first, b"http/1.1").await.is_err(), "the old pair is gone");
    let stream = connect(&server, &second, b"http/1.1").await.unwrap();
    assert!(hello(stream).await.ends_with("hello"));
    // A connection goes on as it began.
    assert!(hello(open).await.ends_with("hello"));
    server.end().await;
}

#[test]
fn what_is_wrong_with_a_pair_is_said_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let absent = Tls::load(&cert, &key).err().expect("no files").to_string();
    assert!(absent.contains("cert.pem"), "{absent}");
    issue(dir.path());
    std::fs::write(&cert, "").unwrap();
    let empty = Tls::load(&cert, &key).err().expect("an empty file").to_string();
    assert!(empty.contains("holds no CERTIFICATE"), "{empty}");
}
