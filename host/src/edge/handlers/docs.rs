//! The document of this API, and pages made of it.
//!
//! The pages come whole from this binary: no request of theirs leaves this origin, and their policy says so to the
//! browser. They hold no credential; what a visitor types in stays in the visitor's page.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::app::App;
use crate::auth::{OpContext, Scope};
use crate::edge::openapi::{Document, plugin_operations};
use crate::error::{ApiError, ApiResult};

/// The reader of the document, see `host/assets/scalar`.
const SCRIPT: &[u8] = include_bytes!("../../../assets/scalar/standalone.js.gz");
/// The page around it.
const PAGE: &str = include_str!("../../../assets/docs.html");
/// What starts it; apart from the page, because the policy allows no script inside one.
const START: &str = include_str!("../../../assets/docs.js");
/// What the pages may load: their own origin, and styles that the reader writes into its page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The OpenAPI document
///
/// Without a key: the routes that every Bay has. With one: also a path for each operation that the plugins of the
/// tenant's profiles describe.
#[utoipa::path(get, path = "/openapi.json", tag = "docs", responses((status = 200, description = "an OpenAPI 3.1 document", body = serde_json::Value)))]
pub async fn openapi(
    State(app): State<Arc<App>>,
    Extension(document): Extension<Arc<Document>>,
    context: Option<Extension<OpContext>>,
) -> Response {
    let Some(Extension(context)) = context.filter(|context| context.has(Scope::Sandboxes)) else {
        return body("application/json", document.fixed());
    };
    let operations = plugin_operations(&app, &context.tenant);
    Json(document.with_operations(&operations)).into_response()
}

/// This API, to be read in a browser
#[utoipa::path(get, path = "/docs", tag = "docs", responses((status = 200, description = "a page; needs nothing but this Bay", content_type = "text/html", body = String)))]
pub async fn page() -> Response {
    body("text/html; charset=utf-8", PAGE)
}

/// What the page loads
#[utoipa::path(get, path = "/docs/{file}", tag = "docs", params(("file" = String, Path, description = "`docs.js` or `reader.js`")), responses((status = 200, description = "a script", content_type = "text/javascript", body = String)))]
pub async fn file(super::Ids(file): super::Ids<String>) -> ApiResult<Response> {
    match file.as_str() {
        "docs.js" => Ok(body("text/javascript; charset=utf-8", START)),
        "reader.js" => {
            // Kept compressed, and every browser takes it so.
            let mut response = body("text/javascript; charset=utf-8", SCRIPT);
            let fields = response.headers_mut();
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
            Ok(response)
        }
        other => Err(ApiError::not_found("path", other)),
    }
}

fn body(content_type: &'static str, content: impl Into<Body>) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::OK, headers, content.into()).into_response()
}
