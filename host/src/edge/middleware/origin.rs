//! The Host allow-list and the Origin check: a page in somebody's browser must not be able to speak to Bay,
//! neither by a cross-site request nor by rebinding a name of its own to this machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Uri, header};

use super::ListedOrigin;
use crate::app::App;
use crate::error::{ApiError, ApiResult, Code};

/// Refuses a Host that is not on the list, and any Origin whose host is not.
pub async fn check_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let listed = request.extensions().get::<ListedOrigin>().is_some();
    match check(&app.allowed_hosts, request.headers(), request.uri(), listed) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Whatever names a host must be allowed: the header, were it to stand there twice, and the request's target where that
/// has one (HTTP/2, proxies). `listed`: the one Origin that came is on the list of CORS.
fn check(hosts: &AllowedHosts, headers: &HeaderMap, target: &Uri, listed: bool) -> ApiResult<()> {
    let mut named: Vec<Option<&str>> =
        headers.get_all(header::HOST).iter().map(|value| value.to_str().ok()).collect();
    named.extend(target.host().map(Some));
    if named.is_empty() || !named.into_iter().all(|host| host.is_some_and(|h| hosts.allows(h))) {
        let message = "this Host is not on the list; add it to server.hosts if it is yours";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter().map(|value| value.to_str().ok());
    if listed && headers.get_all(header::ORIGIN).iter().count() == 1 {
        return Ok(());
    }
    if origins.all(|origin| origin.and_then(origin_host).is_some_and(|host| hosts.allows(host))) {
        return Ok(());
    }
    Err(ApiError::new(Code::Forbidden, "pages of this Origin may not use Bay"))
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
