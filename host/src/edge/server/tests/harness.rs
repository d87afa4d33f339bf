//! A server on a port of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Ending, Limits, Server, Tls};

/// Nothing here takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Bounds that a test can wait for.
pub(super) fn limits() -> Limits {
    Limits {
        connections: 64,
        per_address: 64,
        head: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        stall: Duration::from_millis(400),
        drain: Duration::from_secs(5),
    }
}

/// A server that runs until it is ended.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    ask: CancellationToken,
    task: JoinHandle<()>,
    /// Lets `/slow` answer.
    pub(super) release: Arc<Notify>,
    /// What handlers tell: a body's end, an answer that was dropped.
    pub(super) told: mpsc::Receiver<&'static str>,
}

impl Running {
    pub(super) async fn start(limits: Limits, tls: Option<Arc<Tls>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ask = CancellationToken::new();
        let (tell, told) = mpsc::channel(64);
        let release = Arc::new(Notify::new());
        let server = Server { listener, router: router(tell, &release), limits, tls };
        let asked = ask.clone();
        let task = tokio::spawn(async move { server.serve(asked.cancelled()).await });
        Self { address, ask, task, release, told }
    }

    /// A connection with some bytes sent.
    pub(super) async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    pub(super) async fn heard(&mut self) -> &'static str {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("a word of a handler").unwrap()
    }

    /// Asks it to end.
    pub(super) fn ask_to_end(&self) {
        self.ask.cancel();
    }

    /// Asks it to end, and waits until it has.
    pub(super) async fn end(self) -> Duration {
        let began = std::time::Instant::now();
        self.ask.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server ends").unwrap();
        began.elapsed()
    }
}

/// Everything until the other side closes.
pub(super) async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close, too.
    let _reset =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Until `wanted` has come.
pub(super) async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.contains(wanted) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "closed after {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    text
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _full = self.0.try_send(self.1);
    }
}

fn router(tell: mpsc::Sender<&'static str>, release: &Arc<Notify>) -> Router {
    let (of_body, of_flood) = (tell.clone(), tell.clone());
    let release = Arc::clone(release);
    Router::new()
        .route("/hello", get(async || "hello"))
        .route(
            "/slow",
            get(async move || {
                let _full = tell.try_send("slow began");
                release.notified().await;
                "at last"
            }),
        )
        .route(
            "/body",
            post(async move |request: Request| {
                let read = axum::body::to_bytes(request.into_body(), 1 << 20).await;
                let _full = of_body.try_send(if read.is_ok() { "body" } else { "no body" });
            }),
        )
        .route(
            "/flood",
            get(async move || {
                let _full = of_flood.try_send("flood began");
                let held = Told(of_flood, "flood dropped");
                let chunks = futures::stream::repeat_with(move || {
                    let _held = &held;
                    Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 64 << 10]))
                });
                Body::from_stream(chunks)
            }),
        )
        .route(
            "/events",
            get(async || {
                let first = futures::stream::once(async {
                    Ok::<_, std::io::Error>(Bytes::from_static(b"data: 1\n\n"))
                });
                let body = Body::from_stream(first.chain(futures::stream::pending()));
                Response::builder().header(header::CONTENT_TYPE, "text/event-stream").body(body).unwrap()
            }),
        )
        .route(
            "/upgrade",
            get(async move |Extension(ending): Extension<Ending>, mut request: Request| {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut socket = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                    let mut byte = [0; 1];
                    loop {
                        tokio::select! {
                            read = socket.read(&mut byte) => match read {
                                Ok(1..) => socket.write_all(&byte).await.unwrap(),
                                Ok(0) | Err(_) => return,
                            },
                            () = ending.0.cancelled() => {
                                socket.write_all(b"bye").await.unwrap();
                                return;
                            }
                        }
                    }
                });
                Response::builder()
                    .status(101)
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, "echo")
                    .body(Body::empty())
                    .unwrap()
            }),
        )
}
