//! What Ship and the built-in interpreter loop say to each other, without I/O.
//!
//! A frame is four bytes of length (big endian), then `TOKEN KIND\nCONTENT`. The peer runs user code in its own
//! process, which can write to any descriptor there: whatever is no frame ends the conversation at once, before a
//! length that was never meant as one makes both sides wait.

use super::message::{Incoming, MAX_CONTENT};

/// Longest frame: what the loop sends at most, its head included.
const MAX_FRAME: usize = MAX_CONTENT;
/// Longest head: a token of 32 digits and a kind.
const MAX_HEAD: usize = 96;
/// Memory that stays for the next frame; more goes back.
const MAX_KEPT: usize = 64 << 10;

/// The peer sent what is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAFrame;

/// A frame with its token; `message` has the shape of the Jupyter message of the same kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) token: String,
    pub(super) message: Incoming,
}

/// The bytes of a request.
pub(super) fn encode(token: &str, kind: &str, content: &serde_json::Value) -> Vec<u8> {
    let body = format!("{token} {kind}\n{content}");
    // A request is bounded by HTTP's own bound, far below four bytes of length.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body.as_bytes()].concat()
}

/// Reads the peer's stream: bytes in, frames out.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Takes some bytes; calls `on` for each frame that is complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Frame)) -> Result<(), NotAFrame> {
        loop {
            let wanted = match self.buffer.first_chunk::<4>() {
                None => 4,
                Some(head) => match usize::try_from(u32::from_be_bytes(*head)) {
                    Ok(length) if length <= MAX_FRAME => 4 + length,
                    _ => return Err(NotAFrame),
                },
            };
            // Grows with what has come, never by what is announced.
            let take = wanted.saturating_sub(self.buffer.len()).min(bytes.len());
            let (now, rest) = bytes.split_at(take);
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() < wanted {
                return Ok(());
            }
            if wanted > 4 {
                on(parse(&self.buffer[4..])?);
                self.buffer.clear();
                self.buffer.shrink_to(MAX_KEPT);
            } else if self.buffer == [0; 4] {
                return Err(NotAFrame);
            }
        }
    }
}

fn parse(body: &[u8]) -> Result<Frame, NotAFrame> {
    let end = body.iter().take(MAX_HEAD).position(|byte| *byte == b'\n').ok_or(NotAFrame)?;
    let head = std::str::from_utf8(&body[..end]).map_err(|_| NotAFrame)?;
    let (token, kind) = head.split_once(' ').ok_or(NotAFrame)?;
    Ok(Frame { token: token.to_owned(), message: Incoming::of(kind, body[end + 1..].to_vec()) })
}

/// Text that comes in pieces which may end inside a character.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The beginning of a character, at most three bytes.
    open: Vec<u8>,
}

impl Pieces {
    /// The text so far unread; what is not UTF-8 is replaced, an open end waits for the next piece.
    pub(super) fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.open);
        all.extend_from_slice(bytes);
        let tail = all.utf8_chunks().last().map_or(0, |chunk| {
            let invalid = chunk.invalid();
            // Only what could still become a character: such a rest is valid as far as it goes.
            let open = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if open { invalid.len() } else { 0 }
        });
        self.open = all.split_off(all.len() - tail);
        String::from_utf8_lossy(&all).into_owned()
    }

    /// What is left when nothing more comes.
    pub(super) fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.open)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(stream: &[u8], step: usize) -> Result<Vec<Frame>, NotAFrame> {
        let (mut reader, mut found) = (FrameReader::default(), Vec::new());
        for chunk in stream.chunks(step) {
            reader.feed(chunk, |frame| found.push(frame))?;
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_survive_however_the_stream_is_cut(texts in prop::collection::vec("\\PC{0,80}", 0..6), step in 1usize..90) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| encode("t0", "stream", &json!({"text": text}))).collect();
            let frames = read(&stream, step).unwrap();
            let got: Vec<String> = frames
                .iter()
                .map(|frame| frame.message.content::<Value>().unwrap()["text"].as_str().unwrap().to_owned())
                .collect();
            prop_assert_eq!(got, texts);
            prop_assert!(frames.iter().all(|frame| frame.token == "t0" && frame.message.kind == "stream"));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_harm(bytes: Vec<u8>, step in 1usize..9) {
            let _ = read(&bytes, step);
        }

        #[test]
        fn text_survives_however_it_is_cut(text in "\\PC{0,60}", step in 1usize..5) {
            let mut pieces = Pieces::default();
            let mut got: String = text.as_bytes().chunks(step).map(|chunk| pieces.text(chunk)).collect();
            got.push_str(&pieces.rest());
            prop_assert_eq!(got, text);
        }

        #[test]
        fn any_bytes_become_the_text_that_they_are_at_once(bytes: Vec<u8>, step in 1usize..5) {
            let mut pieces = Pieces::default();
            let mut got: String = bytes.chunks(step).map(|chunk| pieces.text(chunk)).collect();
            got.push_str(&pieces.rest());
            prop_assert_eq!(got, String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    #[test]
    fn words_meant_for_another_descriptor_are_no_frame() {
        for stray in [&b"hello, world\n"[..], b"\0\0\0\0", b"\0\0\0\x05hello", b"\xff\xff\xff\xff"] {
            assert_eq!(read(stray, 3), Err(NotAFrame), "{stray:?}");
        }
    }
}
