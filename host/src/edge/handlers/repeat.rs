//! A repeat of an execution by its `Idempotency-Key`: it attaches to the one that the first request made, and runs
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{capability, executions};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::idempotency::Guard;
use crate::error::{ApiError, ApiResult, Code};
use crate::invoke::{Answer, WAIT_GRACE, Wants};
use crate::store::{ExecutionRow, ExecutionStatus};

/// How long a repeat waits that says nothing: as its first request, where that said nothing either.
const DEFAULT_WAIT: Duration = Duration::from_secs(35);

/// The answer of the execution `id`, or its events from the first on.
pub(super) async fn attach(
    app: &Arc<App>,
    context: &OpContext,
    sandbox_id: &str,
    id: &str,
    wait: Duration,
    wants: Wants,
    guard: Guard,
) -> ApiResult<Response> {
    if wants == Wants::Events {
        return executions::follow(app, context, sandbox_id, id, 0)
            .await
            .map(|response| marked(response, id));
    }
    let mut row = app.store.get_execution(&context.tenant, sandbox_id, id).await?;
    let mut ended = None;
    if row.status == ExecutionStatus::Running {
        let _place = app.streams.open(&context.tenant)?;
        if let Some(flight) = app.flights.find(id) {
            ended = flight.ended(wait).await;
        }
        row = app.store.get_execution(&context.tenant, sandbox_id, id).await?;
    }
    let answer = match ended.as_deref() {
        Some(end) => end.clone(),
        None if row.status == ExecutionStatus::Running => {
            let running = Answer::Running { execution_id: id.to_owned() };
            return Ok(marked(capability::answer(running), id));
        }
        None => from_record(&row),
    };
    let response = guard.finish(app, context, StatusCode::OK, &answer?).await?;
    Ok(marked(response, id))
}

/// How long a repeat with this body waits.
pub(super) fn wait(input: &Value) -> Duration {
    let seconds = |field: &str| input[field].as_u64().map(|s| Duration::from_secs(s.min(3600)));
    let own = seconds("timeout").map(|timeout| timeout + WAIT_GRACE);
    seconds("wait").or(own).unwrap_or(DEFAULT_WAIT)
}

/// What the call was or would have been answered, as far as the record knows.
fn from_record(row: &ExecutionRow) -> ApiResult<Value> {
    match (row.status, &row.result) {
        (ExecutionStatus::Succeeded | ExecutionStatus::Failed, Some(result)) => Ok(result.clone()),
        (ExecutionStatus::Error | ExecutionStatus::Lost, _) => Err(refusal(row)),
        (ExecutionStatus::Succeeded | ExecutionStatus::Failed | ExecutionStatus::Running, _) => {
            Err(ApiError::new(Code::Conflict, "the execution has run; its answer was not kept")
                .with(json!({ "execution_id": row.id })))
        }
    }
}

/// As it was refused: the record holds code and words.
pub(super) fn refusal(row: &ExecutionRow) -> ApiError {
    let said = row.error.as_deref().unwrap_or("it did not come to an end");
    let known = said
        .split_once(": ")
        .and_then(|(name, words)| Some((*Code::ALL.iter().find(|code| code.as_str() == name)?, words)));
    let (code, words) = known.unwrap_or((Code::RuntimeError, said));
    ApiError::new(code, words).with(json!({ "execution_id": row.id }))
}

fn marked(mut response: Response, id: &str) -> Response {
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-execution-id", value);
    }
    response
}
