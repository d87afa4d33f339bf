//! `terminal`: the handshake of a WebSocket, and what runs on it afterwards.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::time::timeout;

use crate::agent::Ship;
use crate::agent::body::Body;
use crate::agent::error::{Code, Failure};
use crate::agent::http::{Answer, Query};
use crate::agent::routes::unsupported;
use crate::agent::server::Connection;
use crate::terminal::handshake::{Offer, PROTOCOL};
use crate::terminal::{self, MAX_SIDE, Mode, Size};

/// How long the answer may take on its way; the shell runs by then.
const UPGRADE: Duration = Duration::from_secs(10);
/// The longest name of a terminal type.
const MAX_TERM: usize = 64;

pub(in crate::agent) async fn ws(ship: &Ship, mut request: Request<Incoming>) -> Answer {
    let terminals = ship.terminal.as_ref().ok_or_else(|| unsupported("terminal"))?;
    let offer = Offer::of(request.method(), request.version(), request.headers())?;
    let (size, term) = wanted(&Query::of(&request)?)?;
    let accept = HeaderValue::try_from(&offer.accept)
        .map_err(|_| Failure::new(Code::RuntimeError, "the handshake could not be answered"))?;
    let opened = terminals.open(size, &term).await?;
    let connection = request.extensions_mut().remove::<Connection>();
    let mode = offer.mode;
    tokio::spawn(async move {
        match timeout(UPGRADE, hyper::upgrade::on(request)).await {
            Ok(Ok(upgraded)) => terminal::run(upgraded, opened, mode).await,
            // The connection broke before the answer was out.
            Ok(Err(_)) | Err(_) => opened.end().await,
        }
        drop(connection);
    });
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if mode == Mode::V1 {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    Ok(response)
}

/// Size and type of the terminal, checked.
fn wanted(query: &Query) -> Result<(Size, String), Failure> {
    if query.text("terminal_id").is_some() {
        return Err(Failure::field("terminal_id", "reserved: every connection is a terminal of its own"));
    }
    let side = |name| -> Result<Option<u16>, Failure> {
        let side = query.number::<u16>(name)?;
        let fits = side.is_none_or(|side| (1..=MAX_SIDE).contains(&side));
        fits.then_some(side).ok_or_else(|| Failure::field(name, format!("must be from 1 to {MAX_SIDE}")))
    };
    let (cols, rows) = (side("cols")?.unwrap_or(80), side("rows")?.unwrap_or(24));
    let size = Size::new(cols, rows).ok_or_else(|| Failure::field("cols", "no terminal has this size"))?;
    let term = query.text("term").unwrap_or("xterm-256color");
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if !(1..=MAX_TERM).contains(&term.len()) || !term.bytes().all(valid) {
        return Err(Failure::field("term", format!("must be 1 to {MAX_TERM} of [A-Za-z0-9._+-]")));
    }
    Ok((size, term.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<(Size, String), Failure> {
        let uri = format!("/term/ws?{query}");
        wanted(&Query::of(&Request::builder().uri(uri).body(()).unwrap()).unwrap())
    }

    #[test]
    fn size_and_type_have_defaults_and_bounds() {
        let usual = (Size::new(80, 24).unwrap(), "xterm-256color".to_owned());
        assert_eq!(of(""), Ok(usual));
        let all = (Size::new(1000, 1).unwrap(), "screen.xterm+x_1-2".to_owned());
        assert_eq!(of("cols=1000&rows=1&term=screen.xterm%2Bx_1-2"), Ok(all));
        for bad in [
            "cols=0",
            "rows=1001",
            "cols=-1",
            "rows=x",
            "cols=",
            "cols=65536",
            "term=",
            "term=a%20b",
            "term=a/b",
            "term=%00",
            "term=%C3%A9",
            "terminal_id=x",
            &format!("term={}", "x".repeat(65)),
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
