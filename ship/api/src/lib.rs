//! What Bay and Ship say to each other.
//!
//! Three conversations, one module each, in the order in which they happen:
//!
//! 1. [`init`]: one message on stdin that configures a container as it starts;
//! 2. [`handshake`]: the proof both sides give on every new connection;
//! 3. [`http`]: the bodies of Ship's HTTP routes.
//!
//! Nothing here does I/O, so that both sides test against the very same code.

pub mod handshake;
pub mod http;
pub mod init;

/// The file descriptor on which init finds its listening unix socket, where the driver passes one in.
pub const LISTEN_FD: i32 = 3;

/// Where the runtime binary and whatever belongs to Bay lives inside a container.
pub const BAY_DIR: &str = "/.bay";

/// The runtime binary inside a container; its entry point is `/.bay/ship init`.
pub const SHIP_PATH: &str = "/.bay/ship";

/// Where a driver may mount a folder on a disk, writable for the agent alone: for output that is too long for memory.
pub const SPOOL_DIR: &str = "/.bay/spool";

/// Where the locker is mounted, and the HOME and working directory of user code.
pub const WORKSPACE: &str = "/workspace";

/// The numeric user and group that user code runs as inside a container.
pub const USER_ID: u32 = 1000;

/// The numeric user and group of the agent where two identities exist.
pub const AGENT_ID: u32 = 900;
