//! A plain HTTP/1.1 client over the proved unix socket. Ship always sends a length, so this needs no chunks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bay_ship_api::handshake::{ACCEPTED, BaySide, CHALLENGE_LEN, Credentials};
use bay_ship_api::http::{KernelStatus, PythonExecResponse, ShellExecResponse};
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

    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
            .and_then(|length| length.parse().ok())
            .unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, head, body })
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

    pub fn delete(&mut self, path: &str) -> Answer {
        self.raw(format!("DELETE {path} HTTP/1.1\r\nhost: ship\r\n\r\n").as_bytes()).unwrap()
    }

    /// The Python kernel's status.
    pub fn kernel(&mut self) -> KernelStatus {
        serde_json::from_value(self.get("/ipython/kernel/status").result().unwrap()).unwrap()
    }

    pub fn restart(&mut self) -> Result<KernelStatus, Refusal> {
        self.post_bytes("/ipython/kernel/restart", b"").result().map(|v| serde_json::from_value(v).unwrap())
    }

    pub fn stop(&mut self) -> Result<KernelStatus, Refusal> {
        self.delete("/ipython/kernel").result().map(|v| serde_json::from_value(v).unwrap())
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
    /// Sends and hangs up.
    pub fn send_only(mut self, request: &[u8]) {
        self.stream.get_mut().write_all(request).unwrap();
    }
}
