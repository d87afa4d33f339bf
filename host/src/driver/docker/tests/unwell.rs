//! A daemon that is there and answers wrongly, or is another than before.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::super::*;
use super::harness::*;
use crate::config::DockerConfig;

/// Says what it is, and that everything else went wrong.
struct Unwell {
    socket: std::path::PathBuf,
    id: Arc<Mutex<&'static str>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Unwell {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Unwell {
    fn new(dir: &Path) -> Self {
        let socket = dir.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let id = Arc::new(Mutex::new("first"));
        let now = Arc::clone(&id);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let id = *now.lock().unwrap();
                tokio::spawn(answer(stream, id));
            }
        });
        Self { socket, id, server }
    }

    fn bay(&self) -> Bay {
        let host = format!("unix://{}", self.socket.display());
        Bay::with(DockerConfig { host: Some(host), ..DockerConfig::default() })
    }
}

async fn answer(mut stream: UnixStream, id: &str) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = if path.ends_with("/version") {
        ("200 OK", r#"{"ApiVersion":"1.41"}"#.to_owned())
    } else if path.ends_with("/info") {
        ("200 OK", format!(r#"{{"ID":"{id}","DockerRootDir":"/d"}}"#))
    } else {
        ("500 Internal Server Error", r#"{"message":"disk on fire"}"#.to_owned())
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let _gone = stream.write_all(answer.as_bytes()).await;
}

#[tokio::test]
async fn an_error_of_the_daemon_is_not_a_death() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Unwell::new(dir.path());
    let bay = daemon.bay();
    let name = bay.spec("ship", Network::None).name;
    let container = ContainerRef { name, backend: serde_json::Value::Null };
    let error = bay.driver.inspect(&container).await.unwrap_err();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("disk on fire"), "{error}");
    let wait = tokio::time::timeout(Duration::from_millis(300), bay.driver.wait(&container));
    assert!(wait.await.is_err());
}

#[tokio::test]
async fn another_daemon_at_the_same_address_is_refused_until_the_operator_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Unwell::new(dir.path());
    let bay = daemon.bay();
    bay.contact().await;
    let note = bay.dir().join("docker-daemon");
    assert_eq!(std::fs::metadata(&note).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bay.again().inner.engine.contact().await.is_ok());

    *daemon.id.lock().unwrap() = "second";
    let other = bay.again();
    let error = other.inner.engine.contact().await.err().unwrap();
    assert!(matches!(error, DriverError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("docker-daemon"), "{error}");

    std::fs::remove_file(&note).unwrap();
    assert!(bay.again().inner.engine.contact().await.is_ok());
}
