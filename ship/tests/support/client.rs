//! A plain HTTP/1.1 client over the proved unix socket. Ship always sends a length, so this needs no chunks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, BaySide, CHALLENGE_LEN, Credentials};
use bay_ship_api::http::{PythonExecResponse, ShellExecResponse};
use serde_json::{Value, json};

pub struct Client {
    stream: BufReader<UnixStream>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// An error answer: its status and code.
pub type Refusal = (u16, String);

impl Answer {
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
    pub fn connect(socket: &Path, credentials: &Credentials) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
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
        assert_eq!(accepted[0], ACCEPTED);
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn raw(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.get_mut().write_all(request)?;
        self.answer()
    }

    /// Reads a head: status and text.
    fn head(&mut self) -> io::Result<(u16, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Ok((status, head))
    }

    /// The next chunk of a chunked body; empty at its end.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok(chunk)
    }

    pub fn answer(&mut self) -> io::Result<Answer> {
        let (status, head) = self.head()?;
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        let body = match length {
            Some(length) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                body
            }
            None => {
                let mut body = Vec::new();
                loop {
                    let chunk = self.chunk()?;
                    if chunk.is_empty() {
                        break body;
                    }
                    body.extend(chunk);
                }
            }
        };
        Ok(Answer { status, head, body })
    }

    /// Sends a request whose answer is a stream of events, to be read one by one.
    pub fn events(mut self, request: &str) -> Events {
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (status, head) = self.head().unwrap();
        assert_eq!(status, 200, "{head}");
        assert_eq!(field(&head, "content-type").as_deref(), Some("text/event-stream"));
        Events { client: self, text: String::new(), over: false }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// `headers` are whole lines, each with its line end.
    pub fn get_with(&mut self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: ship\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    pub fn post_bytes(&mut self, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: ship\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.post_bytes(path, body.to_string().as_bytes()).result()
    }

    pub fn python_within(&mut self, code: &str, timeout: u32) -> PythonExecResponse {
        let answer = self.post("/ipython/exec", &json!({"code": code, "timeout": timeout})).unwrap();
        serde_json::from_value(answer).unwrap()
    }

    pub fn python(&mut self, code: &str) -> PythonExecResponse {
        self.python_within(code, 60)
    }

    /// Runs code that must succeed; its output without the last line end.
    pub fn python_ok(&mut self, code: &str) -> String {
        let answer = self.python(code);
        assert!(answer.success, "{code}: {answer:?}");
        answer.output.trim_end_matches('\n').to_owned()
    }

    pub fn shell_with(&mut self, body: &Value) -> ShellExecResponse {
        serde_json::from_value(self.post("/shell/exec", body).unwrap()).unwrap()
    }

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
    /// Sends a request whose answer nobody reads yet.
    pub fn send(&mut self, request: &[u8]) {
        self.stream.get_mut().write_all(request).unwrap();
    }

    /// Sends and hangs up.
    pub fn send_only(mut self, request: &[u8]) {
        self.stream.get_mut().write_all(request).unwrap();
    }
}

/// A header's value.
pub fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: Option<u64>,
    pub name: String,
    pub data: Value,
}

/// The events of an answer, as they come. Ends where the body does.
pub struct Events {
    client: Client,
    text: String,
    over: bool,
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if block.starts_with(':') {
                    continue;
                }
                let line = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
                };
                return Some(Event {
                    id: line("id").map(|id| id.parse().unwrap()),
                    name: line("event").unwrap(),
                    data: serde_json::from_str(&line("data").unwrap()).unwrap(),
                });
            }
            if self.over {
                assert_eq!(self.text, "", "a broken event");
                return None;
            }
            let chunk = self.client.chunk().unwrap();
            self.over = chunk.is_empty();
            self.text.push_str(std::str::from_utf8(&chunk).expect("events never split a character"));
        }
    }
}
