//! Server-sent events, as they come.

use std::borrow::BorrowMut;
use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::connection::Body;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// From which a reader can resume.
    pub id: Option<String>,
    /// Such as `stdout` or `result`.
    pub name: String,
    /// One JSON object.
    pub data: Value,
}

/// The events of an answer. Ends with the stream; an item is an error when the stream breaks, sends what is no
/// event, or sends nothing until the deadline.
pub struct Events<C> {
    from: BufReader<Body<C>>,
    deadline: Instant,
    /// Lines that only keep proxies awake.
    pub comments: usize,
}

impl<C: BorrowMut<Client>> Events<C> {
    /// The events of an answer's body, all of which must have come by then.
    pub fn new(body: Body<C>, within: Duration) -> Self {
        Self { from: BufReader::new(body), deadline: Instant::now() + within, comments: 0 }
    }

    /// Another deadline, from now.
    pub fn within(&mut self, within: Duration) {
        self.deadline = Instant::now() + within;
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.from.get_ref().read_timeout(left)?;
            let read = match self.from.fill_buf() {
                // A time limit that passed a moment early is seen in the next round.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                other => other?,
            };
            if read.is_empty() {
                return if line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(read.len(), |end| end + 1);
            line.extend_from_slice(&read[..count]);
            self.from.consume(count);
            if end.is_some() {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return String::from_utf8(line).map(Some).map_err(io::Error::other);
            }
        }
    }

    fn event(&mut self) -> io::Result<Option<Event>> {
        let (mut id, mut name, mut data) = (None, String::new(), String::new());
        loop {
            let Some(line) = self.line()? else {
                let whole = id.is_none() && name.is_empty() && data.is_empty();
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            };
            if line.is_empty() {
                if !data.is_empty() {
                    let data = serde_json::from_str(&data)?;
                    return Ok(Some(Event { id, name, data }));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => id = Some(value.to_owned()),
                "event" => value.clone_into(&mut name),
                "data" => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                "retry" => {}
                other => return Err(io::Error::other(format!("{other:?} is no field of an event"))),
            }
        }
    }
}

impl<C: BorrowMut<Client>> Iterator for Events<C> {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

impl Client {
    /// Posts JSON and reads what comes as events, within a time.
    ///
    /// # Panics
    /// When the answer is no stream of events.
    pub fn events(&mut self, path: &str, body: &Value, within: Duration) -> Events<&mut Self> {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/json\r\n\
             accept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream_events(head.as_bytes(), within)
    }

    /// Sends a whole request and reads what comes as events, within a time.
    ///
    /// # Panics
    /// When the answer is no stream of events.
    pub fn stream_events(&mut self, request: &[u8], within: Duration) -> Events<&mut Self> {
        self.send(request).unwrap();
        let body = self.begin().unwrap();
        assert_eq!(body.status, 200, "{}", body.head);
        assert!(body.head.to_ascii_lowercase().contains("text/event-stream"), "{}", body.head);
        Events::new(body, within)
    }
}
