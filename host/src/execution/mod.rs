//! Executions as clients see them: the checks before, the dispatch, the record, and the stage trail of a call.

pub(crate) mod admit;
pub(crate) mod dispatch;
pub(crate) mod events;
mod flights;
mod follow;
pub(crate) mod known;
mod object;
mod record;
mod stages;
pub(crate) mod streaming;
pub(crate) mod work;

pub use flights::{End, Flight, Flights, Flying};
pub use follow::follow;
pub(crate) use known::CAPABILITY;
pub use object::{execution_object, history_object};
pub use record::Recorded;
pub use stages::{Stage, Stages};
