//! The Docker engine of the tests, spoken to over its socket, so that a test can do to a container what a person might
//! do by hand.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Request, Response, encode};

/// How long one request may take. Generous: an engine that removes many containers at once is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// An engine on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The one that `BAY_TEST_DOCKER_HOST` names. A test that needs one and has none fails.
    pub fn of_tests() -> Self {
        Self::at(&Self::host())
    }

    /// What `BAY_TEST_DOCKER_HOST` says.
    pub fn host() -> String {
        let host = std::env::var("BAY_TEST_DOCKER_HOST").unwrap_or_default();
        assert!(
            !host.is_empty(),
            "BAY_TEST_DOCKER_HOST names no Docker engine (unix:///PATH); `cargo xtask test` starts one"
        );
        host
    }

    /// Another one, by its `unix://` address.
    pub fn at(host: &str) -> Self {
        let socket = host.strip_prefix("unix://");
        let socket = socket.unwrap_or_else(|| panic!("{host} is not unix:///PATH, which tests need"));
        Self { socket: socket.into() }
    }

    /// Whether it is there.
    pub fn answers(&self) -> bool {
        self.ask("GET", "/_ping", None).is_ok_and(|answer| answer.status == 200)
    }

    /// Asks for something and takes any answer.
    ///
    /// # Errors
    /// Whatever the connection says.
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> std::io::Result<Response> {
        let mut headers = vec![("Host".to_owned(), "engine".to_owned())];
        if target.starts_with("/images/") {
            // A push asks for credentials, and an empty answer will do.
            headers.push(("X-Registry-Auth".to_owned(), "e30=".to_owned()));
        }
        headers.extend(body.as_ref().map(|(kind, _)| ("Content-Type".to_owned(), (*kind).to_owned())));
        let request = Request {
            method: method.into(),
            target: target.into(),
            headers,
            body: body.map(|(_, bytes)| bytes),
        };
        http::send_unix(&self.socket, &request, LIMIT)
    }

    /// Asks for something that must work.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str, body: &Value) -> Value {
        let body = (!body.is_null()).then(|| ("application/json", body.to_string().into_bytes()));
        let answer =
            self.ask(method, target, body).unwrap_or_else(|e| panic!("engine: {method} {target}: {e}"));
        assert!(answer.status < 300, "engine: {} {}: {}", answer.asked, answer.status, answer.brief());
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
    }

    /// A GET that must work.
    #[track_caller]
    pub fn get(&self, target: &str) -> Value {
        self.call("GET", target, &Value::Null)
    }

    /// Sends SIGKILL to a container's first process.
    pub fn kill(&self, container: &str) {
        let _ = self.ask("POST", &format!("/containers/{container}/kill?signal=KILL"), None);
    }

    /// Runs a command as root in a container; what it printed.
    ///
    /// # Errors
    /// What the engine says, for instance that the container does not run.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String, String> {
        let post = |target: String, body: Value| {
            let body = Some(("application/json", body.to_string().into_bytes()));
            let answer = self.ask("POST", &target, body).map_err(|e| e.to_string())?;
            if answer.status < 300 { Ok(answer) } else { Err(answer.brief()) }
        };
        let body = json!({ "Cmd": command, "User": "0:0", "AttachStdout": true, "Tty": true });
        let made = post(format!("/containers/{container}/exec"), body)?.json();
        let id = made["Id"].as_str().unwrap_or_default();
        Ok(post(format!("/exec/{id}/start"), json!({ "Detach": false, "Tty": true }))?.text())
    }

    /// Pushes an image to its registry; what the engine said of it, a failure included.
    #[track_caller]
    pub fn push(&self, repo: &str, tag: &str) -> String {
        let pushed = self.ask("POST", &format!("/images/{repo}/push?tag={}", encode(tag)), None);
        let pushed = pushed.expect("push an image");
        assert_eq!(pushed.status, 200, "{}", pushed.brief());
        pushed.text()
    }

    /// Whether a volume is there.
    #[track_caller]
    pub fn has_volume(&self, name: &str) -> bool {
        let found = self.ask("GET", &format!("/volumes/{}", encode(name)), None).expect("ask for a volume");
        found.status == 200
    }
}
