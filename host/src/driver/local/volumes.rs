//! Lockers as directories: `data_dir/lockers/<id>`, owned by the sandbox's user and by nobody else.
//!
//! What is inside was written by user code. Nothing here follows a link, goes deeper than its descriptors allow,
//! or trusts a mode.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::state::{directory_at, open_directory};

/// Directories open at once during a walk: a deeper tree has no usage, it is not walked.
const MAX_DEPTH: usize = 128;
/// Entries looked at by one walk.
const MAX_ENTRIES: u64 = 500_000;
/// Time for one walk.
const MAX_WALK: Duration = Duration::from_secs(2);
/// Rounds of a removal against somebody who keeps writing.
const MAX_ROUNDS: u32 = 64;

/// `data_dir/lockers`.
pub(super) struct Volumes {
    fd: OwnedFd,
    /// Host uid and gid of user code, when it isn't Bay's own.
    owner: Option<(u32, u32)>,
}

impl Volumes {
    /// Opens the directory, and makes it if need be.
    pub(super) fn open(data: impl AsFd, owner: Option<(u32, u32)>) -> io::Result<Self> {
        Ok(Self { fd: directory_at(data, "lockers", Mode::RWXU)?, owner })
    }

    /// Makes the volume, or finds it as it is.
    pub(super) fn create(&self, id: &str) -> io::Result<()> {
        let volume = directory_at(&self.fd, id, Mode::RWXU)?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&volume, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    /// True when there is such a volume.
    pub(super) fn exists(&self, id: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.fd, id, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the volume. One rename takes it away; a removal cut short goes on at the next call.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        // No volume can be called so: names never start with a dot.
        let trash = format!(".trash-{id}");
        self.empty_and_remove(&trash)?;
        match rustix::fs::renameat(&self.fd, id, &self.fd, &trash) {
            Ok(()) => self.empty_and_remove(&trash),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a tree with two descriptors however deep it is: a directory that isn't empty is moved to the top
    /// and emptied there.
    fn empty_and_remove(&self, trash: &str) -> io::Result<()> {
        match rustix::fs::statat(&self.fd, trash, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            // A link or file in place of a volume: nothing of ours, but its name is.
            Ok(_) => return Ok(rustix::fs::unlinkat(&self.fd, trash, AtFlags::empty())?),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        make_accessible(self.fd.as_fd(), trash)?;
        let top = open_directory(&self.fd, trash)?;
        let mut moved = 0_u64;
        for _ in 0..MAX_ROUNDS {
            while let Some(name) = first_directory(&top)? {
                empty(top.as_fd(), &name, &mut moved)?;
            }
            match rustix::fs::unlinkat(&self.fd, trash, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "something keeps writing into the volume"))
    }

    /// Bytes on disk, none when the walk went over a bound or met what it may not read.
    pub(super) fn usage(&self, id: &str) -> io::Result<Option<u64>> {
        let root = open_directory(&self.fd, id)?;
        let deadline = Instant::now() + MAX_WALK;
        let mut walk = Walk { bytes: 0, entries: 0, deadline, linked: HashSet::new() };
        walk.count(&root)
    }
}

/// The first entry that is a directory; everything else on the way is unlinked.
fn first_directory(top: &OwnedFd) -> io::Result<Option<std::ffi::CString>> {
    for entry in Dir::read_from(top)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        match rustix::fs::unlinkat(top, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Empties and removes one directory of `top`; directories in it that aren't empty move up into `top`.
fn empty(top: BorrowedFd<'_>, name: &std::ffi::CStr, moved: &mut u64) -> io::Result<()> {
    make_accessible(top, name)?;
    let directory = rustix::fs::openat(
        top,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Renaming entries away while reading can make the kernel skip some; the caller comes back for them.
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name();
        if child.to_bytes() == b"." || child.to_bytes() == b".." {
            continue;
        }
        match rustix::fs::unlinkat(&directory, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::unlinkat(&directory, child, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Moving a directory rewrites its `..`, for which it must be writable.
        make_accessible(directory.as_fd(), child)?;
        loop {
            *moved += 1;
            let target = format!("{moved}");
            match rustix::fs::renameat_with(
                &directory,
                child,
                top,
                &target,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the owner back what it may have taken from itself (`chmod 000`); root needs no such thing.
fn make_accessible<N: rustix::path::Arg>(parent: BorrowedFd<'_>, name: N) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    // The link in /proc leads to the very inode that was opened, whatever has its name by now.
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)?)
}

struct Walk {
    bytes: u64,
    entries: u64,
    deadline: Instant,
    linked: HashSet<u64>,
}

impl Walk {
    fn count(&mut self, root: &OwnedFd) -> io::Result<Option<u64>> {
        let mut stack = vec![Dir::read_from(root)?];
        loop {
            let depth = stack.len();
            let Some(directory) = stack.last_mut() else { break };
            let Some(entry) = directory.next() else {
                stack.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES || Instant::now() > self.deadline {
                return Ok(None);
            }
            let parent = directory.fd()?;
            let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(Errno::ACCESS) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth >= MAX_DEPTH {
                    return Ok(None);
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                    Ok(child) => stack.push(Dir::new(child)?),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(Errno::ACCESS) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            } else if stat.st_nlink > 1 && !self.linked.insert(stat.st_ino) {
                continue;
            }
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        Ok(Some(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    fn volumes(dir: &Path) -> Volumes {
        let owner = rustix::process::geteuid().is_root().then_some((101_000, 101_000));
        Volumes::open(fs::File::open(dir).unwrap(), owner).unwrap()
    }

    #[test]
    fn a_volume_is_private_to_its_user_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        volumes.create("lkr_1").unwrap();
        fs::write(dir.path().join("lockers/lkr_1/kept"), "x").unwrap();
        volumes.create("lkr_1").unwrap();
        assert!(dir.path().join("lockers/lkr_1/kept").exists());
        assert!(volumes.exists("lkr_1").unwrap());
        let metadata = fs::metadata(dir.path().join("lockers/lkr_1")).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o700);
        if rustix::process::geteuid().is_root() {
            assert_eq!((metadata.uid(), metadata.gid()), (101_000, 101_000));
        }
        assert_eq!(fs::metadata(dir.path().join("lockers")).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn removal_follows_no_link_and_minds_no_mode() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/precious"), "x").unwrap();
        volumes.create("v").unwrap();
        let root = dir.path().join("lockers/v");
        symlink(dir.path().join("outside"), root.join("link")).unwrap();
        fs::create_dir_all(root.join("closed/inner/deep")).unwrap();
        fs::write(root.join("closed/inner/deep/file"), "x").unwrap();
        symlink("../../../outside", root.join("closed/inner/link")).unwrap();
        for closed in ["closed/inner/deep", "closed/inner", "closed", "."] {
            fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        volumes.remove("v").unwrap();
        volumes.remove("v").unwrap();
        assert!(!volumes.exists("v").unwrap());
        assert!(dir.path().join("outside/precious").exists());
        assert_eq!(fs::read_dir(dir.path().join("lockers")).unwrap().count(), 0);
    }

    #[test]
    fn removal_goes_deeper_than_paths_and_descriptors_do() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        volumes.create("v").unwrap();
        let mut current = open_directory(fs::File::open(dir.path().join("lockers")).unwrap(), "v").unwrap();
        for _ in 0..3000 {
            current = directory_at(&current, "down", Mode::RWXU).unwrap();
        }
        assert_eq!(volumes.usage("v").unwrap(), None);
        volumes.remove("v").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("lockers")).unwrap().count(), 0);
    }

    #[test]
    fn a_removal_that_was_cut_short_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        fs::create_dir_all(dir.path().join("lockers/.trash-v/1/2")).unwrap();
        volumes.create("v").unwrap();
        volumes.remove("v").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("lockers")).unwrap().count(), 0);
    }

    #[test]
    fn usage_counts_a_file_with_two_names_once() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        volumes.create("v").unwrap();
        let root = dir.path().join("lockers/v");
        fs::write(root.join("a"), vec![1_u8; 1 << 20]).unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        symlink("/usr", root.join("usr")).unwrap();
        let used = volumes.usage("v").unwrap().unwrap();
        assert!((1 << 20..1 << 21).contains(&used), "{used}");
        assert!(volumes.usage("missing").is_err());
    }

    #[test]
    fn a_link_in_place_of_a_volume_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path());
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), dir.path().join("lockers/v")).unwrap();
        assert!(volumes.create("v").is_err());
        assert!(!volumes.exists("v").unwrap());
        volumes.remove("v").unwrap();
        assert!(dir.path().join("outside").exists());
    }
}
