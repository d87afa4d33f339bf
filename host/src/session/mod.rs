//! Sessions: the running containers behind a sandbox.
//!
//! `state` says what may happen (pure), one `task` per live session makes it happen, the `registry` finds or
//! starts that task, `start` and `adopt` are the two ways to a ready session, `recover` sees to it that what could not
//! be done while the driver was away is done later.

mod adopt;
mod broken;
mod env;
mod live;
mod recover;
mod registry;
mod start;
pub mod state;
mod task;
mod unfinished;

#[cfg(test)]
mod tests;

pub use adopt::AdoptReport;
pub(crate) use adopt::remove_locker;
pub use env::SessionEnv;
pub use live::{Checked, Lease, Live, LiveContainer, View};
pub use recover::{adopt, reconcile, recover};
pub use registry::{SessionError, Sessions};
pub use state::Phase;
