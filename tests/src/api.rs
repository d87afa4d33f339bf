//! Bay's REST API as the tests speak it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::form;
use crate::http::{self, Request, Response};

/// How long a call may take unless the test says otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// Speaks to one Bay as one principal.
#[derive(Debug, Clone)]
pub struct Client {
    addr: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    /// With a key, or with none.
    pub fn new(addr: SocketAddr, key: Option<&str>) -> Self {
        let client = Self { addr, headers: vec![("Host".into(), addr.to_string())] };
        match key {
            Some(key) => client.with("Authorization", &format!("Bearer {key}")),
            None => client,
        }
    }

    /// The same with a header set (instead of one of that name).
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.without(name);
        client.headers.push((name.into(), value.into()));
        client
    }

    /// The same without a header.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let headers = self.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).cloned().collect();
        Self { addr: self.addr, headers }
    }

    /// Where Bay listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts a call. `target` goes out as it is written.
    pub fn call(&self, method: &str, target: &str) -> Call {
        let request = Request {
            method: method.into(),
            target: target.into(),
            headers: self.headers.clone(),
            body: None,
        };
        Call { addr: self.addr, request, limit: LIMIT }
    }

    /// A GET.
    pub fn get(&self, target: &str) -> Call {
        self.call("GET", target)
    }

    /// A POST of JSON.
    pub fn post(&self, target: &str, body: &Value) -> Call {
        self.call("POST", target).json(body)
    }

    /// Makes a sandbox; it is deleted when the value goes out of scope.
    #[track_caller]
    pub fn sandbox(&self, body: Value) -> Sandbox {
        let made = self.post("/v1/sandboxes", &body).send().expect(201);
        let id = made["id"].as_str().unwrap_or_default().to_owned();
        assert!(form::is_id("sbx_", &id), "{made}");
        Sandbox {
            client: self.clone(),
            id,
            locker: made["locker_id"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Every item of a list, page by page.
    #[track_caller]
    pub fn list(&self, target: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..1000 {
            let mut call = self.get(target).query("limit", "200");
            if let Some(cursor) = &cursor {
                call = call.query("cursor", cursor);
            }
            let page = call.send().expect(200);
            items.extend(page["items"].as_array().expect("`items` is a list").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return items,
            }
        }
        panic!("a list of more than 1000 pages");
    }
}

/// A request being put together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Call {
    addr: SocketAddr,
    request: Request,
    limit: Duration,
}

impl Call {
    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let sign = if self.request.target.contains('?') { '&' } else { '?' };
        let pair = format!("{sign}{}={}", http::encode(name), http::encode(value));
        self.request.target.push_str(&pair);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sets any body.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.request.headers.push(("Content-Type".into(), content_type.into()));
        self.request.body = Some(body.into());
        self
    }

    /// How long the call may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends it and checks what holds for every answer.
    #[track_caller]
    pub fn send(self) -> Response {
        let what = format!("{} {}", self.request.method, self.request.target);
        let response = self.try_send().unwrap_or_else(|e| panic!("{what}: {e}"));
        form::check(&response);
        response
    }

    /// Sends it; the connection may fail, and nothing is checked.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub fn try_send(self) -> std::io::Result<Response> {
        http::send(self.addr, &self.request, self.limit)
    }

    /// Sends it and does not read the answer; dropping the stream is a client that went away.
    #[track_caller]
    pub fn send_and_leave_unread(self) -> std::net::TcpStream {
        let deadline = Instant::now() + self.limit;
        http::open(self.addr, &self.request, deadline).expect("send a request")
    }

    /// Sends it; the answer must be this error. Returns the error.
    #[track_caller]
    pub fn error(self, status: u16, code: &str) -> Value {
        let response = self.send();
        let body = response.expect(status);
        assert_eq!(body["error"]["code"], code, "{}: {body}", response.asked);
        body["error"].clone()
    }

    /// Sends it; the answer must be a `validation_error` about exactly these fields. A part of a field
    /// (`env.1x`, `labels[3]`) counts as the field.
    #[track_caller]
    pub fn bad_fields(self, fields: &[&str]) {
        let error = self.error(400, "validation_error");
        let errors = error["details"]["errors"].as_array().cloned().unwrap_or_default();
        let mut named: Vec<_> = errors
            .iter()
            .map(|e| e["field"].as_str().unwrap_or_default())
            .map(|f| f.split(['.', '[', '/']).find(|p| !p.is_empty()).unwrap_or_default())
            .collect();
        named.sort_unstable();
        named.dedup();
        let mut wanted = fields.to_vec();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{error}");
        assert!(errors.iter().all(|e| e["message"].as_str().is_some_and(|m| !m.is_empty())), "{error}");
    }
}

/// A sandbox that is deleted when it goes out of scope.
#[derive(Debug)]
pub struct Sandbox {
    client: Client,
    /// `sbx_…`
    pub id: String,
    /// `lkr_…`
    pub locker: String,
}

impl Sandbox {
    /// The same sandbox on a Bay that was started again, which may listen elsewhere.
    pub fn again(client: &Client, mut before: Self) -> Self {
        before.client = client.clone();
        before
    }

    /// A call beneath the sandbox; an empty `tail` is the sandbox itself.
    pub fn call(&self, method: &str, tail: &str) -> Call {
        let slash = if tail.is_empty() || tail.starts_with('?') { "" } else { "/" };
        self.client.call(method, &format!("/v1/sandboxes/{}{slash}{tail}", self.id))
    }

    /// A POST of JSON beneath the sandbox.
    pub fn post(&self, tail: &str, body: &Value) -> Call {
        self.call("POST", tail).json(body)
    }

    /// The object.
    #[track_caller]
    pub fn show(&self) -> Value {
        self.call("GET", "").send().expect(200)
    }

    /// Waits until it is ready.
    #[track_caller]
    pub fn ready(&self) -> Value {
        let shown = self.call("GET", "?wait=ready&timeout=45").send().expect(200);
        assert_eq!(shown["status"], "ready", "{shown}");
        shown
    }

    /// Runs Python; the whole answer.
    #[track_caller]
    pub fn python(&self, code: &str) -> Value {
        self.post("python/exec", &json!({ "code": code })).send().expect(200)
    }

    /// Runs Python that must succeed; the text it printed.
    #[track_caller]
    pub fn python_ok(&self, code: &str) -> String {
        let ran = self.python(code);
        assert_eq!(ran["success"], true, "{code}: {ran}");
        ran["output"].as_str().unwrap_or_default().trim_end().to_owned()
    }

    /// Runs a command; the whole answer.
    #[track_caller]
    pub fn shell(&self, command: &str) -> Value {
        self.post("shell/exec", &json!({ "command": command })).send().expect(200)
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn shell_ok(&self, command: &str) -> String {
        let ran = self.shell(command);
        assert_eq!(ran["success"], true, "{command}: {ran}");
        ran["stdout"].as_str().unwrap_or_default().trim_end().to_owned()
    }

    /// Writes a text file.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) -> Value {
        self.write_with(json!({ "path": path, "content": content })).send().expect(200)
    }

    /// Writes bytes.
    #[track_caller]
    pub fn write_bytes(&self, path: &str, content: &[u8]) -> Value {
        let content = base64::engine::general_purpose::STANDARD.encode(content);
        self.write_with(json!({ "path": path, "content": content, "encoding": "base64" })).send().expect(200)
    }

    /// A write with any fields.
    pub fn write_with(&self, body: Value) -> Call {
        self.call("PUT", "filesystem/files").json(&body)
    }

    /// A read of a file.
    pub fn file(&self, path: &str) -> Call {
        self.call("GET", "filesystem/files").query("path", path)
    }

    /// The text of a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        self.file(path).send().expect(200)["content"].as_str().unwrap_or_default().to_owned()
    }

    /// A listing of a directory.
    pub fn dir(&self, path: &str) -> Call {
        self.call("GET", "filesystem/directories").query("path", path)
    }

    /// A removal of a file or directory.
    pub fn remove(&self, path: &str) -> Call {
        self.call("DELETE", "filesystem/files").query("path", path)
    }

    /// A download.
    pub fn download(&self, path: &str) -> Call {
        self.call("GET", "filesystem/download").query("path", path)
    }

    /// Shows that it still works: another's trouble did not reach it.
    #[track_caller]
    pub fn unharmed(&self) {
        assert_eq!(self.shell_ok("echo still here"), "still here");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A failure shows where it matters: `Bay` looks for what is left behind.
        let _ = self.call("DELETE", "").limit(Duration::from_secs(20)).try_send();
    }
}
