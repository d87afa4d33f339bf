//! What each route answers where the container is not the usual one. The usual life of a container is in the
//! conformance suite, `tests/ship`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use bay_ship_api::init::Isolation;
use serde_json::json;
use support::{Client, Container, Setup, isolations};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

#[test]
fn only_what_the_profile_gives_is_served() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        setup.config.capabilities = vec!["shell".into()];
        let container = setup.start();
        let mut client = container.client();
        client.shell_ok("true");
        for (path, body) in
            [("/ipython/exec", json!({"code": "1", "timeout": 1})), ("/fs/read_file", json!({"path": "x"}))]
        {
            assert_eq!(client.post(path, &body), Err((400, "capability_not_supported".into())), "{path}");
        }
        let meta = client.get("/meta").json();
        assert_eq!(meta["capabilities"].as_object().unwrap().keys().collect::<Vec<_>>(), ["shell"]);
    }
}

#[test]
fn without_any_interpreter_python_is_not_offered_and_the_rest_works() {
    for isolation in isolations() {
        let mut setup = Setup::new(isolation);
        (setup.python, setup.config.python) = (false, Some("/opt/bay/python/bin/python3".into()));
        let container = setup.start();
        let mut client = container.client();
        let meta = client.get("/meta").json();
        assert_eq!(
            meta["capabilities"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["filesystem", "shell", "terminal"]
        );
        let unsupported = (400, "capability_not_supported".to_owned());
        let refused = client.post("/ipython/exec", &json!({"code": "1", "timeout": 1}));
        assert_eq!(refused, Err(unsupported.clone()));
        assert_eq!(client.get("/ipython/kernel/status").result(), Err(unsupported.clone()));
        assert_eq!(client.restart(), Err(unsupported.clone()));
        assert_eq!(client.stop(), Err(unsupported));
        client.shell_ok("true");
        assert!(container.setup.log().contains("no Python interpreter"), "{}", container.setup.log());
    }
}

#[test]
fn ship_is_small() {
    both(|container, client, _| {
        client.python_ok("1");
        client.shell_ok("true");
        // The static binary is what Bay ships; of a test build only what it allocates says something.
        let field = if cfg!(target_env = "musl") { "VmRSS" } else { "RssAnon" };
        let resident = |pid| container.kib(pid, field);
        let total = resident(container.init()) + resident(container.agent());
        assert!(total < 6 * 1024, "{total} KiB");
    });
}
