//! One Bay a data directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::OpenError;

const FILE: &str = "bay.lock";

/// Holds the lock until dropped. The kernel releases it however this process ends; children do not inherit it,
/// since the descriptor is close-on-exec.
#[derive(Debug)]
pub(super) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Makes the directory (0700) if need be and locks it.
    pub(super) fn acquire(data_dir: &Path) -> Result<Self, OpenError> {
        let io = |what: &str| {
            let what = format!("{what} {}", data_dir.display());
            move |source| OpenError::Io { what, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(io("cannot make the data directory"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(data_dir.join(FILE))
            .map_err(io("cannot write to the data directory"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(OpenError::Locked { data_dir: data_dir.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("cannot lock the data directory")(source)),
        }
        // Only for the message above: who holds the lock is the kernel's to say.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("cannot write to the data directory"))?;
        Ok(Self { _file: file })
    }
}

/// The pid that the holder wrote.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
