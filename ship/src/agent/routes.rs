//! Every route of Ship, in one table: `/meta` and `/capabilities` are read off it, too.

use std::pin::Pin;
use std::sync::Arc;

use bay_ship_api::http::Health;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::json;

use super::Ship;
use super::body::Body;
use super::error::{Code, Failure};
use super::handlers::{archive, files, python, shell, watch};
use super::http::{Answer, json_response, ok};
use super::meta::{capabilities, meta};

/// A handler at work.
type Work<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
/// Takes the request and the part of the path that the route's `{…}` stands for (empty where it has none).
type Handler = for<'a> fn(&'a Arc<Ship>, Request<Incoming>, String) -> Work<'a>;

/// One route.
pub(super) struct Route {
    /// `GET`, `POST` or `DELETE`.
    pub(super) method: &'static str,
    /// The path; at most one segment is a `{name}`.
    pub(super) path: &'static str,
    /// The capability and operation it serves; none for what every container answers.
    pub(super) serves: Option<(&'static str, &'static str)>,
    handler: Handler,
}

/// A row of the table.
macro_rules! route {
    ($method:literal $path:literal, $handler:expr) => {
        Route { method: $method, path: $path, serves: None, handler: $handler }
    };
    ($method:literal $path:literal, $capability:literal $operation:literal, $handler:expr) => {
        Route { method: $method, path: $path, serves: Some(($capability, $operation)), handler: $handler }
    };
}

/// All of them.
pub(super) static ROUTES: &[Route] = &[
    route!("GET" "/health", |_, _, _| Box::pin(async { ok(&Health { status: "healthy".to_owned() }) })),
    route!("GET" "/meta", |ship, _, _| Box::pin(async { ok(&meta(ship)) })),
    route!("GET" "/capabilities", |ship, _, _| Box::pin(async { ok(&json!({"capabilities": capabilities(ship)})) })),
    route!("POST" "/fs/read_file", "filesystem" "read_file", |s, r, _| Box::pin(files::read(s, r))),
    route!("POST" "/fs/write_file", "filesystem" "write_file", |s, r, _| Box::pin(files::write(s, r))),
    route!("POST" "/fs/delete_file", "filesystem" "delete_file", |s, r, _| Box::pin(files::delete(s, r))),
    route!("POST" "/fs/list_dir", "filesystem" "list_dir", |s, r, _| Box::pin(files::list(s, r))),
    route!("GET" "/fs/download", "filesystem" "download", |s, r, _| Box::pin(files::download(s, r))),
    route!("POST" "/fs/archive", "filesystem" "archive", |s, r, _| Box::pin(archive::upload(s, r))),
    route!("GET" "/fs/watch", "filesystem" "watch", |s, r, _| Box::pin(watch::watch(s, r))),
    route!("POST" "/shell/exec", "shell" "exec", |s, r, _| Box::pin(shell::exec(s, r))),
    route!("POST" "/ipython/exec", "python" "exec", |s, r, _| Box::pin(python::exec(s, r))),
];

/// Answers one request.
pub(super) async fn answer(ship: &Arc<Ship>, request: Request<Incoming>) -> Response<Body> {
    let answer = match find(request.method().as_str(), request.uri().path()) {
        Ok((route, part)) => match route.serves {
            Some((capability, _)) if !ship.offers(capability) => Err(unsupported(capability)),
            _ => (route.handler)(ship, request, part).await,
        },
        Err(failure) => Err(failure),
    };
    answer.unwrap_or_else(|failure| {
        let (status, body) = failure.body();
        json_response(status, &body)
    })
}

/// The route for a request, and what its `{…}` stands for.
pub(super) fn find(method: &str, path: &str) -> Result<(&'static Route, String), Failure> {
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(part) = matches(route.path, path) else { continue };
        if route.method == method {
            return Ok((route, part.to_owned()));
        }
        others.push(route.method);
    }
    if others.is_empty() {
        return Err(Failure::new(Code::NotFound, "Ship has no such route"));
    }
    Err(Failure::new(Code::MethodNotAllowed, format!("this route takes {}", others.join(" or "))))
}

/// The part of `path` that the pattern's `{…}` stands for, or an empty one; `None` where it does not fit.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((head, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let tail = rest.split_once('}')?.1;
    let part = path.strip_prefix(head)?.strip_suffix(tail)?;
    (!part.is_empty() && !part.contains('/')).then_some(part)
}

/// The answer where a container does not have a capability.
pub(super) fn unsupported(capability: &str) -> Failure {
    let mut failure =
        Failure::new(Code::CapabilityNotSupported, format!("this container does not offer {capability}"));
    failure.details = json!({"capability": capability});
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_exactly_one_segment() {
        assert_eq!(matches("/health", "/health"), Some(""));
        assert_eq!(matches("/health", "/health/"), None);
        assert_eq!(matches("/p/{id}", "/p/proc_1"), Some("proc_1"));
        assert_eq!(matches("/p/{id}/stdin", "/p/proc_1/stdin"), Some("proc_1"));
        for other in ["/p/", "/p//stdin", "/p/a/b/stdin", "/p/stdin", "/q/a/stdin"] {
            assert_eq!(matches("/p/{id}/stdin", other), None, "{other}");
        }
        assert_eq!(matches("/p/{id}", "/p/a/stdin"), None);
    }

    #[test]
    fn no_two_routes_are_the_same() {
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(seen.insert((route.method, route.path)), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn another_method_is_told_which_one_fits() {
        let refused = |method, path| find(method, path).map(|_| ()).unwrap_err().code;
        assert_eq!(refused("GET", "/shell/exec"), Code::MethodNotAllowed);
        assert_eq!(refused("GET", "/nothing"), Code::NotFound);
    }
}
