//! The Host allow-list and the Origin check: a page in somebody's browser must not be able to speak to Bay,
//! neither by a cross-site request nor by rebinding a name of its own to this machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header;

use super::ListedOrigin;
use crate::app::App;
use crate::error::{ApiError, Code};

/// Refuses a Host that is not on the list, and any Origin whose host is not.
pub async fn check_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let hosts = &app.allowed_hosts;
    let host =
        request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).or_else(|| request.uri().host());
    if !host.is_some_and(|h| hosts.allows(h)) {
        return ApiError::new(
            Code::Forbidden,
            "this Host is not on the list; add it to server.hosts if it is yours",
        )
        .into_response();
    }
    if request.extensions().get::<ListedOrigin>().is_none()
        && let Some(origin) = request.headers().get(header::ORIGIN)
    {
        let allowed = origin.to_str().ok().and_then(origin_host).is_some_and(|h| hosts.allows(h));
        if !allowed {
            return ApiError::new(Code::Forbidden, "pages of this Origin may not use Bay").into_response();
        }
    }
    next.run(request).await
}

fn origin_host(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// Names under which this Bay may be reached.
#[derive(Debug)]
pub struct AllowedHosts {
    names: Vec<String>,
}

impl AllowedHosts {
    /// Loopback names, the address it listens on, and the operator's own.
    pub fn new(listen: std::net::SocketAddr, configured: &[String]) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into();
        if !listen.ip().is_unspecified() {
            names.push(without_port(&listen.to_string()).to_owned());
        }
        names.extend(configured.iter().map(|h| h.to_ascii_lowercase()));
        Self { names }
    }

    /// `host` with or without a port. The port does not matter: a name is what an attacker would rebind.
    pub fn allows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        self.names.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    host.get(..end).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_with_any_port() {
        let hosts = AllowedHosts::new("10.0.0.5:8114".parse().unwrap(), &["Bay.example".into()]);
        for good in
            ["localhost", "LOCALHOST:1", "127.0.0.1:8114", "[::1]:8114", "10.0.0.5", "bay.example:443"]
        {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8114", "", "[::2]", "null"]
        {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }
}
