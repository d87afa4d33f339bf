//! Executions as resources: their record, what they said, their events, and an end to them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::{Ids, capability, repeat};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Guest;
use crate::edge::input;
use crate::edge::openapi::refusals;
use crate::edge::wire::schema::Execution;
use crate::error::{ApiError, ApiResult, Code};
use crate::execution::admit::find_sandbox;
use crate::execution::known::{self, Known, follow_up};
use crate::execution::{events, execution_object};
use crate::id::Kind;
use crate::invoke::Wants;
use crate::runtime::CallerRequest;
use crate::store::{ExecutionRow, ExecutionStatus, SandboxRow};

/// Longest `wait` for an execution's end, in seconds.
const MAX_WAIT: u64 = 300;
/// How long a cancellation looks for work that is on its way to its runtime.
const REACH: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long a cancellation waits for the end that it brings about, before it answers without.
const END: Duration = Duration::from_secs(1);

refusals!(Get: ValidationError, DeniedByRule, NotFound, QuotaExceeded);
refusals!(Output: ValidationError, DeniedByRule, NotFound, RangeNotSatisfiable, RuntimeError, PluginError, SessionNotReady, Timeout);
refusals!(Cancel: DeniedByRule, NotFound, RuntimeError, PluginError, Timeout);

/// The record of an execution
#[utoipa::path(get, path = "/v1/sandboxes/{id}/executions/{execution}", tag = "executions", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`"), ("wait" = Option<u64>, Query, description = "seconds to wait for its end, at most 300")), responses((status = 200, description = "the record", body = Execution), Get))]
pub async fn get(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, id)): Ids<(String, String)>,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<Value>> {
    let pairs = input::query(raw.as_deref())?;
    let wait = seconds(&pairs)?;
    let (_, mut row) = find(&app, &context, &sandbox_id, &id, "execution.get").await?;
    let mut end = None;
    if row.status == ExecutionStatus::Running && !wait.is_zero() {
        // Each holds a connection, and its own copy of what comes.
        let _place = app.streams.open(&context.tenant)?;
        if let Some(flight) = app.flights.find(&id) {
            end = flight.ended(wait).await;
        }
        row = app.store.get_execution(&context.tenant, &sandbox_id, &id).await?;
    }
    let mut object = execution_object(&row);
    // The profile may not keep it; whoever waited for it gets it all the same.
    if let (Value::Null, Some(Ok(answer))) = (&object["result"], end.as_deref()) {
        object["result"] = answer.clone();
    }
    Ok(Json(object))
}

fn seconds(pairs: &[(String, String)]) -> ApiResult<Duration> {
    let Some(text) = input::find(pairs, "wait") else { return Ok(Duration::ZERO) };
    let seconds = text.parse().ok().filter(|s| *s <= MAX_WAIT).map(Duration::from_secs);
    seconds.ok_or_else(|| ApiError::field("wait", format!("must be a whole number from 0 to {MAX_WAIT}")))
}

/// `GET …/executions/{execution}/output`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/executions/{execution}/output", tag = "executions", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`"), ("stream" = Option<String>, Query, description = "`stdout` or `stderr`"), ("offset" = Option<u64>, Query, description = "first byte"), ("Range" = Option<String>, Header, description = "in bytes; comes before `offset`")), responses((status = 200, description = "bytes; `X-Output-Total` is how many there have been", content_type = "application/octet-stream"), (status = 206, description = "the range", content_type = "application/octet-stream"), Output))]
pub async fn output(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, id)): Ids<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let pairs = input::query(raw.as_deref())?;
    let stream = match input::find(&pairs, "stream") {
        None | Some("stdout") => "stdout",
        Some("stderr") => "stderr",
        Some(_) => return Err(ApiError::field("stream", "must be stdout or stderr")),
    };
    let offset: u64 = match input::find(&pairs, "offset") {
        None => 0,
        Some(text) => text.parse().map_err(|_| ApiError::field("offset", "must be a number of bytes"))?,
    };
    let (sandbox, row) = find(&app, &context, &sandbox_id, &id, "execution.output").await?;
    let asked = json!({ "stream": stream, "offset": offset });
    let Some(known) = known::find(&app, sandbox, &row, "output", asked)? else {
        return from_record(&row, stream, offset);
    };
    let caller = CallerRequest { headers, ..CallerRequest::default() };
    match follow_up(&app, &context, known, &id, Wants::Answer, caller).await {
        Ok(answer) => Ok(named(capability::answer(answer), &id)),
        Err(error) if error.code == Code::NotFound => from_record(&row, stream, offset),
        Err(error) => Err(error),
    }
}

/// What the answer kept of a stream, where that is all there was.
fn from_record(row: &ExecutionRow, stream: &str, offset: u64) -> ApiResult<Response> {
    refuse_early(row)?;
    let whole = row.result.as_ref().filter(|result| result["truncated"] == false);
    let Some(text) = whole.and_then(|result| result[stream].as_str()) else {
        return Err(no_longer("output", &row.id));
    };
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let bytes = text.as_bytes().get(from..).unwrap_or_default().to_vec();
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("x-output-total", HeaderValue::from(text.len()));
    Ok(named(response, &row.id))
}

/// `GET …/executions/{execution}/events`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/executions/{execution}/events", tag = "executions", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`"), ("Last-Event-ID" = Option<u64>, Header, description = "the last one seen")), responses((status = 200, description = "its events from there on; `gap` says which are lost", content_type = "text/event-stream"), Output))]
pub async fn events(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, id)): Ids<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let seen = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default()) {
        None => 0,
        Some(text) => {
            let number = text.parse::<u64>().ok().filter(|seen| i64::try_from(*seen).is_ok());
            number.ok_or_else(|| ApiError::field("Last-Event-ID", "must be an event's id"))?
        }
    };
    follow(&app, &context, &sandbox_id, &id, seen).await
}

/// The events of an execution after `seen`.
pub(super) async fn follow(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: &str,
    id: &str,
    seen: u64,
) -> ApiResult<Response> {
    let (sandbox, row) = find(app, context, sandbox_id, id, "execution.events").await?;
    let Some(known) = known::find(app, sandbox, &row, "events", json!({ "last_event_id": seen }))? else {
        return only_the_end(&row, &context.request_id);
    };
    match follow_up(app, context, known, id, Wants::Events, CallerRequest::default()).await {
        Ok(answer) => Ok(named(capability::answer(answer), id)),
        Err(error) if error.code == Code::NotFound => only_the_end(&row, &context.request_id),
        Err(error) => Err(error),
    }
}

/// The terminal event, of an execution whose runtime has forgotten the rest.
fn only_the_end(row: &ExecutionRow, request_id: &str) -> ApiResult<Response> {
    refuse_early(row)?;
    let end = match (&row.status, &row.result) {
        (ExecutionStatus::Succeeded | ExecutionStatus::Failed, Some(result)) => {
            events::event("result", 1, result)
        }
        (ExecutionStatus::Error | ExecutionStatus::Lost, _) => {
            events::event("error", 1, &repeat::refusal(row).body(request_id, false))
        }
        (ExecutionStatus::Succeeded | ExecutionStatus::Failed | ExecutionStatus::Running, _) => {
            return Err(no_longer("events", &row.id));
        }
    };
    Ok(named(capability::event_stream(Body::from(end)), &row.id))
}

/// `POST …/executions/{execution}/cancel`
#[utoipa::path(post, path = "/v1/sandboxes/{id}/executions/{execution}/cancel", tag = "executions", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`")), responses((status = 200, description = "the record; `running` where it has not ended yet"), Cancel))]
pub async fn cancel(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, id)): Ids<(String, String)>,
) -> ApiResult<Json<Value>> {
    let (sandbox, row) = find(&app, &context, &sandbox_id, &id, "execution.cancel").await?;
    if row.status == ExecutionStatus::Running {
        stop(&app, &context, &sandbox, &id).await?;
    }
    let row = app.store.get_execution(&context.tenant, &sandbox_id, &id).await?;
    Ok(Json(execution_object(&row)))
}

/// Reaches the work wherever it is: before its session, on its way to the runtime, or there.
async fn stop(app: &Arc<App>, context: &OpContext, sandbox: &SandboxRow, id: &str) -> ApiResult<()> {
    let flight = app.flights.find(id);
    if let Some(flight) = &flight {
        flight.cancel();
    }
    let until = std::time::Instant::now() + REACH;
    loop {
        let row = app.store.get_execution(&context.tenant, &sandbox.id, id).await?;
        if row.status != ExecutionStatus::Running {
            return Ok(());
        }
        let asked = match known::find(app, sandbox.clone(), &row, "cancel", json!({}))? {
            Some(known) => Known::ask(&known, context).await.map(drop),
            None => Err(no_longer("session", id)),
        };
        let (Err(error), Some(flight)) = (&asked, &flight) else {
            // Taken, or nobody left whom to ask.
            if let (Ok(()), Some(flight)) = (&asked, &flight) {
                let _still_running = flight.ended(END).await;
            }
            return asked.or_else(|error| if error.code == Code::NotFound { Ok(()) } else { Err(error) });
        };
        if error.code != Code::NotFound {
            return asked;
        }
        if std::time::Instant::now() >= until {
            return Ok(());
        }
        let _not_yet = flight.ended(LOOK).await;
    }
}

/// The execution and its sandbox, where both are the caller's and the rules let it.
async fn find(
    app: &App,
    context: &OpContext,
    sandbox_id: &str,
    id: &str,
    action: &str,
) -> ApiResult<(SandboxRow, ExecutionRow)> {
    let sandbox = find_sandbox(app, context, sandbox_id).await?;
    if !Kind::Execution.is(id) {
        return Err(ApiError::not_found("execution", id));
    }
    let row = app.store.get_execution(&context.tenant, sandbox_id, id).await?;
    // A token for python does not read what the shell said.
    let granted = context.grant.as_ref().is_none_or(|grant| grant.capabilities.contains(&row.capability));
    if !granted {
        return Err(ApiError::not_found("execution", id));
    }
    known::rules(app, context, &sandbox, action, json!({ "execution_id": id })).await?;
    Ok((sandbox, row))
}

/// Before its session is ready there is nothing to read, and there will be.
fn refuse_early(row: &ExecutionRow) -> ApiResult<()> {
    if row.status != ExecutionStatus::Running {
        return Ok(());
    }
    let details = json!({ "sandbox_id": row.sandbox_id, "retry_after_ms": 1000 });
    Err(ApiError::new(Code::SessionNotReady, "the execution has not begun yet")
        .with(details)
        .after(Duration::from_secs(1)))
}

fn no_longer(what: &str, id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("the execution's {what} is kept no longer"))
        .with(json!({ "resource": what, "id": id }))
}

fn named(mut response: Response, id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-execution-id", value);
    }
    response.into_response()
}
