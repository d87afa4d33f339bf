//! Who runs us, and whether that can be root for a moment.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::run;

/// How a command can be run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// We are root.
    Already,
    /// Through sudo, which asks for no password.
    Sudo,
    /// Not at all.
    No,
}

impl Root {
    /// Finds out. Never asks for a password.
    pub(crate) fn find() -> Self {
        if is_root() {
            Self::Already
        } else if run::succeeds(run::command("sudo").args(["-n", "true"])) {
            Self::Sudo
        } else {
            Self::No
        }
    }

    /// The command as root, or nothing where that cannot be.
    pub(crate) fn command(self, program: &str) -> Option<Command> {
        match self {
            Self::Already => Some(run::command(program)),
            Self::Sudo => {
                let mut command = run::command("sudo");
                command.args(["-n", "--", program]);
                Some(command)
            }
            Self::No => None,
        }
    }
}

/// True when this process is root.
pub(crate) fn is_root() -> bool {
    // A process owns its own directory there.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
