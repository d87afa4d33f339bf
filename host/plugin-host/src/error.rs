//! What can go wrong, in words: at load for the operator, at a call for the caller's error table.

use std::fmt;

/// A plugin, or the host, could not be loaded. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option that makes no sense.
    #[error("plugin host: {0}")]
    Options(String),
    /// The engine could not be made on this machine.
    #[error("plugin host: the WebAssembly engine does not start here: {0}")]
    Engine(String),
    /// The component cannot be read.
    #[error("plugin `{plugin}`: {path}: {source}")]
    Read {
        /// Which plugin.
        plugin: String,
        /// Where it should have been.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no component of a version that this Bay speaks.
    #[error("plugin `{plugin}`: {problem}")]
    Version {
        /// Which plugin.
        plugin: String,
        /// What is missing, newer or unknown.
        problem: String,
    },
    /// It does not compile or link.
    #[error("plugin `{plugin}`: {problem}")]
    Link {
        /// Which plugin.
        plugin: String,
        /// What does not fit.
        problem: String,
    },
    /// It does not like its configuration.
    #[error("plugin `{plugin}` refuses its configuration: {problem}")]
    Config {
        /// Which plugin.
        plugin: String,
        /// What it says.
        problem: String,
    },
    /// What it describes is not acceptable.
    #[error("plugin `{plugin}` describes itself wrongly: {problem}")]
    Manifest {
        /// Which plugin.
        plugin: String,
        /// What is wrong.
        problem: String,
    },
    /// It failed while it was asked to describe itself.
    #[error(transparent)]
    Call(#[from] PluginError),
}

/// A plugin failed during a call. Nothing else is hurt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{plugin}`: {reason}")]
pub struct PluginError {
    /// Which plugin.
    pub plugin: String,
    /// How.
    pub reason: PluginFault,
}

/// How a plugin can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginFault {
    /// It trapped; the text is for the log.
    Trap(String),
    /// It ran, or slept, past its deadline.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// Its answer is larger than it may be.
    Output,
    /// It took more steps than it may.
    Steps,
    /// It answered something that the contract does not allow; the text is for the log.
    Contract(String),
    /// As many operations as Bay allows are in flight: the plugin is not to blame.
    Overloaded,
}

impl PluginFault {
    /// One word for answers and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Steps => "steps",
            Self::Contract(_) => "contract",
            Self::Overloaded => "overloaded",
        }
    }
}

impl fmt::Display for PluginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(why) => write!(f, "trapped: {why}"),
            Self::Deadline => f.write_str("ran past its deadline"),
            Self::Memory => f.write_str("wanted more memory than it may have"),
            Self::Output => f.write_str("answered more than it may"),
            Self::Steps => f.write_str("took more steps than it may"),
            Self::Contract(why) => write!(f, "broke its contract: {why}"),
            Self::Overloaded => f.write_str("not run: too many operations are in flight"),
        }
    }
}
