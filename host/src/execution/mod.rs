//! Executions as clients see them: the checks before, the dispatch, the record, and the stage trail of a call.

pub(crate) mod admit;
pub(crate) mod dispatch;
mod object;
mod record;
mod stages;

pub use object::execution_object;
pub use record::Recorded;
pub use stages::{Stage, Stages};
