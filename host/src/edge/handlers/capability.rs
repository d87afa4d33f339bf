//! Every capability's calls: `POST …/{capability}/{operation}`, and what the file routes share with it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::Ids;
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::body;
use crate::edge::caller::Guest;
use crate::edge::openapi::refusals;
use crate::error::{ApiError, ApiResult};
use crate::execution::Stages;
use crate::invoke::{Answer, CallRequest, invoke};
use crate::runtime::{CallerRequest, Forwarded};

refusals!(Call: ValidationError, CapabilityNotSupported, DeniedByRule, NotFound, Conflict, SandboxExpired, StateLost, PayloadTooLarge, UnsupportedMediaType, Busy, RuntimeError, PluginError, SessionNotReady, Timeout);

/// `POST /v1/sandboxes/{id}/{capability}/{operation}`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/{capability}/{operation}", tag = "capabilities", params(("id" = String, Path, description = "`sbx_…`"), ("capability" = String, Path), ("operation" = String, Path)), responses((status = 200, description = "what the operation answers"), Call))]
pub async fn call(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, capability, operation)): Ids<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let input = async {
        body::refuse_idempotency_key(&headers)?;
        body::json(&app, &headers, body, true).await
    };
    let input = match input.await {
        Ok(input) => input,
        Err(error) => return error.into_response(),
    };
    run(&app, &context, sandbox_id, &capability, &operation, input, headers).await
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
    };
    let stages = Arc::new(Stages::begin());
    let mut response = answer(invoke(app, context, call, &stages).await);
    if let Ok(value) = HeaderValue::from_str(&stages.header()) {
        response.headers_mut().insert("server-timing", value);
    }
    response
}

fn answer(result: ApiResult<Answer>) -> Response {
    match result {
        Ok(Answer::Done(value)) => {
            let id = value["execution_id"].as_str().and_then(|id| HeaderValue::from_str(id).ok());
            with_execution(Json(value).into_response(), id)
        }
        Ok(Answer::Running { execution_id }) => {
            let id = HeaderValue::from_str(&execution_id).ok();
            let body = Json(json!({ "execution_id": execution_id, "status": "running" }));
            with_execution((StatusCode::ACCEPTED, body).into_response(), id)
        }
        Ok(Answer::Stream(forwarded)) => streamed(forwarded),
        Err(error) => ApiError::into_response(error),
    }
}

fn with_execution(mut response: Response, id: Option<HeaderValue>) -> Response {
    if let Some(id) = id {
        response.headers_mut().insert("x-execution-id", id);
    }
    response
}

/// Chunks as they come; an error ends the connection, so that a broken body never looks whole.
fn streamed(forwarded: Forwarded) -> Response {
    let Forwarded { status, headers, body } = forwarded;
    let chunks = stream::unfold(body, |mut body| async move { body.recv().await.map(|chunk| (chunk, body)) });
    // What follows a switch of protocols is no body.
    let body = if status == StatusCode::SWITCHING_PROTOCOLS { Body::empty() } else { Body::from_stream(chunks) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
