//! What goes wrong with a Docker engine and with what runs on it: each has the right error, leaves nothing behind, and
//! the next call recovers.
//!
//! Tests that stop the engine have one of their own ([`private::Private`]); the others use that of
//! `BAY_TEST_DOCKER_HOST`. Run with `BAY_TEST_DRIVER=docker`.

#[cfg(test)]
mod absent;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod private;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod stranger;
#[cfg(test)]
mod volumes;

#[cfg(test)]
mod common {
    use std::time::Duration;

    use bay_tests::{Bay, Engine, Options, on_docker, until};
    use serde_json::{Value, json};

    /// Longest until Bay has noticed what became of its engine, and done what it had left undone.
    pub(crate) const NOTICED: Duration = Duration::from_secs(30);

    /// A Bay on an engine, whatever its suite's.
    pub(crate) fn on(host: &str, connect: &str) -> Options {
        assert!(on_docker(), "these tests need BAY_TEST_DRIVER=docker");
        Options::default().config(json!({ "docker": { "host": host, "connect": connect } }))
    }

    /// The one container that Bay has on its engine.
    #[track_caller]
    pub(crate) fn only_container(bay: &Bay) -> Value {
        let all = bay.containers().expect("a Bay on Docker").all();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    /// Its id.
    #[track_caller]
    pub(crate) fn only_id(bay: &Bay) -> String {
        only_container(bay)["Id"].as_str().expect("an id").to_owned()
    }

    /// Asks the engine for something that has no answer worth reading.
    #[track_caller]
    pub(crate) fn order(engine: &Engine, method: &str, target: &str) {
        let answer = engine.ask(method, target, None).expect("ask the engine");
        assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.brief());
    }

    /// What `/ready` says, part by part.
    pub(crate) fn readiness(bay: &Bay) -> (u16, Value) {
        // Not an error of the contract, whatever its status.
        let answer = bay.api().get("/ready").try_send().expect("/ready answers");
        (answer.status, answer.json())
    }

    /// Waits until `/ready` answers with this status.
    #[track_caller]
    pub(crate) fn until_ready(bay: &Bay, status: u16) -> Value {
        until(&format!("/ready answers {status}"), NOTICED, || {
            let (now, body) = readiness(bay);
            (now == status).then_some(body)
        })
    }
}
