//! Somebody else's container at the address of a sandbox's.

use bay_tests::driver::image;
use bay_tests::{Bay, Engine, until};
use serde_json::json;

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
server = socketserver.ThreadingTCPServer(('0.0.0.0', 8123), Handler)
print('listening', flush=True)
server.serve_forever()
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
    let (network, endpoint) = {
        let networks = shown["NetworkSettings"]["Networks"].as_object().expect("its networks");
        let (name, endpoint) = networks.iter().next().expect("a network");
        (name.clone(), endpoint["IPAddress"].as_str().expect("an address").to_owned())
    };

    // The sandbox's container runs on, but its address is another's now.
    let disconnect = json!({ "Container": id, "Force": true });
    engine.call("POST", &format!("/networks/{network}/disconnect"), &disconnect);
    let name = format!("stranger-of-test-{}", std::process::id());
    let wanted = json!({
        "Image": image(), "Entrypoint": ["python3", "-c", LISTENER],
        "HostConfig": { "NetworkMode": network },
        "NetworkingConfig": { "EndpointsConfig": { &network: { "IPAMConfig": { "IPv4Address": endpoint } } } },
    });
    let made = engine.call("POST", &format!("/containers/create?name={name}"), &wanted);
    let stranger = made["Id"].as_str().expect("an id").to_owned();
    order(&engine, "POST", &format!("/containers/{stranger}/start"));
    let listed = || engine.ask("GET", &format!("/containers/{stranger}/logs?stdout=1"), None);
    let heard = || listed().expect("the stranger's log").text();
    until("the stranger listens", NOTICED, || heard().contains("listening").then_some(()));

    // A Bay that has it as ready, and one that comes to take it over.
    // The first call may have a connection of before, which the stranger's system knows nothing of.
    until("a call is refused by Bay itself", NOTICED, || {
        let error = sandbox.post("shell/exec", &json!({ "command": "true" })).error(502, "runtime_error");
        let refused = error["message"].as_str().is_some_and(|m| m.contains("no connection could be had"));
        (refused && heard().contains("got 36 ")).then_some(())
    });
    bay.kill();
    bay.start_again();
    until_ready(&bay, 200);
    let shown = sandbox.show();
    assert_eq!(shown["status"], "failed", "{shown}");
    let heard = heard();
    assert!(heard.contains("got 36 "), "Bay greeted it, with a nonce: {heard}");
    assert!(!heard.contains("rest 3"), "and sent no proof of its own: {heard}");

    // It also holds on to the session's network, which the engine keeps as long as somebody is in it.
    order(&engine, "DELETE", &format!("/containers/{stranger}?force=true&v=true"));
    until("a new session starts", NOTICED, || {
        let answer = sandbox.file("kept.txt").send();
        if answer.status == 200 {
            assert_eq!(answer.json()["content"], "kept");
            return Some(());
        }
        let body = answer.json();
        assert_eq!((answer.status, &body["error"]["code"]), (503, &json!("unavailable")), "{body}");
        None
    });
    assert_eq!(sandbox.shell("true")["session_seq"], 2);
}
