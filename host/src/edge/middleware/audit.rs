//! Writes down what ends something for good or changes who may do what, what rules deny, and what failed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use crate::app::App;
use crate::audit::{self, Entry};
use crate::auth::OpContext;
use crate::edge::server::Peer;
use crate::error::{ApiError, Code};
use crate::id::Kind;

/// Routes whose every answer is written down, and as what. Calls on lockers' files write their own entries.
const AUDITED: [(&str, &str, &str); 6] = [
    ("DELETE", "/v1/sandboxes/{id}", "sandbox.delete"),
    ("DELETE", "/v1/lockers/{id}", "locker.delete"),
    ("POST", "/v1/admin/keys", "key.create"),
    ("DELETE", "/v1/admin/keys/{key}", "key.revoke"),
    ("POST", "/v1/sandboxes/{id}/tokens", "token.create"),
    ("POST", "/v1/admin/gc/run", "gc.run"),
];
/// What is written down where rules said no.
const DENIED: &str = "rules.deny";

/// Put into a response by a handler that made something: its id, where the path does not name it.
#[derive(Debug, Clone)]
pub struct Audited(pub String);

/// Within authentication: whoever asks is known.
pub async fn audit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    let response = next.run(request).await;
    asked.remember(&app, &response);
    // A response's body cannot be shared across an await: what is needed of it is taken out first.
    if let Some((context, entry, outcome)) = asked.entry(&response) {
        audit::record(&app, &context, entry, outcome).await;
    }
    response
}

/// What of a request an entry needs; taken out of it because a body cannot be shared across an await.
struct Asked {
    context: Option<OpContext>,
    method: Method,
    pattern: String,
    id: Option<String>,
    client: Option<IpAddr>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            context: request.extensions().get().cloned(),
            method: request.method().clone(),
            pattern: request
                .extensions()
                .get::<MatchedPath>()
                .map(|p| p.as_str().to_owned())
                .unwrap_or_default(),
            id: id_in(request.uri().path()),
            client: client(request),
        }
    }

    /// Keeps a failure in memory.
    fn remember(&self, app: &App, response: &Response) {
        let error = response.extensions().get::<ApiError>();
        let Some(error) = error.filter(|error| error.code.status().is_server_error()) else { return };
        let known = self.context.as_ref().map(|c| (c.tenant.clone(), c.request_id.clone()));
        let (tenant, request_id) = known.unzip();
        let route = format!("{} {}", self.method, self.pattern);
        app.failures.push(tenant, request_id.unwrap_or_default(), route, error);
    }

    /// What is to be written down, and how it ended.
    fn entry(self, response: &Response) -> Option<(OpContext, Entry, &'static str)> {
        let context = self.context?;
        let error = response.extensions().get::<ApiError>();
        // What touched nothing is no news, and would let whoever asks push out what is.
        let nothing = [Code::NotFound, Code::ValidationError, Code::MethodNotAllowed];
        if context.grant.is_some() || error.is_some_and(|error| nothing.contains(&error.code)) {
            return None;
        }
        let denied = error.filter(|error| error.code == Code::DeniedByRule);
        let same =
            |(method, pattern, _): &&(&str, &str, &str)| self.method == *method && self.pattern == *pattern;
        let action = match AUDITED.iter().find(same) {
            Some((_, _, action)) => *action,
            None if denied.is_some() && !self.pattern.starts_with("/v1/lockers/{id}/files/") => DENIED,
            None => return None,
        };
        let made = response.extensions().get::<Audited>().map(|made| made.0.clone());
        // The rule's name is the operator's own; its reason may hold what a client wrote.
        let detail = denied.map(|error| {
            let rule = error.details["rule"].as_str().unwrap_or_default();
            format!("{} {}: {rule}", self.method, self.pattern)
        });
        let entry = Entry { action, resource: made.or(self.id), client: self.client, detail };
        Some((context, entry, error.map_or("ok", |error| error.code.as_str())))
    }
}

/// The first segment that has the form of an id; what else a client writes into a path is not for the log.
fn id_in(path: &str) -> Option<String> {
    let kinds = [Kind::Sandbox, Kind::Locker, Kind::Key, Kind::Execution];
    path.split('/').take(8).find(|part| kinds.iter().any(|kind| kind.is(part))).map(str::to_owned)
}

/// Where a request comes from.
fn client(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_a_path_are_written_down() {
        let id = Kind::Locker.mint();
        assert_eq!(id_in(&format!("/v1/lockers/{id}/files/read")), Some(id));
        assert_eq!(id_in("/v1/lockers/lkr_../../etc"), None);
        assert_eq!(id_in("/v1/sandboxes"), None);
    }
}
