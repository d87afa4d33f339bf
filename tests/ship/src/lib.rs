//! Speaks to a Ship anywhere, the way Bay does, for whoever tests one.
//!
//! | module | what |
//! |---|---|
//! | [`place`] | where a Ship is: a byte stream to it, credentials, what the host can see of it |
//! | [`bare`] | a place: bubblewrap, started the way the local driver does |
//! | [`client`] | HTTP/1.1 over a proved stream: what most tests ask |
//! | [`connection`] | one connection: the proof, bodies as they come, uploads |
//! | [`events`] | server-sent events with a deadline |
//! | [`random`] | small seeded randomness |
//!
//! From the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `BAY_TEST_PYTHON` | a virtual environment with ipykernel that every user may read |
//! | `BAY_TEST_SHIP` | a Ship binary; otherwise `ship` beside the test's own target directory |
//! | `BAY_TEST_SEED`, `BAY_TEST_SECONDS` | what random tests do, and for how long |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code: a harness that cannot do its part must fail the test, loudly"
)]

pub mod bare;
pub mod client;
pub mod connection;
pub mod events;
pub mod place;
pub mod random;
mod wire;

pub use bare::{Container, Setup, is_root, isolations};
pub use client::{Answer, Client, Refusal};
pub use events::{Event, Events};
pub use place::{Place, Stream};

use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long one look at a condition rests before the next.
const INTERVAL: Duration = Duration::from_millis(5);

/// Polls until there is something, or fails loudly.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>, what: &str) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(INTERVAL);
    }
}
