//! What reads a kernel's sockets, as functions of bytes; see [`crate::fuzz`].

use super::message::{DELIMITER, Reader, Signer};
use super::output::Collector;
use super::zmtp::{Decoder, Piece, put_message};

/// The key of the kernel that is played.
const KEY: &str = "fuzz";

/// What one execution got out of a kernel's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Messages with a right signature.
    pub messages: usize,
    /// The text, as the answer would have it.
    pub output: String,
    /// Bundles and images.
    pub shown: usize,
    /// Something was left out.
    pub truncated: bool,
    /// The stream broke the framing, and the connection would be closed.
    pub broken: bool,
}

/// Frames and their bytes in a stream that arrives in pieces of `step` bytes; `None` when it breaks the framing.
pub fn frames(stream: &[u8], step: usize) -> Option<(u64, u64)> {
    let (mut decoder, mut frames, mut bytes) = (Decoder::default(), 0, 0);
    for piece in stream.chunks(step.max(1)) {
        let read = decoder.feed(piece, |piece| match piece {
            Piece::Begin { .. } => {}
            Piece::Data(data) => bytes += data.len() as u64,
            Piece::End { .. } => frames += 1,
        });
        read.ok()?;
    }
    Some((frames, bytes))
}

/// A message of these four parts as the kernel would send it: header, parent, metadata, content.
pub fn signed(parts: [&[u8]; 4]) -> Vec<u8> {
    let signature = Signer::new(KEY).sign(parts);
    let mut out = Vec::new();
    let [header, parent, metadata, content] = parts;
    put_message(&mut out, &[DELIMITER, signature.as_bytes(), header, parent, metadata, content]);
    out
}

/// Reads a kernel's stream that arrives in pieces of `step` bytes as one execution does.
pub fn kernel_stream(stream: &[u8], step: usize) -> Heard {
    let mut reader = Reader::new(Signer::new(KEY));
    let mut collector = Collector::new(None);
    let (mut messages, mut broken) = (0, false);
    for piece in stream.chunks(step.max(1)) {
        let read = reader.feed(piece, |message| {
            messages += 1;
            if message.kind.ends_with("_reply") {
                collector.reply(&message);
            } else {
                collector.iopub(&message);
            }
        });
        if read.is_err() {
            broken = true;
            break;
        }
    }
    let gathered = collector.finish();
    Heard {
        messages,
        shown: gathered.images.len() + gathered.results.len(),
        output: gathered.output,
        truncated: gathered.truncated,
        broken,
    }
}
