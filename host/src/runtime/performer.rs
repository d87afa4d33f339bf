//! Performs what an adapter planned: requests to the session's own runtime, and forwards whose bodies never
//! enter the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bay_plugin_host::{ForwardEnd, Performer, PlannedRequest, PlannedResponse, Target};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::client::{RequestBody, RuntimeClient, RuntimeRequest, collect, empty, full};
use super::conditional::is_known;
use super::progress::Progress;
use super::pump::pump;
use super::upgrade::{self, ClientUpgrade};
use crate::driver::{ContainerStatus, DriverError};
use crate::runtime::RuntimeError;

/// Response heads are rebuilt from this list; anything else a runtime says stays inside.
const RESPONSE_HEADERS: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONTENT_DISPOSITION,
    // Of an execution's output: all there were, of which fewer may be kept.
    HeaderName::from_static("x-output-total"),
];

/// Of a client's own headers, a forward passes on these.
const REQUEST_HEADERS: [HeaderName; 5] =
    [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::CONTENT_TYPE, header::ACCEPT];

/// Chunks under way between runtime and client: enough to keep both busy, small enough to push back.
const CHUNKS: usize = 8;

/// How long the driver may take to say why nothing came to a runtime.
const ASK_WHY: Duration = Duration::from_secs(2);

/// The part of the client's request that a forward streams.
#[derive(Default)]
pub struct CallerRequest {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, where it has one that was not read into the call's input.
    pub body: Option<RequestBody>,
    /// Its wish to go on as a WebSocket.
    pub upgrade: Option<ClientUpgrade>,
}

impl CallerRequest {
    /// Bytes of the body, as far as the head says so.
    pub fn announced(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }
}

/// A forwarded answer on its way to the client.
#[derive(Debug)]
pub struct Forwarded {
    /// Status of the runtime.
    pub status: StatusCode,
    /// The allowed part of its head.
    pub headers: HeaderMap,
    /// Its body; `Err` ends the connection, so that a broken answer never looks whole.
    pub body: mpsc::Receiver<Result<Bytes, std::io::Error>>,
}

/// What a runtime is told of the call that a request belongs to.
pub struct Errand {
    /// Of the client's request.
    pub request_id: String,
    /// `exe_…`, where the operation keeps a record.
    pub execution_id: Option<String>,
    /// The number of the session.
    pub session_seq: u64,
}

/// Why a runtime was not reached.
#[derive(Debug)]
pub enum Unreached {
    /// What runs the container does not answer.
    Away(DriverError),
    /// The container has ended, and the session's task is about to hear of it.
    Ended,
}

/// Performs one operation's actions.
pub struct RuntimePerformer {
    client: Arc<RuntimeClient>,
    errand: Errand,
    /// Requests planned so far.
    planned: AtomicU32,
    /// Requests sent on their way, and those of them that are known to have come nowhere.
    sent: AtomicU32,
    nowhere: AtomicU32,
    deadline: Instant,
    retries: u32,
    caller: Mutex<Option<(CallerRequest, oneshot::Sender<Forwarded>)>>,
}

impl RuntimePerformer {
    /// For one operation on one container. `forward` receives the answer of a forward, should there be one.
    pub fn new(
        client: Arc<RuntimeClient>,
        errand: Errand,
        deadline: Instant,
        retries: u32,
        caller: CallerRequest,
        forward: oneshot::Sender<Forwarded>,
    ) -> Self {
        Self {
            client,
            errand,
            planned: AtomicU32::new(0),
            sent: AtomicU32::new(0),
            nowhere: AtomicU32::new(0),
            deadline,
            retries,
            caller: Mutex::new(Some((caller, forward))),
        }
    }

    /// Why nothing of an operation that planned requests came to the runtime, where that is not the runtime's doing.
    pub async fn unreached(&self) -> Option<Unreached> {
        let sent = self.sent.load(Ordering::Relaxed);
        if sent == 0 || sent != self.nowhere.load(Ordering::Relaxed) {
            return None;
        }
        // The call's own time is over by now: the caller does not wait long for the reason.
        let state = tokio::time::timeout(ASK_WHY, self.client.container_state()).await;
        let state = state.unwrap_or_else(|_| {
            let what = "asking the driver how a container is".to_owned();
            Err(DriverError::Timeout { what, limit: ASK_WHY })
        });
        match state {
            Err(error @ (DriverError::Unavailable { .. } | DriverError::Timeout { .. })) => {
                Some(Unreached::Away(error))
            }
            Ok(ContainerStatus::Exited { .. } | ContainerStatus::Missing) => Some(Unreached::Ended),
            Ok(ContainerStatus::Running) | Err(_) => None,
        }
    }

    async fn send(&self, request: RuntimeRequest) -> Result<http::Response<Incoming>, RuntimeError> {
        // Counted first: one that is given up half-way may have arrived.
        self.sent.fetch_add(1, Ordering::Relaxed);
        let sent = self.client.send(request).await;
        if matches!(sent, Err(RuntimeError::Unreached(_))) {
            self.nowhere.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// What the runtime knows one planned request by: a runtime runs an id once, however often it is sent, so that a
    /// second request of the same operation must have another.
    fn next_id(&self) -> Option<String> {
        let id = self.errand.execution_id.as_ref()?;
        Some(match self.planned.fetch_add(1, Ordering::Relaxed) {
            0 => id.clone(),
            more => format!("{id}-{}", more + 1),
        })
    }

    fn build(
        &self,
        plan: PlannedRequest,
        id: Option<&String>,
        body: Option<RequestBody>,
    ) -> Result<RuntimeRequest, String> {
        match plan.target {
            Target::Runtime => {}
            Target::Granted(name) => return Err(format!("no grant named {name}")),
        }
        let method = Method::from_bytes(plan.method.as_bytes()).map_err(|_| "bad method".to_owned())?;
        let mut headers = Vec::with_capacity(plan.headers.len() + 3);
        for (name, value) in plan.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "bad header name".to_owned())?;
            let value = HeaderValue::from_str(&value).map_err(|_| "bad header value".to_owned())?;
            headers.push((name, value));
        }
        let session_seq = self.errand.session_seq.to_string();
        let own = [
            ("x-request-id", Some(&self.errand.request_id)),
            ("x-execution-id", id),
            ("x-session-seq", Some(&session_seq)),
        ];
        for (name, value) in own {
            if let Some(value) = value.and_then(|v| HeaderValue::from_str(v).ok()) {
                headers.push((HeaderName::from_static(name), value));
            }
        }
        // What a plan says stands: rules may have changed what the caller sent.
        let body = plan.body.map(full).or(body).unwrap_or_else(empty);
        Ok(RuntimeRequest { method, path: plan.path, query: plan.query, headers, body })
    }

    /// The earlier of the plan's own bound and the operation's deadline.
    fn bound(&self, timeout_ms: Option<u32>) -> Instant {
        let own = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms.into()));
        own.map_or(self.deadline, |own| own.min(self.deadline))
    }
}

#[async_trait]
impl Performer for RuntimePerformer {
    async fn request(&self, plan: PlannedRequest) -> Result<PlannedResponse, String> {
        let bound = self.bound(plan.timeout_ms);
        let id = self.next_id();
        let answered = async {
            let mut attempts = 0;
            let response = loop {
                let request = self.build(plan.clone(), id.as_ref(), None).map_err(RuntimeError::Http)?;
                match self.send(request).await {
                    // Only what never reached the runtime is tried again: nothing can have run.
                    Err(RuntimeError::Unreached(_)) if attempts < self.retries => attempts += 1,
                    other => break other?,
                }
            };
            collect(response).await
        };
        let answer = tokio::time::timeout_at(bound, answered)
            .await
            .map_err(|_| "timeout".to_owned())?
            .map_err(|e: RuntimeError| plain(&e))?;
        let headers = answer
            .headers
            .iter()
            .filter(|(name, _)| RESPONSE_HEADERS.contains(name))
            .filter_map(|(n, v)| Some((n.as_str().to_owned(), v.to_str().ok()?.to_owned())))
            .collect();
        Ok(PlannedResponse { status: answer.status.as_u16(), headers, body: answer.body.to_vec() })
    }

    async fn forward(&self, plan: PlannedRequest) -> Result<ForwardEnd, String> {
        let Some((caller, to_client)) = self.caller.lock().await.take() else {
            return Err("an operation forwards at most once".to_owned());
        };
        let CallerRequest { headers: asked, body, upgrade } = caller;
        let bound = self.bound(plan.timeout_ms);
        let progress = Progress::begin();
        let body = body.map(|body| progress.watch(body));
        let mut request = self.build(plan, self.next_id().as_ref(), body)?;
        for name in REQUEST_HEADERS {
            // What the plan says of the request stands.
            let planned = request.headers.iter().any(|(planned, _)| *planned == name);
            if let Some(value) = asked.get(&name).filter(|_| !planned) {
                request.headers.push((name, value.clone()));
            }
        }
        request.headers.extend(upgrade.iter().flat_map(ClientUpgrade::head));
        let response = progress.head(self.send(request), bound).await?.map_err(|e| plain(&e))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                return Err("the runtime switched protocols, which nobody asked for".to_owned());
            };
            return upgrade::carry(upgrade, response, to_client).await;
        }
        if upgrade.is_some() && response.status().is_success() {
            return Err("the runtime did not switch protocols".to_owned());
        }
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        if !head.status.is_success() && head.status != StatusCode::NOT_MODIFIED {
            // An error of the runtime is an answer for the adapter to translate, not bytes for the client.
            return self.refused(http::Response::from_parts(head, body)).await;
        }
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let mut headers = HeaderMap::new();
        for name in RESPONSE_HEADERS {
            if let Some(value) = head.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A runtime may call its bytes a page; shown in a browser it must not be one of Bay's own origin.
        headers
            .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        if is_known(&asked, head.status, &headers) {
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::CONTENT_TYPE);
            // The channel's other end goes at once: there is no body.
            let _gone =
                to_client.send(Forwarded { status: StatusCode::NOT_MODIFIED, headers, body: receiver });
            return Ok(ForwardEnd { status, bytes: 0, end: "complete".to_owned(), refusal: None });
        }
        if to_client.send(Forwarded { status: head.status, headers, body: receiver }).is_err() {
            return Ok(ForwardEnd { status, bytes: 0, end: "client_gone".to_owned(), refusal: None });
        }
        let (bytes, end) = pump(body, &chunks).await;
        Ok(ForwardEnd { status, bytes, end: end.to_owned(), refusal: None })
    }
}

/// What a plugin, and so perhaps a client, hears of a failure: what a driver or a library says of it may name what is
/// nobody else's business.
fn plain(error: &RuntimeError) -> String {
    tracing::debug!(%error, "a request to a runtime failed");
    match error {
        RuntimeError::Dial(_) | RuntimeError::Unreached(_) => "no connection could be had",
        RuntimeError::Stranger(_) | RuntimeError::HandshakeTimeout => {
            "it did not prove to be this session's runtime"
        }
        RuntimeError::Io(_) | RuntimeError::Http(_) => "the connection broke",
        RuntimeError::TooLarge => "it answered more than Bay takes",
        RuntimeError::Timeout(_) => "timeout",
    }
    .to_owned()
}

impl RuntimePerformer {
    async fn refused(&self, response: http::Response<hyper::body::Incoming>) -> Result<ForwardEnd, String> {
        let answer = tokio::time::timeout_at(self.deadline, collect(response))
            .await
            .map_err(|_| "timeout".to_owned())?
            .map_err(|e| plain(&e))?;
        Ok(ForwardEnd {
            status: answer.status.as_u16(),
            bytes: 0,
            end: "refused".to_owned(),
            refusal: Some(answer.body.to_vec()),
        })
    }
}
