//! Watching what user code and Ship itself do to the workspace.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use bay_ship_api::init::Isolation;
use serde_json::{Value, json};
use support::{Client, Container, isolations, wait_for};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

/// A client's side of a stream.
struct Stream {
    client: Client,
    text: String,
    last_id: u64,
}

impl Stream {
    fn open(container: &Container, query: &str) -> Self {
        let mut client = container.client();
        let head = client.get_stream(&format!("/fs/watch?{query}"));
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self { client, text: String::new(), last_id: 0 }
    }

    /// The next event, comments left out: its name and data. None at the end of the stream.
    fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if event.starts_with(':') {
                    continue;
                }
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_else(|| panic!("{event}"))
                };
                let id = field("id: ").parse().unwrap();
                assert_eq!(id, self.last_id + 1);
                self.last_id = id;
                return Some((field("event: ").to_owned(), serde_json::from_str(field("data: ")).unwrap()));
            }
            let chunk = self.client.chunk().unwrap();
            if chunk.is_empty() {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    fn expect(&mut self, name: &str, path: &str) -> Value {
        let (event, data) = self.next().expect("an event");
        assert_eq!((event.as_str(), &data["path"]), (name, &json!(path)), "{data}");
        data
    }
}

/// Descriptors of the agent, as it says itself: nobody but root may look.
fn descriptors(client: &mut Client) -> u64 {
    client.get("/stat").json()["agent"]["fds"].as_u64().unwrap()
}

#[test]
fn what_user_code_and_ship_do_is_told_as_it_happens() {
    both(|container, client, _| {
        let mut stream = Stream::open(container, "path=.&recursive=true");
        client.shell_ok("mkdir -p a/b && echo x > a/b/early");
        let mut first: Vec<String> = Vec::new();
        while first.len() < 3 {
            let (name, data) = stream.next().unwrap();
            if name == "created" {
                first.push(data["path"].as_str().unwrap().to_owned());
            }
        }
        first.sort();
        assert_eq!(first, ["a", "a/b", "a/b/early"]);
        client.post("/fs/write_file", &json!({"path": "a/b/atomic", "content": "1"})).unwrap();
        loop {
            let (name, data) = stream.next().unwrap();
            if name != "modified" {
                assert_eq!((name.as_str(), &data["path"]), ("created", &json!("a/b/atomic")));
                break;
            }
        }
        client.post("/fs/write_file", &json!({"path": "a/b/atomic", "content": "2"})).unwrap();
        assert_eq!(stream.expect("modified", "a/b/atomic")["type"], "file");
        client.shell_ok("mv a/b c");
        assert_eq!(stream.expect("moved", "c"), json!({"path": "c", "type": "directory", "from": "a/b"}));
        client.shell_ok("ln -s /etc c/link");
        assert_eq!(stream.expect("created", "c/link")["type"], "symlink");
        client.shell_ok("rm c/link");
        stream.expect("removed", "c/link");
    });
}

#[test]
fn a_stream_ends_when_what_is_watched_goes() {
    both(|container, client, _| {
        client.shell_ok("mkdir d");
        let mut stream = Stream::open(container, "path=d");
        // The shell that removes it still stands in it.
        client.shell_ok("cd d && rmdir ../d");
        stream.expect("removed", "d");
        assert_eq!(stream.next(), None);
    });
}

#[test]
fn watches_go_with_their_client_and_are_bounded() {
    both(|container, client, _| {
        // A kernel that still starts opens some, too.
        client.python_ok("1");
        let before = descriptors(client);
        let mut streams: Vec<Stream> = (0..16).map(|_| Stream::open(container, "recursive=true")).collect();
        // Each its connection and its queue.
        assert!(descriptors(client) >= before + 32);
        assert_eq!(client.get("/fs/watch").result().unwrap_err(), (429, "busy".to_owned()));
        client.shell_ok("mkdir seen");
        for stream in &mut streams {
            stream.expect("created", "seen");
        }
        drop(streams);
        wait_for(|| (descriptors(client) == before).then_some(()), "the watches to be closed");
        Stream::open(container, "recursive=true");
        assert_eq!(
            client.get("/fs/watch?path=none").result().unwrap_err(),
            (404, "file_not_found".to_owned())
        );
        assert_eq!(client.get("/fs/watch?path=../x").result().unwrap_err(), (400, "invalid_path".to_owned()));
        client.shell_ok("ln -s /etc out");
        assert_eq!(client.get("/fs/watch?path=out").result().unwrap_err(), (400, "invalid_path".to_owned()));
    });
}

#[test]
fn a_slow_client_is_told_of_an_overflow_and_goes_on() {
    both(|container, client, _| {
        let mut stream = Stream::open(container, "path=.");
        client.shell_ok("for n in $(seq 8000); do : > f$n; done; touch last");
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "overflow") {
            names.push(stream.next().unwrap().0);
        }
        assert!(names.len() < 8_000, "{}", names.len());
        // Whatever is still on its way, what happens from now on is told.
        client.shell_ok("mkdir after");
        while stream.next().unwrap().1["path"] != "after" {}
        assert!(container.kib(container.agent(), "VmHWM") < 32 * 1024);
        assert_eq!(client.shell_ok("echo works"), "works");
    });
}
