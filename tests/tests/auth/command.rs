//! `bay key`, while Bay runs and while it does not.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bay_tests::http::{Request, send_unix};
use bay_tests::{Bay, Client, Options};
use serde_json::Value;

#[test]
fn the_command_does_the_same_whether_bay_runs_or_not() {
    let mut bay = Bay::start(Options::default());
    let mut keys = Vec::new();
    for running in [true, false] {
        if !running {
            bay.terminate();
        }
        let made = bay
            .key_command(&["create", "--tenant", "acme", "--scopes", "sandboxes,ops", "--expires", "30d"])
            .expect("make a key");
        let key = made.trim().to_owned();
        assert!(key.starts_with("bay_") && made.lines().count() == 1, "only the key, for `$(…)`");
        let id = format!("key_{}", &key[4..30]);
        let list = bay.key_command(&["list", "--tenant", "acme"]).expect("list keys");
        assert!(list.contains(&id) && list.contains("sandboxes,ops") && list.contains("expires 2"), "{list}");
        assert!(!list.contains(&key[31..]), "no secret");
        assert!(!bay.key_command(&["list", "--tenant", "zeta"]).expect("list keys").contains(&id));
        let gone = bay.key_command(&["create", "--name", "soon gone"]).expect("make a key");
        let gone_id = format!("key_{}", &gone.trim()[4..30]);
        for _ in 0..2 {
            bay.key_command(&["revoke", &gone_id]).expect("revoke a key");
        }
        let list = bay.key_command(&["list"]).expect("list keys");
        let line = list.lines().find(|line| line.starts_with(&gone_id)).expect("it is still listed");
        assert!(line.contains("revoked 2") && line.ends_with("soon gone"), "{line}");
        for (args, wanted) in [
            (&["revoke", "key_00000000000000000000000000"][..], "no such key"),
            (&["revoke", "../admin"], "not the id of a key"),
            (&["create", "--tenant", "No"], "not a tenant"),
            (&["create", "--scopes", "root"], "root"),
            (&["create", "--expires", "never"], "never"),
            (&["create", "--expires", "0s"], "expires_in"),
            (&["create", "--name", "two\nlines"], "name"),
        ] {
            let said = bay.key_command(args).expect_err("it must fail");
            assert!(said.contains(wanted), "{args:?}: {said}");
        }
        keys.push((key, gone.trim().to_owned()));
    }
    bay.start_again();
    for (good, revoked) in &keys {
        Client::new(bay.addr(), Some(good)).get("/v1/sandboxes").send().expect(200);
        Client::new(bay.addr(), Some(revoked)).get("/v1/sandboxes").error(401, "unauthorized");
    }
    let old_flag =
        bay.key_command(&["create", "--scope", "admin", "--scope", "sandboxes"]).expect("make a key");
    Client::new(bay.addr(), Some(old_flag.trim())).get("/v1/admin/keys").send().expect(200);
}

#[test]
fn the_admin_socket_is_for_the_operator_and_for_keys_alone() {
    let mut bay = Bay::start(Options::default());
    let socket = bay.data_dir().join("run/admin.sock");
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().expect("a folder")), 0o700);
    let ask = |target: &str| {
        let request = Request {
            method: "GET".into(),
            target: target.into(),
            headers: vec![("Host".into(), "localhost".into())],
            body: None,
        };
        send_unix(&socket, &request, Duration::from_secs(10)).expect("an answer")
    };
    assert_eq!(ask("/v1/admin/keys").expect(200)["next_cursor"], Value::Null);
    for elsewhere in ["/v1/sandboxes", "/health", "/v1/admin/gc/status"] {
        assert_eq!(ask(elsewhere).expect(404)["error"]["code"], "not_found");
    }
    bay.terminate();
    assert!(!socket.exists(), "it goes with Bay");
    bay.start_again();
    bay.kill();
    bay.start_again();
    bay.key_command(&["list"]).expect("a socket that was left is replaced");
}
