//! Sessions: the running containers behind a sandbox.
//!
//! `state` says what may happen (pure), one `task` per live session makes it happen, the `registry` finds or
//! starts that task, `start` and `adopt` are the two ways to a ready session.

mod adopt;
mod env;
mod live;
mod registry;
mod start;
pub mod state;
mod task;

pub(crate) use adopt::remove_locker;
pub use adopt::{AdoptReport, adopt};
pub use env::SessionEnv;
pub use live::{Checked, Lease, Live, LiveContainer, View};
pub use registry::{SessionError, Sessions};
