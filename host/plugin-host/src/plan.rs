//! Requests that a guest planned, checked before anyone performs them.

use crate::{Limits, PlannedRequest, Target};

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that identify, route or frame: the host's alone to set.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-api-key",
    "x-execution-id",
    "x-owner",
    "x-request-id",
    "x-session-seq",
];
/// The same, by how they begin.
const RESERVED_PREFIXES: &[&str] = &["x-bay-", "x-forwarded-", "proxy-", "sec-"];

/// Bounds of a request's head: what a runtime's HTTP parser would refuse is the plugin's mistake, said here.
const MAX_SEGMENTS: usize = 64;
const MAX_SEGMENT: usize = 4096;
const MAX_QUERY: usize = 64;
const MAX_HEADERS: usize = 64;
const MAX_TEXT: usize = 8 << 10;
const MAX_HEAD: usize = 32 << 10;

/// Which grants a plugin may use: what its manifest asks for and the operator allows.
pub(crate) type Grants = std::collections::HashSet<String>;

/// Checks one request. The error is for the log: the plugin broke its contract.
pub(crate) fn check(request: &PlannedRequest, grants: &Grants, limits: &Limits) -> Result<(), String> {
    if let Target::Granted(name) = &request.target
        && !grants.contains(name)
    {
        return Err(format!("it has no grant named `{}`", name.escape_debug()));
    }
    if !METHODS.contains(&request.method.as_str()) {
        return Err(format!("`{}` is not one of {}", request.method.escape_debug(), METHODS.join(", ")));
    }
    let mut head = 0;
    check_path(&request.path, &mut head)?;
    count("query parameters", request.query.len(), MAX_QUERY)?;
    for (name, value) in &request.query {
        head += name.len() + value.len();
        if name.is_empty() || name.len() > MAX_TEXT || value.len() > MAX_TEXT {
            return Err("a query parameter has no name, or is too long".into());
        }
    }
    count("headers", request.headers.len(), MAX_HEADERS)?;
    for (name, value) in &request.headers {
        head += name.len() + value.len();
        check_header(name, value)?;
    }
    if head > MAX_HEAD {
        return Err(format!("a request's head is larger than {} KiB", MAX_HEAD >> 10));
    }
    if request.body.as_ref().is_some_and(|b| b.len() > limits.max_answer_bytes) {
        return Err("a request's body is larger than an answer may be".into());
    }
    if request.timeout_ms == Some(0) {
        return Err("a request's timeout is zero".into());
    }
    Ok(())
}

fn check_path(path: &[String], head: &mut usize) -> Result<(), String> {
    count("path segments", path.len(), MAX_SEGMENTS)?;
    for segment in path {
        *head += segment.len() + 1;
        let bad = segment.is_empty()
            || segment == "."
            || segment == ".."
            || segment.len() > MAX_SEGMENT
            || segment.contains('\0');
        if bad {
            return Err("a path segment is empty, `.`, `..`, too long, or holds a NUL".into());
        }
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Err(format!(
            "`{}` is no header name",
            name.chars().take(64).collect::<String>().escape_debug()
        ));
    }
    if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p)) {
        return Err(format!("header `{name}` is the host's to set"));
    }
    // Visible ASCII, spaces and tabs: nothing that could end the header.
    let plain = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if value.len() > MAX_TEXT || !value.bytes().all(plain) {
        return Err(format!("the value of header `{name}` is too long or not plain ASCII"));
    }
    Ok(())
}

fn count(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count <= most { Ok(()) } else { Err(format!("{count} {what}; at most {most} are allowed")) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
