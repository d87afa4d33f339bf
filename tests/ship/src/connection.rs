//! One connection at work: the proof, requests as bytes, answers whose bodies are read as they come.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, BaySide, CHALLENGE_LEN, Credentials};

use crate::client::{Answer, Client};
use crate::place::Stream;
use crate::wire::{self, Framing};

/// Longest wait for the next bytes of an answer, unless said otherwise.
const ANSWER: Duration = Duration::from_secs(120);

/// Bytes of an upload sent at once.
const PIECE: usize = 256 << 10;

/// An answer whose body is read as it comes. Dropped before its end, the connection is of no more use.
pub struct Body<'c> {
    client: &'c mut Client,
    /// HTTP status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub(crate) framing: Framing,
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.framing.read(&mut self.client.stream, into)
    }
}

impl Body<'_> {
    /// Bounds each read from here on.
    pub fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.client.read_timeout(limit)
    }
}

impl Client {
    /// Speaks over a stream that both sides have proved.
    pub fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Bay's side of the handshake.
    pub fn prove(mut stream: Box<dyn Stream>, credentials: &Credentials) -> io::Result<Box<dyn Stream>> {
        stream.set_read_timeout(Some(ANSWER))?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|_| io::Error::other("random"))?;
        let side = BaySide::new(credentials, nonce);
        stream.write_all(&side.hello())?;
        let mut answer = [0; CHALLENGE_LEN];
        stream.read_exact(&mut answer)?;
        let proof = side.verify(&answer).map_err(io::Error::other)?;
        stream.write_all(&proof)?;
        let mut accepted = [0];
        stream.read_exact(&mut accepted)?;
        if accepted[0] == ACCEPTED { Ok(stream) } else { Err(io::Error::other("not accepted")) }
    }

    /// Sends a request whose answer nobody reads yet.
    pub fn send(&mut self, request: &[u8]) {
        self.try_send(request).unwrap();
    }

    /// Sends bytes, which the other side may not take.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads an answer to its end.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut body = self.begin()?;
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        let Body { status, head, .. } = body;
        Ok(Answer { status, head, body: bytes })
    }

    /// Reads the head of an answer; its body follows as it is read.
    pub fn begin(&mut self) -> io::Result<Body<'_>> {
        let head = wire::head(&mut self.stream)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
        let framing = Framing::of(&head)?;
        Ok(Body { client: self, status, head, framing })
    }

    /// Sends a body of this length as it is read, and reads the answer. An answer that comes before all was sent
    /// (a refusal) is read, too.
    pub fn upload_from(&mut self, path: &str, length: u64, from: impl Read) -> io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/octet-stream\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.try_send(head.as_bytes())?;
        let mut from = from.take(length);
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 {
                break;
            }
            match self.try_send(&piece[..count]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.answer()
    }

    /// Uploads `size` bytes of `block`, repeated.
    pub fn upload(&mut self, path: &str, block: &[u8], size: usize) -> Answer {
        self.upload_from(path, size as u64, Repeat { block, at: 0 }).unwrap()
    }

    /// Takes a download as it comes; what `each` does not keep is gone. Its length.
    pub fn download(&mut self, path: &str, mut each: impl FnMut(&[u8])) -> u64 {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: ship\r\n\r\n").as_bytes());
        let mut body = self.begin().unwrap();
        let (mut length, mut piece) = (0, vec![0; PIECE]);
        loop {
            let count = body.read(&mut piece).unwrap();
            if count == 0 {
                return length;
            }
            each(&piece[..count]);
            length += count as u64;
        }
    }

    /// Asks for what comes in chunks; the head. The body is read with [`Client::chunk`].
    pub fn get_stream(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: ship\r\n\r\n").as_bytes());
        wire::head(&mut self.stream).unwrap()
    }

    /// The next chunk; an empty one is the proper end, an error a broken one.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok(chunk)
    }

    /// Posts a body of any type; `headers` as in [`Client::get_with`].
    pub fn post_raw(&mut self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: ship\r\n{headers}content-length: {length}\r\n\r\n");
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
    }

    /// Says that nothing more is sent.
    pub fn end_of_sending(&self) -> io::Result<()> {
        self.stream.get_ref().end_of_sending()
    }

    /// Bounds each read from here on.
    pub fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(limit))
    }

    /// The proved connection itself, for what is not plain requests. Nothing may be left of an answer.
    pub fn into_stream(self) -> Box<dyn Stream> {
        assert!(self.stream.buffer().is_empty());
        self.stream.into_inner()
    }
}

/// A block, again and again.
struct Repeat<'a> {
    block: &'a [u8],
    at: usize,
}

impl Read for Repeat<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = &self.block[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at = (self.at + count) % self.block.len();
        Ok(count)
    }
}
