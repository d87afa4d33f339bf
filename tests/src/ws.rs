//! A small blocking WebSocket client (RFC 6455), for tests that look at frames.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::http::{self, Response};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// How long one read waits before the deadline is looked at again.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Data.
    Binary(Vec<u8>),
    /// Control messages.
    Text(String),
    /// Its code; none where it has none.
    Close(Option<u16>),
    /// The connection ended without a close frame.
    Gone,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Ws {
    stream: TcpStream,
    unread: Vec<u8>,
    /// The subprotocol that the server chose.
    pub protocol: Option<String>,
}

impl Ws {
    /// Opens one; the answer where it was refused.
    #[track_caller]
    pub fn open(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let mut stream = TcpStream::connect(addr).expect("connect");
        stream.set_nodelay(true).expect("set nodelay");
        let mut head = format!(
            "GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("send the handshake");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set a timeout");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).expect("read the answer"), 1, "the connection ended");
            answer.push(byte[0]);
        }
        let text = String::from_utf8(answer.clone()).expect("a head is text");
        if !text.starts_with("HTTP/1.1 101 ") {
            return Err(http::finish(&mut stream, answer, format!("GET {target}")).expect("read a refusal"));
        }
        let header = |wanted: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| v.to_owned()).next()
        };
        assert_eq!(header("sec-websocket-accept").as_deref(), Some(ACCEPT), "{text}");
        assert!(header("x-request-id").is_some(), "{text}");
        let protocol = header("sec-websocket-protocol");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Ok(Self { stream, unread: Vec::new(), protocol })
    }

    /// Sends data.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.frame(0x82, bytes).expect("send data");
    }

    /// Sends text.
    pub fn text(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).expect("send text");
    }

    fn frame(&mut self, first: u8, bytes: &[u8]) -> std::io::Result<()> {
        let mut frame = vec![first];
        match bytes.len() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap_or_default()),
            medium @ 126..=0xFFFF => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(medium).unwrap_or_default().to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        // A mask of zeros leaves the payload as it is.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(bytes);
        self.stream.write_all(&frame)
    }

    /// The next frame; pings are answered on the way.
    #[track_caller]
    pub fn next(&mut self, limit: Duration) -> Frame {
        let deadline = Instant::now() + limit;
        loop {
            if let Some((opcode, payload)) = self.whole() {
                match opcode {
                    0x2 => return Frame::Binary(payload),
                    0x1 => return Frame::Text(String::from_utf8(payload).expect("text is UTF-8")),
                    0x8 => {
                        let code = payload.get(..2).map(|c| u16::from_be_bytes([c[0], c[1]]));
                        return Frame::Close(code);
                    }
                    0x9 => drop(self.frame(0x8A, &payload)),
                    _ => {}
                }
                continue;
            }
            assert!(Instant::now() < deadline, "no frame within {limit:?}");
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Frame::Gone,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return Frame::Gone,
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let (&first, &second) = (self.unread.first()?, self.unread.get(1)?);
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (head, length) = match second & 0x7F {
            126 => (4, u64::from(u16::from_be_bytes(self.unread.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.unread.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let end = head + usize::try_from(length).ok()?;
        if self.unread.len() < end {
            return None;
        }
        let frame: Vec<u8> = self.unread.drain(..end).collect();
        Some((first & 0xF, frame[head..].to_vec()))
    }

    /// Data until a text is in it; all of that data.
    #[track_caller]
    pub fn until(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Looked for in what is new, and where it may have begun: all of it again with every frame takes longer
            // than the frames do.
            let from = seen.len().saturating_sub(text.len());
            match self.next(left) {
                Frame::Binary(bytes) => seen.extend_from_slice(&bytes),
                other => panic!("{other:?} instead of `{text}` after {}", String::from_utf8_lossy(&seen)),
            }
            if String::from_utf8_lossy(&seen[from..]).contains(text) {
                return String::from_utf8_lossy(&seen).into_owned();
            }
        }
    }

    /// The next frame that is no data.
    #[track_caller]
    pub fn control(&mut self, limit: Duration) -> Frame {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Frame::Binary(_) => {}
                other => return other,
            }
        }
    }
}
