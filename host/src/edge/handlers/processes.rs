//! Background processes of the shell. None of these starts a session: where none runs, nothing runs.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Ids, capability};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Guest;
use crate::edge::openapi::refusals;
use crate::edge::{body, input};
use crate::error::{ApiError, ApiResult};
use crate::execution::Stages;
use crate::invoke::{Answer, CallRequest, Wants, invoke};
use crate::runtime::CallerRequest;

/// Longest id of a process.
const MAX_ID: usize = 64;

refusals!(Processes: ValidationError, CapabilityNotSupported, DeniedByRule, NotFound, Conflict, SandboxExpired, PayloadTooLarge, UnsupportedMediaType, Busy, RuntimeError, PluginError, Timeout);

/// `GET …/shell/processes`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/shell/processes", tag = "shell", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "`{processes: […]}`, in the order of their starts"), Processes))]
pub async fn list(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(sandbox_id): Ids<String>,
) -> ApiResult<Response> {
    let answer = ask(&app, &context, sandbox_id, "processes", json!({})).await?;
    Ok(match answer {
        Answer::Asleep => Json(json!({ "processes": [] })).into_response(),
        answer => capability::answer(answer),
    })
}

/// `GET …/shell/processes/{process}`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/shell/processes/{process}", tag = "shell", params(("id" = String, Path, description = "`sbx_…`"), ("process" = String, Path, description = "`process_id`"), ("stream" = Option<String>, Query, description = "`stdout` or `stderr`"), ("offset" = Option<u64>, Query, description = "first byte"), ("limit" = Option<u64>, Query, description = "most bytes"), ("encoding" = Option<String>, Query, description = "`utf-8` or `base64`"), ("wait" = Option<u64>, Query, description = "seconds to wait for something to read, at most 30")), responses((status = 200, description = "the process, and a piece of its output"), Processes))]
pub async fn read(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, process)): Ids<(String, String)>,
    RawQuery(raw): RawQuery,
) -> ApiResult<Response> {
    let integer = json!({ "type": "integer" });
    let types = json!({ "properties": { "offset": integer, "limit": integer, "wait": integer } });
    let asked = input::typed(input::query(raw.as_deref())?, &types);
    one(&app, &context, sandbox_id, "process_output", asked, process).await
}

/// `POST …/shell/processes/{process}/stdin`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/shell/processes/{process}/stdin", tag = "shell", params(("id" = String, Path, description = "`sbx_…`"), ("process" = String, Path, description = "`process_id`")), request_body(content = Value, description = "`{data, encoding?, close?}`", content_type = "application/json"), responses((status = 200, description = "`{process_id, taken, closed}`"), Processes))]
pub async fn stdin(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, process)): Ids<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    body::refuse_idempotency_key(&headers)?;
    let asked = body::json(&app, &headers, body, false).await?;
    one(&app, &context, sandbox_id, "process_stdin", asked, process).await
}

/// `DELETE …/shell/processes/{process}`
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/shell/processes/{process}", tag = "shell", params(("id" = String, Path, description = "`sbx_…`"), ("process" = String, Path, description = "`process_id`")), responses((status = 200, description = "the process as it ended"), Processes))]
pub async fn kill(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, process)): Ids<(String, String)>,
) -> ApiResult<Response> {
    one(&app, &context, sandbox_id, "process_kill", json!({}), process).await
}

async fn one(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: String,
    operation: &str,
    mut asked: Value,
    process: String,
) -> ApiResult<Response> {
    let named = process.len() <= MAX_ID && process.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return Err(ApiError::not_found("process", &process));
    }
    asked["process_id"] = process.as_str().into();
    match ask(app, context, sandbox_id, operation, asked).await? {
        Answer::Asleep => Err(ApiError::not_found("process", &process)),
        answer => Ok(capability::answer(answer)),
    }
}

async fn ask(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: String,
    operation: &str,
    input: Value,
) -> ApiResult<Answer> {
    let call = CallRequest {
        sandbox_id,
        capability: "shell".to_owned(),
        operation: operation.to_owned(),
        input,
        caller: CallerRequest::default(),
        wants: Wants::AnswerIfAwake,
        claim: None,
    };
    invoke(app, context, call, &Arc::new(Stages::begin())).await
}
