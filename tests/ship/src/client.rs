//! A plain HTTP/1.1 client over a proved stream.

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, BaySide, CHALLENGE_LEN, Credentials};
use bay_ship_api::http::{PythonExecResponse, ShellExecResponse};
use serde_json::{Value, json};

use crate::place::Stream;
use crate::wire::{self, Framing};

/// Longest wait for the next bytes of an answer, unless said otherwise.
const ANSWER: Duration = Duration::from_secs(120);

/// Bytes of an upload sent at once.
const PIECE: usize = 256 << 10;

/// One connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

/// An answer whose body is read as it comes. Dropped before its end, the connection is of no more use.
pub struct Body<'c> {
    client: &'c mut Client,
    /// HTTP status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    framing: Framing,
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

/// An error answer: its status and code.
pub type Refusal = (u16, String);

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        wire::header(&self.head, name)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The value, or status and code of the error.
    pub fn result(&self) -> Result<Value, Refusal> {
        match self.status {
            200 | 206 => Ok(self.json()),
            status => Err((status, self.json()["error"]["code"].as_str().unwrap().to_owned())),
        }
    }
}

impl Client {
    /// Connects to a socket of this machine and proves itself.
    pub fn connect(socket: &Path, credentials: &Credentials) -> io::Result<Self> {
        Ok(Self::over(Self::prove(Box::new(UnixStream::connect(socket)?), credentials)?))
    }

    /// Speaks over a stream that both sides have proved.
    pub fn over(stream: Box<dyn Stream>) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Bay's side of the handshake.
    pub fn prove(mut stream: Box<dyn Stream>, credentials: &Credentials) -> io::Result<Box<dyn Stream>> {
        stream.read_timeout(Some(ANSWER))?;
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

    /// Sends a whole request and reads the whole answer.
    pub fn raw(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    /// Sends bytes and reads nothing.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
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
    pub fn upload(&mut self, path: &str, length: u64, from: impl Read) -> io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/octet-stream\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.send(head.as_bytes())?;
        let mut from = from.take(length);
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece)?;
            if count == 0 {
                break;
            }
            match self.send(&piece[..count]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.answer()
    }

    /// Says that nothing more is sent.
    pub fn end_of_sending(&self) -> io::Result<()> {
        self.stream.get_ref().end_of_sending()
    }

    /// Bounds each read from here on.
    pub fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.stream.get_ref().read_timeout(Some(limit))
    }

    /// The bare stream, for what is not HTTP. Nothing may be left of an answer.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.stream.into_inner()
    }

    /// Asks without headers of its own.
    pub fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// `headers` are whole lines, each with its line end.
    pub fn get_with(&mut self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: ship\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    /// Posts a body that says it is JSON.
    pub fn post_bytes(&mut self, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
    }

    /// Posts JSON; the value, or status and code of the error.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.post_bytes(path, body.to_string().as_bytes()).result()
    }

    /// Runs code.
    pub fn python_within(&mut self, code: &str, timeout: u32) -> PythonExecResponse {
        let answer = self.post("/ipython/exec", &json!({"code": code, "timeout": timeout})).unwrap();
        serde_json::from_value(answer).unwrap()
    }

    /// Runs code, for a minute at most.
    pub fn python(&mut self, code: &str) -> PythonExecResponse {
        self.python_within(code, 60)
    }

    /// Runs code that must succeed; its output without the last line end.
    pub fn python_ok(&mut self, code: &str) -> String {
        let answer = self.python(code);
        assert!(answer.success, "{code}: {answer:?}");
        answer.output.trim_end_matches('\n').to_owned()
    }

    /// Runs a command with all fields of its request.
    pub fn shell_with(&mut self, body: &Value) -> ShellExecResponse {
        serde_json::from_value(self.post("/shell/exec", body).unwrap()).unwrap()
    }

    /// Runs a command, for a minute at most.
    pub fn shell(&mut self, command: &str) -> ShellExecResponse {
        self.shell_with(&json!({"command": command, "timeout": 60}))
    }

    /// Runs a command that must succeed; its stdout without the last line end.
    pub fn shell_ok(&mut self, command: &str) -> String {
        let answer = self.shell(command);
        assert!(answer.success, "{command}: {answer:?}");
        answer.stdout.trim_end_matches('\n').to_owned()
    }
}

impl Client {
    /// Sends and hangs up.
    pub fn send_only(mut self, request: &[u8]) {
        self.send(request).unwrap();
    }
}
