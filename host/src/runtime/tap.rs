//! Listens to a stream of server-sent events on its way to a client: passes everything on but the terminal event,
//! which is the host's to send once the end is recorded. Holds no more than an event's first lines.

use bytes::{Bytes, BytesMut};

/// Longest head of an event (its `id` and `event` lines), and longest comment.
const MAX_HEAD: usize = 4 << 10;

/// Most that is kept of what an `error` says.
const MAX_REFUSAL: usize = 64 << 10;

/// A stream that is none of server-sent events, or none that a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the runtime's events cannot be read")]
pub struct Garbled;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Within the lines before `data`.
    Head,
    /// Within what goes on to the client.
    Pass,
    /// Within the terminal event.
    Swallow,
}

/// What a stream has come to.
#[derive(Debug)]
pub struct Tap {
    mode: Mode,
    head: BytesMut,
    /// The last byte was a line feed: one more ends the event.
    fed: bool,
    last_id: u64,
    begun: bool,
    terminal: Option<u64>,
    /// What an `error` says, as far as it is kept.
    refusal: Option<Vec<u8>>,
}

impl Default for Tap {
    fn default() -> Self {
        Self {
            mode: Mode::Head,
            head: BytesMut::new(),
            fed: false,
            last_id: 0,
            begun: false,
            terminal: None,
            refusal: None,
        }
    }
}

impl Tap {
    /// Takes a piece of the stream; answers what of it is for the client.
    pub fn push(&mut self, piece: &[u8]) -> Result<Bytes, Garbled> {
        // To a client it would end a line, and what follows it could be an end that never was. JSON has none.
        if piece.contains(&b'\r') {
            return Err(Garbled);
        }
        let mut out = BytesMut::with_capacity(piece.len() + self.head.len());
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.mode {
                Mode::Head => self.head(rest, &mut out)?,
                Mode::Pass | Mode::Swallow => self.body(rest, &mut out)?,
            };
        }
        Ok(out.freeze())
    }

    /// The id of the terminal event, once it has come.
    pub fn terminal(&self) -> Option<u64> {
        self.terminal
    }

    /// What the terminal event says where it is an `error`: of work that was refused nobody else knows.
    pub fn refusal(&self) -> Option<&[u8]> {
        let event = self.refusal.as_deref()?;
        let lines = event.split(|b| *b == b'\n');
        lines.filter_map(|line| line.strip_prefix(b"data:")).next()
    }

    /// The highest id so far.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Whether `start` has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Up to the end of one line of a head.
    fn head<'p>(&mut self, rest: &'p [u8], out: &mut BytesMut) -> Result<&'p [u8], Garbled> {
        let line_starts = self.head.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let (line, after) = match rest.iter().position(|b| *b == b'\n') {
            Some(at) => rest.split_at(at + 1),
            // A line of data is long, and needs no end to be known.
            None => (rest, &rest[rest.len()..]),
        };
        let room = MAX_HEAD.saturating_sub(self.head.len());
        let is_data = |head: &BytesMut| head.get(line_starts..).is_some_and(|l| l.starts_with(b"data"));
        self.head.extend_from_slice(&line[..line.len().min(room)]);
        if is_data(&self.head) {
            self.decide()?;
            let kept = line.len().min(room);
            if self.mode == Mode::Pass {
                out.extend_from_slice(&self.head);
                out.extend_from_slice(&line[kept..]);
            }
            if let Some(refusal) = &mut self.refusal {
                refusal.extend_from_slice(&self.head);
                refusal.extend_from_slice(line[kept..].get(..MAX_REFUSAL).unwrap_or(&line[kept..]));
            }
            self.head.clear();
            self.fed = line.ends_with(b"\n");
            return Ok(after);
        }
        if line.len() > room {
            return Err(Garbled);
        }
        let whole = self.head.get(line_starts..).unwrap_or_default();
        if whole == b"\n" {
            // A comment, or an event without data: nothing that could be an end.
            out.extend_from_slice(&self.head);
            self.head.clear();
        }
        Ok(after)
    }

    /// What the event is, by its head.
    fn decide(&mut self) -> Result<(), Garbled> {
        if self.terminal.is_some() {
            return Err(Garbled);
        }
        let (mut name, mut id) = (None, None);
        for line in self.head[..].split(|b| *b == b'\n') {
            if let Some(text) = field(line, b"event:") {
                name = Some(text.to_owned());
            } else if let Some(text) = field(line, b"id:") {
                id = Some(text.parse::<u64>().map_err(|_| Garbled)?);
            }
        }
        self.last_id = id.unwrap_or(self.last_id).max(self.last_id);
        self.mode = match name.as_deref() {
            Some(end @ ("result" | "error")) => {
                self.terminal = Some(self.last_id);
                self.refusal = (end == "error").then(Vec::new);
                Mode::Swallow
            }
            other => {
                self.begun |= other == Some("start");
                Mode::Pass
            }
        };
        Ok(())
    }

    /// Up to the end of the event, which has one line of data and nothing after it.
    fn body<'p>(&mut self, rest: &'p [u8], out: &mut BytesMut) -> Result<&'p [u8], Garbled> {
        let mut end = None;
        for (at, byte) in rest.iter().enumerate() {
            let fed = *byte == b'\n';
            if fed && self.fed {
                end = Some(at + 1);
                break;
            }
            if self.fed {
                return Err(Garbled);
            }
            self.fed = fed;
        }
        let (event, after) = rest.split_at(end.unwrap_or(rest.len()));
        if self.mode == Mode::Pass {
            out.extend_from_slice(event);
        } else if let Some(refusal) = &mut self.refusal {
            let room = MAX_REFUSAL.saturating_sub(refusal.len());
            refusal.extend_from_slice(event.get(..room).unwrap_or(event));
        }
        if end.is_some() {
            self.mode = Mode::Head;
            self.fed = false;
        }
        Ok(after)
    }
}

fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l str> {
    let value = line.strip_prefix(name)?;
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 1\nevent: start\ndata: {\"execution_id\":\"x\"}\n\n: still here\n\n\
         id: 2\nevent: stdout\ndata: {\"text\":\"event: result ☃\"}\n\n\
         id: 3\nevent: result\ndata: {\"success\":true}\n\n";

    #[test]
    fn all_but_the_end_goes_on_however_it_is_cut() {
        let (passed, _) = STREAM.split_at(STREAM.find("id: 3").unwrap());
        for size in 1..STREAM.len() {
            let mut tap = Tap::default();
            let mut out = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                out.extend_from_slice(&tap.push(piece).unwrap());
            }
            assert_eq!(std::str::from_utf8(&out).unwrap(), passed, "{size}");
            assert_eq!((tap.terminal(), tap.last_id(), tap.has_begun()), (Some(3), 3, true), "{size}");
        }
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused_before_it_fills_anything() {
        let mut tap = Tap::default();
        assert_eq!(tap.push(&[b'x'; 2 * MAX_HEAD]), Err(Garbled));
        let mut tap = Tap::default();
        assert_eq!(tap.push(b"id: none\nevent: stdout\ndata: {}\n\n"), Err(Garbled));
        let mut tap = Tap::default();
        let long = [b"event: stdout\ndata: ".as_slice(), &[b'x'; 64 << 10], b"\n\n"].concat();
        assert_eq!(tap.push(&long).unwrap().len(), long.len(), "data may be long");
    }

    #[test]
    fn what_an_error_says_is_kept_however_it_is_cut() {
        let stream = b"id: 1\nevent: error\ndata: {\"error\":{\"code\":\"busy\"}}\n\n";
        for size in 1..stream.len() {
            let mut tap = Tap::default();
            for piece in stream.chunks(size) {
                assert!(tap.push(piece).unwrap().is_empty());
            }
            assert_eq!(tap.refusal(), Some(b" {\"error\":{\"code\":\"busy\"}}".as_slice()), "{size}");
        }
    }

    #[test]
    fn an_event_cannot_become_another_behind_its_data() {
        for forged in [
            "id: 2\ndata: {\"success\":true}\nevent: result\n\n",
            "event: stdout\ndata: {}\r\revent: result\rdata: {}\n\n",
            "event: stdout\r\ndata: {}\n\n",
            "event: stdout\ndata: {}\ndata: {}\n\n",
        ] {
            for size in 1..forged.len() {
                let mut tap = Tap::default();
                let mut out = Vec::new();
                let refused = forged.as_bytes().chunks(size).any(|piece| match tap.push(piece) {
                    Ok(passed) => {
                        out.extend_from_slice(&passed);
                        false
                    }
                    Err(Garbled) => true,
                });
                assert!(refused, "{forged:?} {size}");
                assert!(!String::from_utf8(out).unwrap().contains("result"), "{forged:?} {size}");
            }
        }
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut tap = Tap::default();
        tap.push(b"event: error\ndata: {}\n\n").unwrap();
        assert_eq!(tap.push(b"event: stdout\ndata: {}\n\n"), Err(Garbled));
    }
}
