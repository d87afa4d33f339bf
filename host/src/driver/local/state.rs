//! What is on disk about containers: one directory each in `data_dir/run`, found by descriptors, never by
//! joining names to paths that somebody else could have swapped.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::cgroup::Group;
use super::identity::ProcessId;
use super::network::Attached;

/// Longest name of a container or volume: what is left of a file name after the suffixes used here.
const MAX_NAME: usize = 100;

/// The listening socket of a container.
const SOCKET: &str = "ship.sock";
/// What init and bubblewrap print.
const LOG: &str = "log";
/// What bubblewrap says of its child, as JSON documents: its pid, then its exit code.
const STATUS: &str = "status";
/// [`State`] as JSON.
const STATE: &str = "state.json";
const STATE_NEW: &str = "state.json.new";
/// Where the agent keeps output that is too long for memory, in files without names.
pub(super) const SPOOL: &str = "spool";

/// Everything a later Bay needs to find, prove and clean up a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The boot in which pids mean something.
    pub(super) boot_id: String,
    /// Container within its profile.
    pub(super) role: String,
    /// Cgroups made for it.
    pub(super) groups: Vec<Group>,
    /// Network made for it.
    pub(super) network: Option<Attached>,
    /// Set once it runs.
    pub(super) started: Option<Started>,
}

/// The processes of a started container that Bay knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    /// Pid 1 of the sandbox: when it ends, the kernel ends everything in there.
    pub(super) init: ProcessId,
    /// Bubblewrap outside, which waits for init and writes down its exit code.
    pub(super) monitor: ProcessId,
    /// The rootless network helper.
    pub(super) helper: Option<ProcessId>,
}

/// True for what may become a component of a path: a letter or digit, then letters, digits, `_` and `-`.
pub(super) fn valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// Makes `name` in `parent` with this mode if need be, and opens it; a symbolic link there is an error.
pub(in crate::driver) fn directory_at(parent: impl AsFd, name: &str, mode: Mode) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(open_directory(parent, name)?)
}

/// Opens a directory for reading; a symbolic link is an error.
pub(in crate::driver) fn open_directory(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Names in a directory, without `.` and `..`; such as are not UTF-8 are left out.
pub(super) fn names_in(directory: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// `data_dir/run`.
pub(super) struct RunDir {
    fd: OwnedFd,
}

impl RunDir {
    /// Opens it, and makes it if need be.
    pub(super) fn open(data: impl AsFd) -> io::Result<Self> {
        Ok(Self { fd: directory_at(data, "run", Mode::RWXU)? })
    }

    /// Makes the directory of a container that has none yet.
    pub(super) fn create(&self, name: &str) -> io::Result<Entry> {
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU)?;
        Ok(Entry { fd: open_directory(&self.fd, name)? })
    }

    /// The directory of a container, none when it has none.
    pub(super) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        match open_directory(&self.fd, name) {
            Ok(fd) => Ok(Some(Entry { fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every container that has a directory.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = names_in(&self.fd)?;
        names.retain(|name| {
            valid_name(name)
                && rustix::fs::statat(&self.fd, format!("{name}/{STATE}"), AtFlags::SYMLINK_NOFOLLOW).is_ok()
        });
        Ok(names)
    }

    /// Removes the directory of a container with all its files. Idempotent.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let Some(entry) = self.entry(name)? else { return Ok(()) };
        for file in names_in(&entry.fd)? {
            // `state.json` goes last, so that a half-removed container is still listed.
            if file == SPOOL {
                entry.remove_spool()?;
            } else if file != STATE {
                rustix::fs::unlinkat(&entry.fd, &file, AtFlags::empty())?;
            }
        }
        match rustix::fs::unlinkat(&entry.fd, STATE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The directory of one container in `data_dir/run`.
pub(super) struct Entry {
    fd: OwnedFd,
}

impl Entry {
    /// Replaces the state in one step: a reader sees the old or the new.
    pub(super) fn write_state(&self, state: &State) -> io::Result<()> {
        let text = serde_json::to_vec(state).map_err(io::Error::other)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, STATE_NEW, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(file).write_all(&text)?;
        rustix::fs::renameat(&self.fd, STATE_NEW, &self.fd, STATE)?;
        Ok(())
    }

    /// The last state written.
    pub(super) fn state(&self) -> io::Result<State> {
        let mut text = Vec::new();
        self.file(STATE, OFlags::RDONLY)?.take(1 << 20).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    /// Makes the folder that the agent, and nobody else inside, may write to; `owner` is the agent as the host sees
    /// it, null: Bay's own user.
    pub(super) fn make_spool(&self, owner: Option<u32>) -> io::Result<()> {
        let spool = directory_at(&self.fd, SPOOL, Mode::RWXU)?;
        if let Some(owner) = owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
            rustix::fs::fchown(&spool, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Its files have no names, unless the agent misbehaved: whatever is there goes.
    fn remove_spool(&self) -> io::Result<()> {
        // Follows no link on its way down.
        std::fs::remove_dir_all(Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(SPOOL))
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// The log, to append to.
    pub(super) fn log_writer(&self) -> io::Result<File> {
        self.file(LOG, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
    }

    /// The file on which bubblewrap writes its status.
    pub(super) fn status_writer(&self) -> io::Result<File> {
        self.file(STATUS, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND)
    }

    /// The last `max` bytes of the log.
    pub(super) fn log_tail(&self, max: usize) -> io::Result<Vec<u8>> {
        let mut file = match self.file(LOG, OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(max as u64)))?;
        let mut tail = Vec::new();
        file.take(max as u64).read_to_end(&mut tail)?;
        Ok(tail)
    }

    /// The exit code that bubblewrap saw, once it has seen one (128 + signal for a signal).
    pub(super) fn exit_code(&self) -> io::Result<Option<i32>> {
        let mut text = Vec::new();
        match self.file(STATUS, OFlags::RDONLY) {
            Ok(file) => file.take(1 << 16).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let documents = serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>();
        let codes =
            documents.map_while(Result::ok).filter_map(|document| document.get("exit-code")?.as_i64());
        Ok(codes.last().and_then(|code| i32::try_from(code).ok()))
    }

    /// A path to the socket that is short whatever the data directory is called: a unix socket's address has
    /// 108 bytes. Valid as long as this entry lives.
    pub(super) fn socket_path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { boot_id: "b".into(), role: "ship".into(), groups: Vec::new(), network: None, started: None }
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for good in ["bay-01j0-1", "a", "0_x-y", &"a".repeat(100)] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a\0b", "A", "é", "a.b", &"a".repeat(101)] {
            assert!(!valid_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn state_survives_a_round_trip_and_removal_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let data = File::open(dir.path()).unwrap();
        let run = RunDir::open(&data).unwrap();
        let entry = run.create("bay-a-1").unwrap();
        assert!(run.create("bay-a-1").is_err());
        // Not listed before there is a state: such a directory never got as far as a container.
        assert!(run.names().unwrap().is_empty());
        entry.write_state(&state()).unwrap();
        entry.make_spool(None).unwrap();
        entry.make_spool(None).unwrap();
        std::fs::create_dir(dir.path().join("run/bay-a-1/spool/stray")).unwrap();
        std::fs::write(dir.path().join("run/bay-a-1/spool/stray/file"), "x").unwrap();
        assert_eq!(entry.state().unwrap(), state());
        assert_eq!(run.names().unwrap(), ["bay-a-1"]);
        run.remove("bay-a-1").unwrap();
        run.remove("bay-a-1").unwrap();
        assert!(run.entry("bay-a-1").unwrap().is_none());
    }

    #[test]
    fn a_link_in_place_of_a_container_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(File::open(dir.path()).unwrap()).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("run/bay-a-1")).unwrap();
        assert!(run.entry("bay-a-1").is_err());
        assert!(run.remove("bay-a-1").is_err());
    }

    #[test]
    fn the_log_is_read_from_its_end_and_the_status_from_its_last_code() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(File::open(dir.path()).unwrap()).unwrap();
        let entry = run.create("a").unwrap();
        assert_eq!(entry.log_tail(10).unwrap(), b"");
        assert_eq!(entry.exit_code().unwrap(), None);
        entry.log_writer().unwrap().write_all(b"0123456789").unwrap();
        assert_eq!(entry.log_tail(4).unwrap(), b"6789");
        let mut status = entry.status_writer().unwrap();
        status.write_all(b"{ \"child-pid\": 7,\n \"x\": 1}\n").unwrap();
        assert_eq!(entry.exit_code().unwrap(), None);
        status.write_all(b"{ \"exit-code\": 137 }\n").unwrap();
        assert_eq!(entry.exit_code().unwrap(), Some(137));
    }

    #[test]
    fn the_socket_path_is_short_in_a_deep_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let run = RunDir::open(File::open(&deep).unwrap()).unwrap();
        let entry = run.create("a").unwrap();
        let listener = std::os::unix::net::UnixListener::bind(entry.socket_path()).unwrap();
        std::os::unix::net::UnixStream::connect(entry.socket_path()).unwrap();
        drop(listener);
    }
}
