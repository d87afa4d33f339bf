//! Executions as resources.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::Value;

use super::Ids;
use crate::app::App;
use crate::auth::OpContext;
use crate::error::{ApiError, ApiResult};
use crate::execution::admit::find_sandbox;
use crate::execution::execution_object;
use crate::id::Kind;

/// `GET /v1/sandboxes/{id}/executions/{execution}`
pub async fn get(
    State(app): State<Arc<App>>,
    Extension(context): Extension<OpContext>,
    Ids((sandbox_id, id)): Ids<(String, String)>,
) -> ApiResult<Json<Value>> {
    find_sandbox(&app, &context, &sandbox_id).await?;
    if !Kind::Execution.is(&id) {
        return Err(ApiError::not_found("execution", &id));
    }
    let row = app.store.get_execution(&context.tenant, &sandbox_id, &id).await?;
    Ok(Json(execution_object(&row)))
}
