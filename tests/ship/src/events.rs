//! Server-sent events, as they come.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::client::{Client, field};
use crate::wire::Framing;

/// Read at once.
const PIECE: usize = 16 << 10;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// From which a reader can resume.
    pub id: Option<u64>,
    /// Such as `stdout` or `result`.
    pub name: String,
    /// One JSON object.
    pub data: Value,
}

/// The events of an answer. Ends where the body does; fails the test when the stream breaks, sends what is no event,
/// or sends none until the deadline.
pub struct Events {
    client: Client,
    framing: Framing,
    text: Vec<u8>,
    deadline: Instant,
    /// Lines that only keep proxies awake.
    pub comments: usize,
}

impl Events {
    /// Another deadline, from now, for all that still comes.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.deadline = Instant::now() + time;
        self
    }

    /// The next event, or none at the end of the body.
    ///
    /// # Errors
    /// The stream broke, said what is no event, or said none in time.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            let end = self.text.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                let block = String::from_utf8(block).map_err(io::Error::other)?;
                if let Some(event) = self.block(&block)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.client.read_timeout(left)?;
            let mut piece = [0; PIECE];
            match self.framing.read(&mut self.client.stream, &mut piece) {
                // A time limit that passed a moment early is seen in the next round.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) if self.text.is_empty() => return Ok(None),
                Ok(0) => return Err(io::Error::other("a broken event")),
                read => self.text.extend_from_slice(&piece[..read?]),
            }
        }
    }

    /// A block of lines: an event, or only a comment.
    fn block(&mut self, block: &str) -> io::Result<Option<Event>> {
        let (mut id, mut name, mut data) = (None, None, None);
        for line in block.lines().filter(|line| !line.is_empty()) {
            if line.starts_with(':') {
                self.comments += 1;
                continue;
            }
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", value) => id = Some(value.parse().map_err(io::Error::other)?),
                ("event", value) => name = Some(value.to_owned()),
                ("data", value) => data = Some(serde_json::from_str(value)?),
                (other, _) => return Err(io::Error::other(format!("{other:?} is no field of an event"))),
            }
        }
        match (name, data) {
            (Some(name), Some(data)) => Ok(Some(Event { id, name, data })),
            (None, None) => Ok(None),
            _ => Err(io::Error::other(format!("half an event: {block:?}"))),
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_event().unwrap()
    }
}

impl Client {
    /// Sends a request whose answer is a stream of events, to be read one by one.
    pub fn events(mut self, request: &str) -> Events {
        self.send(request.as_bytes());
        let body = self.begin().unwrap();
        assert_eq!(body.status, 200, "{}", body.head);
        assert_eq!(field(&body.head, "content-type").as_deref(), Some("text/event-stream"));
        let framing = body.framing;
        Events { client: self, framing, text: Vec::new(), deadline: Instant::now() + PATIENCE, comments: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn said(body: &str, within: Duration) -> Vec<io::Result<Option<Event>>> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        theirs.write_all(head.as_bytes()).unwrap();
        for piece in body.as_bytes().chunks(5) {
            write!(theirs, "{:x}\r\n", piece.len()).unwrap();
            theirs.write_all(piece).unwrap();
            theirs.write_all(b"\r\n").unwrap();
        }
        let keep = body.contains("MORE").then(|| theirs.try_clone().unwrap());
        if !body.contains("BREAK") && keep.is_none() {
            theirs.write_all(b"0\r\n\r\n").unwrap();
        }
        drop(theirs);
        let mut events = Client::over(Box::new(ours)).events("").within(within);
        let mut all = Vec::new();
        loop {
            all.push(events.next_event());
            if !matches!(all.last(), Some(Ok(Some(_)))) {
                return all;
            }
        }
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let body =
            ":\n\nid: 7\nevent: stdout\ndata: {\"text\":\"é\"}\n\n: awake\n\nevent: result\ndata: {}\n\n";
        let all = said(body, PATIENCE);
        let first = all[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!((first.id, first.name.as_str()), (Some(7), "stdout"));
        assert_eq!(first.data["text"], "é");
        assert!(all.len() == 3 && matches!(all[2], Ok(None)), "{all:?}");
    }

    #[test]
    fn a_stream_that_breaks_or_says_nothing_is_told_from_one_that_ends() {
        assert!(said("event: BREAK\ndata: {}\n\n", PATIENCE)[1].is_err());
        assert!(said("event: half\ndata: {}\n", PATIENCE)[0].is_err());
        assert!(said("event: nothing\n\n", PATIENCE)[0].is_err());
        let late = said("event: MORE\ndata: {}\n\n", Duration::from_millis(50));
        assert_eq!(late[1].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
