//! Every capability's calls: `POST …/{capability}/{operation}`, and what the file routes share with it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Ids, repeat};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::body;
use crate::edge::caller::Guest;
use crate::edge::idempotency::{Begun as Keyed, IdempotencyKey};
use crate::edge::openapi::refusals;
use crate::edge::wire::schema::Running;
use crate::error::{ApiError, ApiResult};
use crate::execution::{Stages, events};
use crate::invoke::{Answer, CallRequest, Wants, begin, invoke};
use crate::runtime::{CallerRequest, Forwarded};

refusals!(Call: ValidationError, CapabilityNotSupported, DeniedByRule, NotFound, Conflict, SandboxExpired, StateLost, PayloadTooLarge, UnsupportedMediaType, Busy, RuntimeError, PluginError, SessionNotReady, Timeout);

/// Call an operation of a capability
///
/// With the JSON that its schema asks for: `GET /v1/capabilities` lists them, and this document has a path for each
/// when it is asked for with a key.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/{capability}/{operation}", tag = "capabilities", params(("id" = String, Path, description = "`sbx_…`"), ("capability" = String, Path), ("operation" = String, Path), IdempotencyKey), request_body = Option<std::collections::BTreeMap<String, Value>>, responses((status = 200, description = "what the operation answers; an execution's events where `Accept: text/event-stream` asks for them", body = std::collections::BTreeMap<String, Value>), (status = 202, description = "not within `wait`: the execution goes on", body = Running), Call))]
pub async fn call(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, capability, operation)): Ids<(String, String, String)>,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match keyed(&app, &context, (sandbox_id, capability, operation), key, headers, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// The call, or what became of the first one with its key.
async fn keyed(
    app: &Arc<App>,
    context: &OpContext,
    (sandbox_id, capability, operation): (String, String, String),
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let input = body::json(app, &headers, body, true).await?;
    let wants = if wants_events(&headers) { Wants::Events } else { Wants::Answer };
    let mut guard = match key.begin(app, context, &input).await? {
        Keyed::Replay(response) => return Ok(response),
        Keyed::Run(guard) => guard,
    };
    if let Some(id) = guard.resumes().map(str::to_owned) {
        // Others attach to it as well.
        guard.let_go();
        let wait = repeat::wait(&input);
        // It may be large, and waiting long.
        drop(input);
        return repeat::attach(app, context, &sandbox_id, &id, wait, wants, guard).await;
    }
    let claim = guard.claim();
    let caller = CallerRequest { headers, ..CallerRequest::default() };
    let call = CallRequest { sandbox_id, capability, operation, input, caller, wants, claim };
    let stages = Arc::new(Stages::begin());
    let begun = begin(app, context, call, &stages).await;
    if stages.execution_id().is_some() {
        guard.let_go();
    }
    let answered = match begun {
        Ok(begun) => begun.answer().await,
        Err(error) => Err(error),
    };
    let response = match answered {
        Ok(Answer::Done(value)) => guard.finish(app, context, StatusCode::OK, &value).await,
        answered => answered.map(answer),
    };
    Ok(marked(response.unwrap_or_else(ApiError::into_response), &stages))
}

/// Whether a client asks for a stream of events.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        let essence = range.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(events::CONTENT_TYPE)
    })
}

/// Invokes and answers; every answer says how far the call came.
pub async fn run(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: String,
    capability: &str,
    operation: &str,
    input: Value,
    headers: HeaderMap,
) -> Response {
    let caller = CallerRequest { headers, ..CallerRequest::default() };
    run_with(app, context, sandbox_id, capability, operation, input, caller).await
}

/// The same for a request that has more to pass on than its head.
pub async fn run_with(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: String,
    capability: &str,
    operation: &str,
    input: Value,
    caller: CallerRequest,
) -> Response {
    let call = CallRequest {
        sandbox_id,
        capability: capability.to_owned(),
        operation: operation.to_owned(),
        input,
        caller,
        wants: Wants::Answer,
        claim: None,
    };
    respond(app, context, call).await
}

async fn respond(app: &Arc<App>, context: &OpContext, call: CallRequest) -> Response {
    let stages = Arc::new(Stages::begin());
    let result = invoke(app, context, call, &stages).await;
    marked(result.map_or_else(ApiError::into_response, answer), &stages)
}

/// Says how far a call came, and which execution it is: of a refusal, too, since what was recorded can be asked for.
fn marked(mut response: Response, stages: &Stages) -> Response {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&stages.header()) {
        headers.insert("server-timing", value);
    }
    if let Some(value) = stages.execution_id().and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert("x-execution-id", value);
    }
    response
}

/// An answer on its way to the client.
pub fn answer(answer: Answer) -> Response {
    match answer {
        Answer::Done(value) => Json(value).into_response(),
        Answer::Running { execution_id } => {
            let body = Json(json!({ "execution_id": execution_id, "status": "running" }));
            (StatusCode::ACCEPTED, body).into_response()
        }
        Answer::Stream(Forwarded { status, headers, body }) => {
            // What follows a switch of protocols is no body.
            let switched = status == StatusCode::SWITCHING_PROTOCOLS;
            let mut response = Response::new(if switched { Body::empty() } else { streamed(body) });
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
        Answer::Events(body) => event_stream(streamed(body)),
        Answer::Asleep => ApiError::not_found("session", "running").into_response(),
    }
}

/// A body of events, with what keeps it from being held up or kept on its way.
pub fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(events::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Chunks as they come; an error ends the connection, so that a broken body never looks whole.
fn streamed(body: mpsc::Receiver<Result<Bytes, std::io::Error>>) -> Body {
    Body::from_stream(stream::unfold(
        body,
        |mut body| async move { body.recv().await.map(|chunk| (chunk, body)) },
    ))
}
