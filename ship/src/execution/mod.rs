//! Executions: what Python and the shell run for Bay, each with an id, its events, its output and one end.
//!
//! ```text
//! begin ──▶ events (ring) ──▶ finish ──▶ kept for a while ──▶ forgotten
//!    │         ▲   │
//!  same id:    │   └──▶ readers: each from its own number on, told of gaps
//!  attach      └── output: head in memory, the rest in a nameless file
//! ```
//!
//! *Invariants.* Exactly one terminal event (`result` or `error`), and it is the last. It comes from `finish` only,
//! and `finish` only from a real end of the work: a reader whose stream breaks has none. An id runs once: a request
//! that repeats it is another reader of the same execution.

mod events;
mod live;
mod registry;
mod ring;
mod spool;

pub(crate) use events::stream;
pub(crate) use live::{Context, Execution, MAX_INLINE_JSON, Stream};
pub(crate) use registry::{Begun, Executions};
