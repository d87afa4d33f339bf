//! Reaching a runtime: a socket in a directory of Bay's, a port of 127.0.0.1, or the container's own address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};

use super::start::reach;
use super::{Backend, Inner, Reach, failed, names};
use crate::driver::local::state::{directory_at, open_directory};
use crate::driver::{ContainerRef, DriverError, Stream};

/// Where the directory is inside.
pub(super) const SOCKET_DIR: &str = "/.bay-socket";
/// The socket in it.
pub(super) const SOCKET: &str = "ship.sock";
/// How long a connection may take.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// `data_dir/run/docker`: one directory a container, which the container's root alone may enter.
pub(super) struct Sockets {
    fd: OwnedFd,
    path: PathBuf,
}

impl Sockets {
    /// Makes it if need be. Blocks.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.canonicalize()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let data = rustix::fs::openat(CWD, &path, flags, Mode::empty())?;
        let run = directory_at(&data, "run", Mode::RWXU)?;
        let fd = directory_at(&run, "docker", Mode::RWXU)?;
        Ok(Self { fd, path: path.join("run/docker") })
    }

    /// The directory of a container as the daemon finds it, empty. `root` is the container's root outside.
    pub(super) fn make(&self, name: &str, root: Option<(u32, u32)>) -> Result<String, DriverError> {
        self.remove(name)?;
        let made = directory_at(&self.fd, name, Mode::RWXU).and_then(|fd| {
            if let Some((uid, gid)) = root {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            Ok(())
        });
        made.map_err(failed("make the socket's directory"))?;
        let path = self.path.join(name);
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| failed("make the socket's directory")(io::Error::other("data_dir is not UTF-8")))
    }

    /// Removes it with whatever is in it. Idempotent.
    pub(super) fn remove(&self, name: &str) -> Result<(), DriverError> {
        let removed = || match open_directory(&self.fd, name) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => match rustix::fs::unlinkat(&self.fd, format!("{name}/{SOCKET}"), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
                        Ok(()) | Err(Errno::NOENT) => Ok(()),
                        // Something else of the container's root: follows no link on its way down.
                        Err(_) => std::fs::remove_dir_all(
                            Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(name),
                        ),
                    }
                }
                Err(error) => Err(error.into()),
            },
        };
        removed().map_err(failed("remove the socket's directory"))
    }

    async fn dial(&self, name: &str) -> io::Result<Stream> {
        let fd = open_directory(&self.fd, name)?;
        // Short whatever the data directory is called: a unix socket's address has 108 bytes.
        let path = Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string()).join(SOCKET);
        // Whatever the container's root put there, no link leads out.
        let kind = rustix::fs::statat(&fd, SOCKET, AtFlags::SYMLINK_NOFOLLOW)?;
        if rustix::fs::FileType::from_raw_mode(kind.st_mode) != rustix::fs::FileType::Socket {
            return Err(io::Error::other("what is there is no socket"));
        }
        Ok(Box::new(UnixStream::connect(path).await?))
    }
}

async fn tcp(address: IpAddr, port: u16) -> io::Result<Stream> {
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

impl Inner {
    pub(super) async fn dial(&self, container: &ContainerRef, port: u16) -> Result<Stream, DriverError> {
        names::checked(&container.name)?;
        let backend = Backend::of(container).ok_or_else(|| DriverError::Missing(container.name.clone()))?;
        let first = match self.dial_at(container, &backend.reach, port).await {
            Ok(stream) => return Ok(stream),
            Err(error) if matches!(backend.reach, Reach::Socket) => return Err(error),
            // The place is right: nobody listens there, yet or any more.
            Err(DriverError::Io { what, source }) if source.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(DriverError::Io { what, source });
            }
            Err(error) => error,
        };
        // A daemon that was restarted may have given it another address, a Bay that was replaced has to join again.
        let Ok(contact) = self.engine.contact().await else { return Err(first) };
        let found = self.engine.call(contact.docker.inspect_container(&backend.id, None)).await;
        let now = found.map(|found| reach(&backend, &found));
        let moved = matches!(&now, Ok(now) if *now != backend.reach);
        if let Some(attached) = &backend.network
            && contact.facts.own_container.is_some()
        {
            self.join(&contact, &attached.name, attached.subnet).await?;
        } else if !moved {
            return Err(first);
        }
        self.dial_at(container, &now.unwrap_or(backend.reach), port).await
    }

    async fn dial_at(
        &self,
        container: &ContainerRef,
        reach: &Reach,
        port: u16,
    ) -> Result<Stream, DriverError> {
        let connect = async {
            match reach {
                Reach::Socket => self.sockets.dial(&container.name).await,
                Reach::Port { port: Some(published) } => tcp(Ipv4Addr::LOCALHOST.into(), *published).await,
                Reach::Address { address: Some(address) } => tcp(*address, port).await,
                Reach::Port { port: None } | Reach::Address { address: None } => {
                    Err(io::Error::new(io::ErrorKind::NotConnected, "it has no address"))
                }
            }
        };
        match tokio::time::timeout(DIAL_LIMIT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&format!("dial {}", container.name))(error)),
            Err(_) => {
                Err(DriverError::Timeout { what: format!("dialling {}", container.name), limit: DIAL_LIMIT })
            }
        }
    }
}
