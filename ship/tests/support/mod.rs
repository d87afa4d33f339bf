//! What the tests of this crate start Ship with, and speak to it with: the conformance suite's own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, though not inside a test function")]
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test binary uses its own part of this")]

pub mod packages;

pub use bay_ship_tests::bare::venv;
pub use bay_ship_tests::{
    Client, Container, PATIENCE, Setup, Stream, bare, client, events, is_root, isolations, wait_for,
};
