//! An answer that is read while it comes.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long one read waits before the deadline is looked at again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A connection on which an answer is coming.
#[derive(Debug)]
pub struct Live {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Live {
    /// From what [`crate::api::Call::send_and_leave_unread`] returned.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Self { stream, seen: Vec::new() }
    }

    /// Reads until a text has come; what came before it, and it, are taken.
    #[track_caller]
    pub fn until(&mut self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.seen.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                let taken: Vec<u8> = self.seen.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let came = || String::from_utf8_lossy(&self.seen).into_owned();
            assert!(Instant::now() < deadline, "`{text}` did not come; this did: {}", came());
            if self.more() == Some(0) {
                panic!("the connection ended before `{text}`: {}", String::from_utf8_lossy(&self.seen));
            }
        }
    }

    /// Reads to the end and returns how many bytes came in all, what was taken left out.
    #[track_caller]
    pub fn count_to_end(&mut self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let mut count = 0;
        loop {
            count += std::mem::take(&mut self.seen).len();
            assert!(Instant::now() < deadline, "not at an end after {count} bytes");
            if self.more() == Some(0) {
                return count;
            }
        }
    }

    /// Bytes read; `None` where nothing came for a moment.
    fn more(&mut self) -> Option<usize> {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.seen.extend_from_slice(chunk.get(..count).unwrap_or_default());
                Some(count)
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(_) => Some(0),
        }
    }
}
