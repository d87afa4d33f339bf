//! Executions as resources.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::Ids;
use crate::app::App;
use crate::edge::caller::Guest;
use crate::edge::openapi::refusals;
use crate::edge::wire::schema::Execution;
use crate::error::{ApiError, ApiResult};
use crate::execution::admit::find_sandbox;
use crate::execution::execution_object;
use crate::id::Kind;

refusals!(Get: NotFound);

/// The record of an execution
#[utoipa::path(get, path = "/v1/sandboxes/{id}/executions/{execution}", tag = "executions", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`")), responses((status = 200, description = "the record", body = Execution), Get))]
pub async fn get(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids((sandbox_id, id)): Ids<(String, String)>,
) -> ApiResult<Json<Value>> {
    find_sandbox(&app, &context, &sandbox_id).await?;
    if !Kind::Execution.is(&id) {
        return Err(ApiError::not_found("execution", &id));
    }
    let row = app.store.get_execution(&context.tenant, &sandbox_id, &id).await?;
    Ok(Json(execution_object(&row)))
}
