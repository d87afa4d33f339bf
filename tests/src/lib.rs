//! The harness of Bay's black-box tests.
//!
//! A test starts the real `bay` binary on a data directory of its own ([`Bay::start`]), speaks HTTP to it
//! ([`Client`]), and when the [`Bay`] goes out of scope everything it made must be gone: a sandbox, process,
//! cgroup or locker left behind fails the test ([`leaks`]). On Docker that goes for containers, networks and volumes.
//!
//! From the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `BAY_TEST_BIN` | the binary; default: `bay` beside the test's own target directory |
//! | `BAY_TEST_PYTHON` | a virtual environment with ipykernel that every user may read |
//! | `BAY_TEST_BASE_URL`, `BAY_TEST_API_KEY` | a Bay that already runs, for tests that need only HTTP |
//! | `BAY_TEST_DRIVER` | `local` (the default) or `docker`: what every Bay of the tests runs sandboxes with |
//! | `BAY_TEST_DOCKER_HOST` | `unix://` address of the Docker engine that tests use |
//! | `BAY_TEST_CONNECT` | `socket` (the default), `host_port` or `container_network` |
//! | `BAY_TEST_IMAGE` | the image of sandboxes on Docker; default: `bay/ship:slim` |
//! | `BAY_TEST_SEED`, `BAY_TEST_ROUNDS` | what the random tests do |
//! | `BAY_TEST_CONTRACT_TOOLS` | a virtual environment with what `tests/tests/contract/requirements.txt` names |
//! | `BAY_TEST_BLESS` | `1`: write the golden files of `surface` anew instead of comparing |

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code: a harness that cannot do its part must fail the test, loudly"
)]

pub mod api;
mod bay;
pub mod config;
pub mod containers;
pub mod driver;
pub mod engine;
pub mod form;
pub mod golden;
pub mod http;
pub mod images;
pub mod leaks;
pub mod live;
pub mod lockers;
pub mod net;
pub mod openapi;
mod plugin_cache;
pub mod plugins;
pub mod procs;
pub mod random;
pub mod sse;
mod subnet;
pub mod times;
pub mod wait;
pub mod ws;

pub use api::{Client, Sandbox};
pub use bay::{Bay, Refused, bay_command};
pub use config::{Options, Profile};
pub use driver::on_docker;
pub use engine::Engine;
pub use http::Response;
pub use lockers::Locker;
pub use wait::{soon, until};

/// Whether the tests run as root: isolation and network policy differ.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
