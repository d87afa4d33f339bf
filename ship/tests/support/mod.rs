//! What the tests of this crate start Ship with, and speak to it with: the conformance suite's own.

#![allow(unused_imports, unreachable_pub, reason = "each test binary uses its own part of this")]

pub use bay_ship_tests::bare::venv;
pub use bay_ship_tests::{
    Client, Container, PATIENCE, Setup, bare, client, events, is_root, isolations, wait_for,
};
