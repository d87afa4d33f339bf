//! Reading the start-up message from stdin.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use bay_ship_api::init::{InitConfig, MAX_MESSAGE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::{Stop, stop};

/// Reads one JSON message up to end of file, then makes `/dev/null` of stdin.
pub(super) fn read(patience: Duration) -> Result<InitConfig, Stop> {
    let mut bytes = stop("start-up message", read_all(patience))?;
    let parsed = parse(&bytes);
    bytes.fill(0);
    black_box(&bytes);
    let null =
        stop("/dev/null", rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))?;
    stop("stdin", rustix::stdio::dup2_stdin(&null))?;
    parsed
}

/// Overwrites a secret that is no longer needed.
pub(crate) fn wipe(secret: &mut String) {
    let mut bytes = std::mem::take(secret).into_bytes();
    bytes.fill(0);
    black_box(&bytes);
}

fn read_all(patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    // Sized once: growing would leave copies of the token behind.
    let mut bytes = Vec::with_capacity(MAX_MESSAGE.min(64 << 10));
    let mut chunk = [0u8; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN)];
        let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return Err(io::Error::other("it did not arrive in time")),
            other => other?,
        };
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk)? {
            0 => return Ok(bytes),
            count if bytes.len() + count > MAX_MESSAGE => return Err(io::Error::other("it is too large")),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Result<InitConfig, Stop> {
    // serde's own message could quote a value, so only the place is told.
    let config: InitConfig = serde_json::from_slice(bytes).map_err(|error| {
        format!("start-up message: not valid at line {}, column {}", error.line(), error.column())
    })?;
    token(&config.token).ok_or("start-up message: the token must be 64 hexadecimal digits")?;
    if let Some(name) = config.env.keys().find(|name| !is_name(name)) {
        return Err(format!("start-up message: {name:?} cannot be the name of an environment variable"));
    }
    if config.env.values().any(|value| value.contains('\0')) {
        return Err("start-up message: an environment value contains a NUL".into());
    }
    Ok(config)
}

/// `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads the token's 64 hexadecimal digits.
pub(crate) fn token(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| (d as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: &str, env: &str) -> String {
        format!(
            r#"{{"session":"s","generation":1,"token":"{token}","isolation":"two_uid","env":{env},"python":null,
            "capabilities":["shell"],"network":{{"mode":"none"}},
            "limits":{{"pids":64,"memory":1,"nofile":64,"enforce":false}}}}"#
        )
    }

    #[test]
    fn a_whole_message_is_read() {
        let config = parse(message(&"ab".repeat(32), r#"{"A":"b"}"#).as_bytes()).unwrap();
        assert_eq!(config.env["A"], "b");
        assert_eq!(token(&config.token), Some([0xAB; 32]));
    }

    #[test]
    fn a_bad_token_or_environment_is_refused_without_being_repeated() {
        for (secret, env) in
            [("12", "{}"), (&*"zz".repeat(32), "{}"), (&*"ab".repeat(32), r#"{"A-B":"topsecret"}"#)]
        {
            let said = parse(message(secret, env).as_bytes()).unwrap_err();
            assert!(!said.contains("topsecret") && !said.contains(&"zz".repeat(32)), "{said}");
        }
        assert!(parse(b"{\"token\": \"topsecret").unwrap_err().contains("line 1"));
    }

    #[test]
    fn names_follow_the_contract() {
        assert!(is_name("_A1") && is_name("x"));
        assert!(!is_name("") && !is_name("1A") && !is_name("A=B") && !is_name("A B"));
    }
}
