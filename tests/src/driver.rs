//! Which driver the tests run on. One suite serves all of them; what it is run on comes from the environment.

/// A driver of Bay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// bubblewrap on this machine.
    Local,
    /// The Docker engine of `BAY_TEST_DOCKER_HOST`.
    Docker,
}

/// The one that `BAY_TEST_DRIVER` names; `local` when it names none.
pub fn driver() -> Driver {
    match std::env::var("BAY_TEST_DRIVER").as_deref() {
        Err(_) | Ok("" | "local") => Driver::Local,
        Ok("docker") => Driver::Docker,
        Ok(other) => panic!("BAY_TEST_DRIVER={other} is neither `local` nor `docker`"),
    }
}

/// Whether it is the Docker driver.
pub fn on_docker() -> bool {
    driver() == Driver::Docker
}

/// How Bay reaches the runtime on Docker: what `BAY_TEST_CONNECT` says, else `socket`.
pub fn connect() -> String {
    let named = std::env::var("BAY_TEST_CONNECT").ok().filter(|name| !name.is_empty());
    let named = named.unwrap_or_else(|| "socket".into());
    let known = ["socket", "host_port", "container_network", "auto"];
    assert!(known.contains(&named.as_str()), "BAY_TEST_CONNECT={named} is none of {known:?}");
    named
}

/// The image that profiles name on Docker.
pub fn image() -> String {
    let named = std::env::var("BAY_TEST_IMAGE").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| "bay/ship:slim".into())
}
