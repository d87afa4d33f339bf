//! What ran in a sandbox.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{Ids, page};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Caller;
use crate::edge::openapi::refusals;
use crate::edge::{body, input};
use crate::error::{ApiError, ApiResult};
use crate::execution::admit::find_sandbox;
use crate::execution::{history_object, known};
use crate::id::Kind;
use crate::store::{Annotation, ExecType, ExecutionFilter, ExecutionRow, Page};

/// Most tags that one list is narrowed to: each is looked for in every entry.
const MAX_TAGS: usize = 32;
/// Most rounds of erasing one history, each a few hundred entries; a repeat takes the rest.
const MAX_ROUNDS: usize = 1000;

refusals!(List: ValidationError, DeniedByRule, NotFound);
refusals!(One: DeniedByRule, NotFound);
refusals!(Change: ValidationError, DeniedByRule, NotFound, PayloadTooLarge, UnsupportedMediaType);

/// `GET /v1/sandboxes/{id}/history`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/history", tag = "history", params(("id" = String, Path, description = "`sbx_…`"), ("exec_type" = Option<String>, Query, description = "`python`, `shell` or `plugin`"), ("success_only" = Option<bool>, Query), ("tags" = Option<String>, Query, description = "with each of these, separated by commas"), ("has_notes" = Option<bool>, Query), ("has_description" = Option<bool>, Query), ("limit" = Option<u32>, Query, description = "1 to 200; 50"), ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")), responses((status = 200, description = "a page, newest first"), List))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(sandbox_id): Ids<String>,
    RawQuery(raw): RawQuery,
) -> ApiResult<Json<Value>> {
    let pairs = input::query(raw.as_deref())?;
    let filter = filter(&pairs)?;
    let page = page(&pairs)?;
    allowed(&app, &context, &sandbox_id, "history.list", json!({})).await?;
    let listing = app.store.list_executions(&context.tenant, &sandbox_id, filter, page).await?;
    let items: Vec<_> = listing.items.iter().map(history_object).collect();
    Ok(Json(json!({ "items": items, "next_cursor": listing.next_cursor.map(|cursor| cursor.encode()) })))
}

fn filter(pairs: &[(String, String)]) -> ApiResult<ExecutionFilter> {
    let exec_type = input::find(pairs, "exec_type")
        .map(|text| {
            ExecType::parse(text)
                .ok_or_else(|| ApiError::field("exec_type", "must be python, shell or plugin"))
        })
        .transpose()?;
    let either = |name| match input::find(pairs, name) {
        None => Ok(None),
        Some(_) => input::flag(pairs, name).map(Some),
    };
    let tags = input::find(pairs, "tags").unwrap_or_default().split(',').map(str::trim);
    let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    if tags.len() > MAX_TAGS {
        return Err(ApiError::field("tags", format!("at most {MAX_TAGS} of them")));
    }
    Ok(ExecutionFilter {
        exec_type,
        success_only: input::flag(pairs, "success_only")?,
        tags,
        has_notes: either("has_notes")?,
        has_description: either("has_description")?,
    })
}

/// `GET …/history/last`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/history/last", tag = "history", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "the newest entry"), One))]
pub async fn last(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(sandbox_id): Ids<String>,
) -> ApiResult<Json<Value>> {
    allowed(&app, &context, &sandbox_id, "history.get", json!({})).await?;
    let newest = ExecutionFilter::default();
    let listing = app.store.list_executions(&context.tenant, &sandbox_id, newest, Page::first(1)).await?;
    let row = listing.items.first().ok_or_else(|| ApiError::not_found("history", "last"))?;
    Ok(Json(history_object(row)))
}

/// `GET …/history/{execution}`
#[utoipa::path(get, path = "/v1/sandboxes/{id}/history/{execution}", tag = "history", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`")), responses((status = 200, description = "the entry"), One))]
pub async fn get(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids((sandbox_id, id)): Ids<(String, String)>,
) -> ApiResult<Json<Value>> {
    allowed(&app, &context, &sandbox_id, "history.get", json!({ "id": id })).await?;
    Ok(Json(history_object(&entry(&app, &context, &sandbox_id, &id).await?)))
}

/// `PATCH …/history/{execution}`
#[utoipa::path(patch, path = "/v1/sandboxes/{id}/history/{execution}", tag = "history", params(("id" = String, Path, description = "`sbx_…`"), ("execution" = String, Path, description = "`exe_…`")), request_body(content = Value, description = "`{description?, tags?, notes?}`: text, or null to empty it", content_type = "application/json"), responses((status = 200, description = "the entry"), Change))]
pub async fn annotate(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids((sandbox_id, id)): Ids<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    let asked = body::json(&app, &headers, body, false).await?;
    annotation(&asked)?;
    let asked = allowed(&app, &context, &sandbox_id, "history.update", asked).await?;
    let annotation = annotation(&asked)?;
    entry(&app, &context, &sandbox_id, &id).await?;
    let row = app.store.annotate_execution(&context.tenant, &sandbox_id, &id, annotation).await?;
    Ok(Json(history_object(&row)))
}

fn annotation(asked: &Value) -> ApiResult<Annotation> {
    let mut errors = Vec::new();
    let mut text = |field: &str| match asked.get(field) {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => {
            errors.push((field.to_owned(), "must be text, or null".to_owned()));
            None
        }
    };
    let annotation =
        Annotation { description: text("description"), tags: text("tags"), notes: text("notes") };
    if errors.is_empty() { Ok(annotation) } else { Err(ApiError::fields(&errors)) }
}

/// `DELETE …/history`
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/history", tag = "history", params(("id" = String, Path, description = "`sbx_…`")), responses((status = 200, description = "`{status: \"ok\", deleted}`; what still runs stays"), One))]
pub async fn clear(
    State(app): State<Arc<App>>,
    Caller(context): Caller,
    Ids(sandbox_id): Ids<String>,
) -> ApiResult<Json<Value>> {
    allowed(&app, &context, &sandbox_id, "history.delete", json!({})).await?;
    let mut deleted = 0;
    for _ in 0..MAX_ROUNDS {
        let round = app.store.clear_history(&context.tenant, &sandbox_id).await?;
        deleted += round;
        if round == 0 {
            break;
        }
    }
    Ok(Json(json!({ "status": "ok", "deleted": deleted })))
}

/// One entry; what no history shows is not there.
async fn entry(app: &App, context: &OpContext, sandbox_id: &str, id: &str) -> ApiResult<ExecutionRow> {
    let missing = || ApiError::not_found("history", id);
    if !Kind::Execution.is(id) {
        return Err(missing());
    }
    let row = app.store.get_execution(&context.tenant, sandbox_id, id).await?;
    if row.listed { Ok(row) } else { Err(missing()) }
}

/// Asks the rules about a sandbox of the caller's; the input as they leave it.
async fn allowed(
    app: &App,
    context: &OpContext,
    sandbox_id: &str,
    action: &str,
    input: Value,
) -> ApiResult<Value> {
    let sandbox = find_sandbox(app, context, sandbox_id).await?;
    known::rules(app, context, &sandbox, action, input).await
}
