//! The socket on which Bay finds Ship: inherited, or made here where no driver can pass one in.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bay_ship_api::LISTEN_FD;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

use super::{Stop, stop};
use crate::sys;

/// Connections that may wait to be accepted: what the agent serves at once.
const BACKLOG: i32 = 128;
/// A peer that says nothing for this long is asked whether it is still there: a connection whose other end vanished
/// without a word must give its place back.
const QUIET: Duration = Duration::from_secs(60);
/// Between questions that stay unanswered, and how many there are.
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 3;

/// Where init listens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// The descriptor [`LISTEN_FD`], passed in by whoever started init.
    Inherited,
    /// A unix socket at this path, in a directory that only init's own user enters.
    Unix(PathBuf),
    /// This TCP port, on every IPv4 address of the container.
    Tcp(u16),
}

impl Listen {
    /// Reads the arguments behind `init`.
    pub(crate) fn of(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Stop> {
        let Some(first) = arguments.next() else { return Ok(Self::Inherited) };
        if first != "--listen" {
            return Err(format!("unknown argument {}", first.display()));
        }
        let place = arguments.next().ok_or("--listen needs `unix:PATH` or `tcp:PORT`")?;
        if let Some(more) = arguments.next() {
            return Err(format!("unexpected argument {}", more.display()));
        }
        let wrong = || format!("--listen takes `unix:PATH` or `tcp:PORT`, not {}", place.display());
        match place.to_str().and_then(|text| text.split_once(':')).ok_or_else(wrong)? {
            ("unix", path) if path.starts_with('/') && !path.ends_with('/') => Ok(Self::Unix(path.into())),
            ("unix", path) => Err(format!("--listen: {path:?} must be the absolute path of a socket")),
            ("tcp", port) => match port.parse() {
                Ok(port) if port != 0 => Ok(Self::Tcp(port)),
                _ => Err(format!("--listen: {port:?} must be a port from 1 to 65535")),
            },
            _ => Err(wrong()),
        }
    }

    /// The listening socket. Called first of all, with no descriptor open but the standard three and, where it is
    /// inherited, the socket.
    pub(super) fn open(&self) -> Result<OwnedFd, Stop> {
        match self {
            Self::Inherited => {
                sys::close_from(LISTEN_FD + 1);
                inherited()
            }
            Self::Unix(path) => {
                sys::close_from(LISTEN_FD);
                unix(path)
            }
            Self::Tcp(port) => {
                sys::close_from(LISTEN_FD);
                stop(&format!("listening on port {port}"), tcp(*port))
            }
        }
    }
}

fn inherited() -> Result<OwnedFd, Stop> {
    let missing =
        |error| format!("without --listen, descriptor {LISTEN_FD} must be a listening socket: {error}");
    let fd = sys::adopt(LISTEN_FD).map_err(missing)?;
    let listens = sockopt::socket_acceptconn(&fd).map_err(|error| missing(error.into()))?;
    if !listens {
        return Err(missing(std::io::Error::other("it does not listen")));
    }
    stop("listener", rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC))?;
    Ok(fd)
}

fn unix(path: &Path) -> Result<OwnedFd, Stop> {
    let step = format!("listening at {}", path.display());
    private(path.parent().unwrap_or(Path::new("/")))?;
    match rustix::fs::lstat(path) {
        // Left by the container's life before this one.
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            stop(&step, rustix::fs::unlink(path))?;
        }
        Ok(_) => return Err(format!("{step}: something else is there")),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(format!("{step}: {error}")),
    }
    let bound = || -> rustix::io::Result<OwnedFd> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The socket has its mode from its first moment.
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = bind(&fd, &SocketAddrUnix::new(path)?);
        rustix::process::umask(before);
        bound?;
        listen(&fd, BACKLOG)?;
        Ok(fd)
    };
    stop(&step, bound())
}

/// Refuses a directory that others could enter: user code would find the socket there, or put another in its place.
fn private(directory: &Path) -> Result<(), Stop> {
    let found = stop(&format!("directory {}", directory.display()), rustix::fs::lstat(directory))?;
    let uid = rustix::process::geteuid().as_raw();
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind != FileType::Directory || found.st_uid != uid || found.st_mode & 0o077 != 0 {
        return Err(format!(
            "directory {} must be of user {uid} with mode 0700; it is of user {} with mode {:04o}",
            directory.display(),
            found.st_uid,
            found.st_mode & 0o7777
        ));
    }
    Ok(())
}

fn tcp(port: u16) -> rustix::io::Result<OwnedFd> {
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    // Accepted connections inherit these.
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, QUIET)?;
    sockopt::set_tcp_keepintvl(&fd, ASK_AGAIN)?;
    sockopt::set_tcp_keepcnt(&fd, ASK_TIMES)?;
    bind(&fd, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn of(arguments: &[&str]) -> Result<Listen, Stop> {
        Listen::of(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(of(&[]), Ok(Listen::Inherited));
        assert_eq!(of(&["--listen", "unix:/.bay-socket/s"]), Ok(Listen::Unix("/.bay-socket/s".into())));
        assert_eq!(of(&["--listen", "tcp:7070"]), Ok(Listen::Tcp(7070)));
        for wrong in [
            &["--listen"][..],
            &["--listen", "unix:"],
            &["--listen", "unix:relative"],
            &["--listen", "unix:/directory/"],
            &["--listen", "tcp:"],
            &["--listen", "tcp:0"],
            &["--listen", "tcp:65536"],
            &["--listen", "tcp:-1"],
            &["--listen", "7070"],
            &["--listen", "udp:1"],
            &["--listen", "tcp:1", "more"],
            &["--port", "1"],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_socket_is_its_owners_and_takes_a_stale_ones_place() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = dir.path().join("s");
        let first = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        let second = unix(&path).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(second);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(unix(&path).unwrap_err().contains("something else"));
    }

    #[test]
    fn a_directory_that_others_enter_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        for mode in [0o755, 0o710, 0o701] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let why = unix(&dir.path().join("s")).unwrap_err();
            assert!(why.contains("0700"), "{why}");
        }
        assert!(unix(Path::new("/no/such/directory/s")).is_err());
    }

    #[test]
    fn a_port_can_be_taken_again_at_once() {
        // Port 0 lets the kernel choose; its number is then asked for by name.
        let first = tcp(0).unwrap();
        let address = SocketAddrV4::try_from(rustix::net::getsockname(&first).unwrap()).unwrap();
        let stream = std::net::TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        let accepted = rustix::net::accept(&first).unwrap();
        assert!(sockopt::tcp_nodelay(&accepted).unwrap() && sockopt::socket_keepalive(&accepted).unwrap());
        drop((accepted, stream, first));
        tcp(address.port()).unwrap();
    }
}
