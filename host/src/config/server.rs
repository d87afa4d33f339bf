//! What `[server]` and `[tls]` may not say, beyond types.

use super::{Config, Span, Wrong};

/// Most origins in `server.cors_origins`.
const MAX_ORIGINS: usize = 64;
/// Most connections that can be asked for: each is a descriptor, and more than a process can have.
const MAX_CONNECTIONS: u32 = 1_000_000;

impl Config {
    pub(super) fn check_server(&self) -> Result<(), Wrong> {
        let server = &self.server;
        let wrong = |key: &str, message: String| Err(Wrong::new(&["server", key], message));
        if let Some(address) = server.ops_listen.filter(|address| !address.ip().is_loopback()) {
            let message = format!(
                "{address} can be reached from other machines, and what it serves needs no key: use a loopback \
                 address, as in \"127.0.0.1:9114\""
            );
            return wrong("ops_listen", message);
        }
        if !(1..=MAX_CONNECTIONS).contains(&server.connections) {
            return wrong("connections", format!("must be from 1 to {MAX_CONNECTIONS}"));
        }
        if server.connections_per_address == Some(0) {
            return wrong("connections_per_address", "must be at least 1".to_owned());
        }
        for (key, span, from, to) in [
            ("head_timeout", server.head_timeout, 1, 300),
            ("idle_timeout", server.idle_timeout, 1, 3600),
            ("client_timeout", server.client_timeout, 1, 3600),
            ("drain_timeout", server.drain_timeout, 0, 3600),
        ] {
            if span < Span::secs(from) || span > Span::secs(to) {
                return wrong(key, format!("must be from {from}s to {to}s"));
            }
        }
        if server.cors_origins.len() > MAX_ORIGINS {
            return wrong("cors_origins", format!("at most {MAX_ORIGINS} origins"));
        }
        if let Some(bad) = server.cors_origins.iter().find(|origin| !is_origin(origin)) {
            let message = format!(
                "`{bad}` is not an origin: write scheme and host as a browser does, without a path, as in \
                 \"https://app.example.org\""
            );
            return wrong("cors_origins", message);
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => Err(Wrong::new(&["tls", "key"], "is needed beside tls.cert".to_owned())),
            (None, Some(_)) => Err(Wrong::new(&["tls", "cert"], "is needed beside tls.key".to_owned())),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }
}

/// As a browser writes it: lower case, no path, no default port, never `*` or `null`.
fn is_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let sign = |b: u8| matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || sign(b))
}
