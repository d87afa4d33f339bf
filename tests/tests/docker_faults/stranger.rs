//! Somebody else's container in the place of a sandbox's: with its name, its labels and its address.

use bay_tests::driver::image;
use bay_tests::{Bay, Engine, until};
use serde_json::{Value, json};

use crate::common::{NOTICED, on, only_container, order, until_ready};

/// Takes every connection, writes down what it is sent, and answers as a runtime that has no token could.
const LISTENER: &str = "
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        got = self.request.recv(4096)
        print('got', len(got), got.hex(), flush=True)
        self.request.sendall(got[:4] + bytes(64))
        rest = self.request.recv(4096)
        print('rest', len(rest), flush=True)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(('0.0.0.0', 8123), Handler).serve_forever()
";

#[test]
fn a_stranger_at_a_sandboxs_address_is_refused_and_learns_nothing() {
    let mut bay = Bay::start(on(&Engine::host(), "container_network"));
    let sandbox = bay.api().sandbox(json!({}));
    sandbox.write("kept.txt", "kept");
    let engine = Engine::of_tests();
    let ours = only_container(&bay);
    let id = ours["Id"].as_str().expect("an id");
    let shown = engine.get(&format!("/containers/{id}/json"));
    let name = shown["Name"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    let (network, endpoint) = {
        let networks = shown["NetworkSettings"]["Networks"].as_object().expect("its networks");
        let (name, endpoint) = networks.iter().next().expect("a network");
        (name.clone(), endpoint["IPAddress"].as_str().expect("an address").to_owned())
    };

    // While Bay does not look, the container goes, and another takes its name and its address.
    bay.kill();
    order(&engine, "DELETE", &format!("/containers/{id}?force=true&v=true"));
    let wanted = json!({
        "Image": image(), "Entrypoint": ["python3", "-c", LISTENER], "Labels": ours["Labels"],
        "HostConfig": { "NetworkMode": network },
        "NetworkingConfig": { "EndpointsConfig": { &network: { "IPAMConfig": { "IPv4Address": endpoint } } } },
    });
    let made = engine.call("POST", &format!("/containers/create?name={name}"), &wanted);
    let stranger = made["Id"].as_str().expect("an id").to_owned();
    order(&engine, "POST", &format!("/containers/{stranger}/start"));
    until("the stranger listens", NOTICED, || {
        let addr = format!("{endpoint}:8123").parse().expect("an address");
        std::net::TcpStream::connect_timeout(&addr, std::time::Duration::from_secs(1)).ok()
    });

    // Followed to its end: what it heard is gone with it.
    let logs = format!("/containers/{stranger}/logs?stdout=1&follow=1");
    let heard = std::thread::spawn(move || Engine::of_tests().ask("GET", &logs, None));
    bay.start_again();
    until_ready(&bay, 200);
    assert_eq!(sandbox.read("kept.txt"), "kept");
    assert_eq!(sandbox.shell("true")["session_seq"], 2);
    until("the stranger is gone", NOTICED, || {
        let all = bay.containers().expect("a Bay on Docker").all();
        let there = |c: &Value| c["Id"].as_str() == Some(stranger.as_str());
        (!all.iter().any(there)).then_some(())
    });
    let heard = heard.join().expect("the log's reader").expect("its log").text();
    assert!(heard.contains("got 36 "), "Bay greeted it, with a nonce: {heard}");
    assert!(heard.contains("rest 0") && !heard.contains("rest 3"), "and sent nothing more: {heard}");
}
