//! The OpenAPI 3.1 document, put together from what stands at each handler (`#[utoipa::path]`) when the router is
//! built: a route that is in the one is in the other.
//!
//! A handler's annotation names its path, its bodies, and with [`refusals!`] the error codes that are its own. What
//! every route may answer is added here.

mod access;
mod complete;
mod document;
mod errors;
mod operations;
mod refusals;
mod shapes;

pub use document::Document;
pub use operations::{PluginOperation, plugin_operations};
pub(crate) use refusals::{refusals, responses};

use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

/// What the document says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "Bay", description = "Safe, persistent sandboxes for AI agents.\n\nEvery answer carries `X-Request-Id`. Every answer but a 2xx is an `Error`, on a path that does not exist (404) and for a method that a path does not have (405) too. Enums in answers are open: take an unknown one as transitional. Another tenant's resource answers exactly as a missing one."),
    modifiers(&Credentials),
    security(("bearer" = []), ("key" = []))
)]
pub struct ApiDoc;

struct Credentials;

impl utoipa::Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("sandbox token")
            .description(Some("Of `POST /v1/sandboxes/{id}/tokens`: one sandbox, some of its capabilities."))
            .build();
        components.add_security_scheme("sandbox_token", SecurityScheme::Http(token));
    }
}
