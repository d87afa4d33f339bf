//! The one message that configures a container: JSON on init's stdin, then end of file.
//!
//! It carries the connection token, so it is never an argument, an environment variable or a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest start-up message init reads, in bytes: user env is at most a few KiB.
pub const MAX_MESSAGE: usize = 1 << 20;

/// How user code is kept from init and agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// The container has at least two user ids: init is 0, the agent [`crate::AGENT_ID`], user code
    /// [`crate::USER_ID`].
    TwoUid,
    /// Only one user id exists: user code lives in a nested user, PID and mount namespace.
    NestedPid,
}

/// What init needs to know to start a container.
#[derive(Clone, Serialize, Deserialize)]
pub struct InitConfig {
    /// The session this container belongs to; bound into the handshake.
    pub session: String,
    /// The session's generation; bound into the handshake.
    pub generation: u64,
    /// The handshake token, 64 lower-case hex digits.
    pub token: String,
    /// How to separate user code. Init refuses to start when it cannot have it.
    pub isolation: Isolation,
    /// Environment of user processes only, over Ship's own defaults.
    pub env: BTreeMap<String, String>,
    /// The Python interpreter to use; null: look for `python3` on the path.
    pub python: Option<String>,
    /// Capabilities that the profile gives this container (`python`, `shell`, `filesystem`, `terminal`); others are not served.
    pub capabilities: Vec<String>,
    /// What to set up inside the network namespace before anything runs.
    pub network: NetworkSetup,
    /// Bounds of user processes.
    pub limits: Limits,
    /// Most bytes of each of an execution's streams that are kept to be read by range.
    #[serde(default = "default_output_limit")]
    pub output_limit: u64,
}

/// The bound where nothing is said: 64 MiB.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 64 << 20;

fn default_output_limit() -> u64 {
    DEFAULT_OUTPUT_LIMIT
}

impl std::fmt::Debug for InitConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No token, and only the names of the environment.
        f.debug_struct("InitConfig")
            .field("session", &self.session)
            .field("generation", &self.generation)
            .field("isolation", &self.isolation)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("python", &self.python)
            .field("capabilities", &self.capabilities)
            .field("network", &self.network)
            .field("limits", &self.limits)
            .field("output_limit", &self.output_limit)
            .finish_non_exhaustive()
    }
}

/// Network policy that init applies from inside, before it drops NET_ADMIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum NetworkSetup {
    /// No network but loopback (brought up by init where it may); nothing to enforce.
    None,
    /// Policy routing for [`crate::USER_ID`]: destinations in `deny` are unreachable, but for `allow`
    /// (the resolver), which goes through the main table. CIDR notation, IPv4 and IPv6.
    PolicyRoutes {
        /// Prefixes that user code may not reach.
        deny: Vec<String>,
        /// Exact addresses exempt from `deny`.
        allow: Vec<String>,
    },
    /// The host side already enforces the policy (for instance pasta's own restrictions).
    Enforced,
}

/// Bounds of user processes, set as rlimits beneath whatever the cgroup says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads of user code (RLIMIT_NPROC where `enforce` says so).
    pub pids: u64,
    /// Bytes of address space for one process (RLIMIT_AS where `enforce` says so).
    pub memory: u64,
    /// Open files of one process.
    pub nofile: u64,
    /// True where no cgroup enforces pids and memory, so that rlimits must.
    pub enforce: bool,
}
