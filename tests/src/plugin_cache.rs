//! Compiled plugins that the Bays of a test run share. Each Bay has a data directory of its own and would compile
//! every component anew, for a second of processor time; instead it finds what another compiled before.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Bay keeps them, beneath its data directory.
const IN_DATA: &str = "plugin-cache";

/// Entries that nothing used for so long are of an older build.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// Puts into a new data directory what earlier Bays compiled.
pub(crate) fn lend(data: &Path) {
    let Some(shared) = shared() else { return };
    for dir in [data, &data.join(IN_DATA)] {
        // Bay takes only what nobody else could have put there.
        DirBuilder::new().mode(0o700).create(dir).expect("make the data directory");
    }
    for entry in entries(&shared) {
        let unused = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if unused.is_some_and(|unused| unused > UNUSED) {
            let _ = std::fs::remove_file(entry);
        } else {
            link(&entry, &data.join(IN_DATA));
        }
    }
}

/// Takes what this Bay compiled, for those that come after it.
pub(crate) fn keep(data: &Path) {
    let Some(shared) = shared() else { return };
    let mut files: Vec<PathBuf> = entries(&data.join(IN_DATA)).collect();
    // The digest makes an entry count, so it comes last.
    files.sort_by_key(|file| file.extension().is_some_and(|e| e == "sha256"));
    files.iter().for_each(|file| link(file, &shared));
}

/// A link, because an entry is never written again once it is whole. Where there can be none, it is compiled anew.
fn link(file: &Path, into: &Path) {
    if let Some(name) = file.file_name() {
        let _ = std::fs::hard_link(file, into.join(name));
    }
}

/// Each user's own, and nobody else's: what lies there is run as native code.
fn shared() -> Option<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("bay-test-plugins-{own}"));
    let _ = DirBuilder::new().mode(0o700).create(&dir);
    let meta = dir.symlink_metadata().ok()?;
    if !meta.is_dir() || meta.uid() != own {
        return None;
    }
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).ok()?;
    Some(dir)
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let files = std::fs::read_dir(dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    files.filter(|path| path.extension().is_some_and(|e| e == "cwasm" || e == "sha256"))
}
