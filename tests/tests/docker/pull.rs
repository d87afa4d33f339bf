//! Images that come from a registry: a real one, on this machine's loopback.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bay_tests::config::Profile;
use bay_tests::engine::Engine;
use bay_tests::http::encode;
use bay_tests::images::Image;
use bay_tests::{Bay, Options, until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Debian's `docker-registry` on a free port.
struct Registry {
    process: Child,
    addr: SocketAddr,
    _home: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = json!({
            "version": 0.1,
            "log": { "level": "info", "formatter": "text" },
            "storage": { "filesystem": { "rootdirectory": home.path().join("store") } },
            "http": { "addr": "127.0.0.1:0" },
        });
        let file = home.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry, which `cargo xtask test` installs");
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let addr = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "the registry ended instead of listening");
            if let Some(at) = line.find("listening on ") {
                let rest = &line[at + "listening on ".len()..];
                break rest.split(['"', ' ', ',']).next().unwrap().parse().unwrap();
            }
        };
        // What it logs from here on is nobody's concern, and must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { process, addr, _home: home }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A way to the registry that lets nothing through until it is opened.
struct Gate {
    addr: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Gate {
    fn before(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self { addr: listener.local_addr().unwrap(), open: Arc::default() };
        let open = Arc::clone(&gate.open);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, open) = (near.unwrap(), Arc::clone(&open));
                std::thread::spawn(move || {
                    until("the gate opens", LIMIT, || open.load(Ordering::Acquire).then_some(()));
                    let far = TcpStream::connect(registry).unwrap();
                    let (there, back) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
                    let way = std::thread::spawn(move || pass(there.0, there.1));
                    pass(back.0, back.1);
                    way.join().unwrap();
                });
            }
        });
        gate
    }

    fn open(&self) {
        self.open.store(true, Ordering::Release);
    }
}

/// One direction, to its end.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Puts an image into the registry, and takes it from the engine.
fn push(engine: &Engine, registry: SocketAddr, image: &Image, name: &str) {
    let repo = format!("{registry}/{name}");
    let tag = format!("/images/{}/tag?repo={}&tag=1", encode(&image.name), encode(&repo));
    engine.call("POST", &tag, &Value::Null);
    let pushed = engine.push(&repo, "1");
    assert!(!pushed.contains("\"error\""), "{pushed}");
    engine.call("DELETE", &format!("/images/{}?force=true", encode(&format!("{repo}:1"))), &Value::Null);
}

#[test]
fn an_image_is_fetched_and_the_start_says_so_meanwhile() {
    let (engine, registry) = (Engine::of_tests(), Registry::start());
    let gate = Gate::before(registry.addr);
    let image = Image::bare("pulled");
    push(&engine, registry.addr, &image, "team/bare");
    let name = format!("{}/team/bare:1", gate.addr);
    let container = json!({ "image": name, "docker": { "image_pull_policy": "if_not_present" } });
    let mut profile = Profile::shell().named("pulled").container(container);
    profile.capabilities = vec!["filesystem".into()];
    let bay = Bay::start(Options::default().profile(profile));
    let sandbox = bay.api().sandbox(json!({ "profile": "pulled", "start": "eager" }));
    let shown = until("the image is being fetched", LIMIT, || {
        let shown = sandbox.show();
        (!shown["status_reason"].is_null()).then_some(shown)
    });
    assert_eq!(
        (&shown["status"], &shown["status_reason"]["code"]),
        (&json!("starting"), &json!("pulling_image"))
    );
    assert!(shown["status_reason"]["message"].as_str().unwrap().contains(&name), "{shown}");
    gate.open();
    sandbox.write("a", "here");
    assert_eq!(sandbox.read("a"), "here");
    assert!(sandbox.show()["status_reason"].is_null());
    assert!(bay.log().contains("image fetched"), "the log tells of it");
    drop(bay);
    engine.call("DELETE", &format!("/images/{}?force=true", encode(&name)), &Value::Null);
}

#[test]
fn always_takes_what_is_newest_and_what_is_there_when_the_registry_is_away() {
    let (engine, registry) = (Engine::of_tests(), Registry::start());
    let name = format!("{}/team/moving:1", registry.addr);
    let container = json!({ "image": name, "docker": { "image_pull_policy": "always" } });
    let bay = Bay::start(Options::default().profile(Profile::shell().named("moving").container(container)));
    for version in ["one", "two"] {
        let image = Image::after("moving", &format!("echo {version} > /etc/version"));
        push(&engine, registry.addr, &image, "team/moving");
        let sandbox = bay.api().sandbox(json!({ "profile": "moving" }));
        assert_eq!(sandbox.shell_ok("cat /etc/version"), version);
    }
    drop(registry);
    let sandbox = bay.api().sandbox(json!({ "profile": "moving" }));
    assert_eq!(sandbox.shell_ok("cat /etc/version"), "two");
    assert!(bay.log().contains("taking what is there"), "the log tells of it");
    drop(bay);
    engine.call("DELETE", &format!("/images/{}?force=true", encode(&name)), &Value::Null);
}
