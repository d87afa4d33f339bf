//! The folders that a driver mounts: fresh ones belong to root, and are given to whom they are for.

use bay_ship_api::{AGENT_ID, SPOOL_DIR, USER_ID, WORKSPACE};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::Stop;

/// The workspace to the user, the spool to the agent, where they still belong to root.
pub(super) fn give() -> Result<(), Stop> {
    fresh(WORKSPACE, USER_ID, None)?;
    fresh(SPOOL_DIR, AGENT_ID, Some(Mode::RWXU))
}

/// Gives away one folder, nothing in it. One that belongs to somebody stays as it is, and so does what cannot be
/// opened: that is of no use to init, and whoever needs it will say so.
fn fresh(path: &str, owner: u32, mode: Option<Mode>) -> Result<(), Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(()) };
    let given = || {
        let found = rustix::fs::fstat(&folder)?;
        if (found.st_uid, found.st_gid) != (0, 0) {
            return Ok(());
        }
        // Before it is somebody else's: init has no FOWNER.
        if let Some(mode) = mode {
            rustix::fs::fchmod(&folder, mode)?;
        }
        rustix::fs::fchown(&folder, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
    };
    match given() {
        Ok(()) => Ok(()),
        // A folder that nobody may write, such as one of the image's where no volume is.
        Err(rustix::io::Errno::ROFS) => Ok(()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
