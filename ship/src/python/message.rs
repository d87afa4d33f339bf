//! Jupyter messages: framing and signatures, without I/O.
//!
//! On the wire a message is `[anything…] <IDS|MSG> signature header parent metadata content [buffers…]`, signed
//! with HMAC-SHA-256 over the four JSON parts. Parts beyond their bound are hashed as they pass, and only their
//! beginning is kept.

use std::time::SystemTime;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::Sha256;

use super::zmtp::{self, Decoder, NotZmtp, Piece};
use crate::text::rfc3339;

pub(super) const DELIMITER: &[u8] = b"<IDS|MSG>";
/// Kept of a header, a parent or metadata.
const MAX_HEAD: usize = 64 << 10;
/// Kept of a content: a large plot fits; a longer text is shown cut.
pub(super) const MAX_CONTENT: usize = 6 << 20;

/// The four JSON parts, in order.
const HEADER: usize = 0;
const PARENT: usize = 1;
const CONTENT: usize = 3;

/// Signs and checks with one kernel's key.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
}

impl Signer {
    /// The key's text, as in the connection file.
    pub(crate) fn new(key: &str) -> Self {
        // HMAC takes keys of any length.
        let mac = Hmac::new_from_slice(key.as_bytes()).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { mac }
    }

    /// The signature of a message's four JSON parts, as it stands on the wire.
    pub(super) fn sign(&self, parts: [&[u8]; 4]) -> String {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part));
        hex(&mac.finalize().into_bytes())
    }
}

/// A message to the kernel.
pub(crate) struct Outgoing<'a> {
    pub(crate) id: &'a str,
    pub(crate) session: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) content: &'a Value,
}

impl Outgoing<'_> {
    /// The bytes for a DEALER socket.
    pub(crate) fn encode(&self, signer: &Signer) -> Vec<u8> {
        let header = json!({
            "msg_id": self.id, "session": self.session, "username": "bay", "msg_type": self.kind,
            "version": "5.3", "date": rfc3339(SystemTime::now()),
        })
        .to_string();
        let content = self.content.to_string();
        let parts = [header.as_bytes(), b"{}", b"{}", content.as_bytes()];
        let signature = signer.sign(parts);
        let mut out = Vec::with_capacity(content.len() + 512);
        let [header, parent, metadata, content] = parts;
        zmtp::put_message(&mut out, &[DELIMITER, signature.as_bytes(), header, parent, metadata, content]);
        out
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |d: &u8| (*d as char).to_digit(16).map(|d| d as u8);
    text.chunks(2).map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[derive(Debug, Default, Deserialize)]
struct Header {
    #[serde(default)]
    msg_id: String,
    #[serde(default)]
    msg_type: String,
}

/// A message from the kernel whose signature was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// For instance `stream`.
    pub(crate) kind: String,
    /// Id of the request it belongs to; empty for none.
    pub(crate) parent: String,
    content: Vec<u8>,
    /// The content was longer than is kept.
    pub(crate) cut: bool,
}

impl Incoming {
    /// A message that came another way than signed: of this kind, with this JSON as content.
    pub(super) fn of(kind: &str, content: Vec<u8>) -> Self {
        Self { kind: kind.to_owned(), parent: String::new(), content, cut: false }
    }

    /// Reads the content; what is not UTF-8 in it is replaced.
    pub(crate) fn content<T: DeserializeOwned>(&self) -> Option<T> {
        lenient(&self.content)
    }

    /// Whether a reply whose content was cut says "ok", which stands at its beginning.
    pub(crate) fn cut_reply_is_ok(&self) -> bool {
        let start = String::from_utf8_lossy(&self.content[..self.content.len().min(64)]).replace(' ', "");
        start.starts_with("{\"status\":\"ok\"")
    }

    /// The beginning of a stream's text when its message was cut: closes the JSON that the cut left open.
    pub(crate) fn cut_stream(&self) -> Option<(String, String)> {
        #[derive(Deserialize)]
        struct Stream {
            name: String,
            text: String,
        }
        let mut bytes = self.content.clone();
        // A cut inside an escape (at most `\u` and eleven more, for a pair) leaves no valid string: back off.
        for _ in 0..16 {
            let mut closed = String::from_utf8_lossy(&bytes).into_owned();
            if closed.ends_with(char::REPLACEMENT_CHARACTER) {
                closed.pop();
            }
            closed.push_str("\"}");
            if let Ok(stream) = serde_json::from_str::<Stream>(&closed) {
                return Some((stream.name, stream.text));
            }
            bytes.pop();
        }
        None
    }
}

fn lenient<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Some(value),
        Err(_) => serde_json::from_str(&String::from_utf8_lossy(bytes)).ok(),
    }
}

/// Where in a message the reader is.
#[derive(Default)]
enum Stage {
    #[default]
    Identities,
    Signature,
    /// This one of the four parts.
    Part(usize),
    Buffers,
}

/// Reads a kernel's stream: bytes in, authentic messages out.
pub(crate) struct Reader {
    decoder: Decoder,
    signer: Signer,
    stage: Stage,
    in_command: bool,
    mac: Option<Hmac<Sha256>>,
    frame: Vec<u8>,
    signature: Vec<u8>,
    parts: [Vec<u8>; 4],
    cut: bool,
}

impl Reader {
    pub(crate) fn new(signer: Signer) -> Self {
        Self {
            decoder: Decoder::default(),
            signer,
            stage: Stage::Identities,
            in_command: false,
            mac: None,
            frame: Vec::new(),
            signature: Vec::new(),
            parts: Default::default(),
            cut: false,
        }
    }

    /// Reads some bytes; calls `on` for each complete message whose signature is right. Others are dropped, as are
    /// the peer's commands: we announced no heartbeats and ask for nothing.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Incoming)) -> Result<(), NotZmtp> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let result = decoder.feed(bytes, |piece| match piece {
            Piece::Begin { command } => self.in_command = command,
            Piece::Data(_) | Piece::End { .. } if self.in_command => {}
            Piece::Data(data) => self.data(data),
            Piece::End { last } => {
                self.end_of_frame();
                if last {
                    if let Some(message) = self.complete() {
                        on(message);
                    }
                    self.reset();
                }
            }
        });
        self.decoder = decoder;
        result
    }

    fn data(&mut self, data: &[u8]) {
        let (keep, limit) = match self.stage {
            Stage::Identities | Stage::Signature => (&mut self.frame, 256),
            Stage::Part(part) => {
                if let Some(mac) = &mut self.mac {
                    mac.update(data);
                }
                (&mut self.parts[part], if part == CONTENT { MAX_CONTENT } else { MAX_HEAD })
            }
            Stage::Buffers => return,
        };
        let room = limit - keep.len().min(limit);
        if data.len() > room {
            self.cut |= matches!(self.stage, Stage::Part(CONTENT));
        }
        keep.extend_from_slice(&data[..data.len().min(room)]);
    }

    fn end_of_frame(&mut self) {
        self.stage = match self.stage {
            Stage::Identities if self.frame == DELIMITER => Stage::Signature,
            Stage::Identities => Stage::Identities,
            Stage::Signature => {
                self.signature = std::mem::take(&mut self.frame);
                self.mac = Some(self.signer.mac.clone());
                Stage::Part(HEADER)
            }
            Stage::Part(CONTENT) | Stage::Buffers => Stage::Buffers,
            Stage::Part(part) => Stage::Part(part + 1),
        };
        self.frame.clear();
    }

    fn complete(&mut self) -> Option<Incoming> {
        if !matches!(self.stage, Stage::Buffers) {
            return None;
        }
        self.mac.take()?.verify_slice(&unhex(&self.signature)?).ok()?;
        let header: Header = lenient(&self.parts[HEADER])?;
        let parent: Header = lenient(&self.parts[PARENT])?;
        let content = std::mem::take(&mut self.parts[CONTENT]);
        Some(Incoming { kind: header.msg_type, parent: parent.msg_id, content, cut: self.cut })
    }

    fn reset(&mut self) {
        self.stage = Stage::Identities;
        self.mac = None;
        self.cut = false;
        self.frame.clear();
        self.signature.clear();
        for part in &mut self.parts {
            // A large part's memory goes back; small ones are reused.
            if part.capacity() > MAX_HEAD {
                *part = Vec::new();
            }
            part.clear();
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
