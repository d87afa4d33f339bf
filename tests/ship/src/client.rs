//! A plain HTTP/1.1 client over a proved stream.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bay_ship_api::handshake::Credentials;
use bay_ship_api::http::{PythonExecResponse, ShellExecResponse};
use serde_json::{Value, json};

use crate::place::Stream;

pub use crate::events::{Event, Events};
pub use crate::wire::field;

/// One connection.
pub struct Client {
    pub(crate) stream: BufReader<Box<dyn Stream>>,
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

/// An error answer: its status and code.
pub type Refusal = (u16, String);

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        field(&self.head, name)
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

    /// Sends a whole request and reads the whole answer.
    pub fn raw(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.try_send(request)?;
        self.answer()
    }

    /// Asks for what comes in chunks; the head. The body is read with [`Client::chunk`].
    pub fn get_stream(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: ship\r\n\r\n").as_bytes());
        self.begin().unwrap().head
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

    /// Posts a body of any type, `headers` as in [`Client::get_with`].
    pub fn post_with(&mut self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: ship\r\n{headers}content-length: {length}\r\n\r\n");
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
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
        self.send(request);
    }
}
