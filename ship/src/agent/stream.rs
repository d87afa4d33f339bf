//! Connections from Bay, over whichever kind of socket the driver chose.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{AddressFamily, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::sys;

/// A socket that listens.
pub(super) enum Listener {
    Unix(UnixListener),
    /// What a thread of its own accepts. The kernel routes a connection by the file-system id of whoever accepted it,
    /// and this process touches files as the user, whose routes lead nowhere near Bay.
    Tcp(mpsc::Receiver<io::Result<std::net::TcpStream>>),
}

impl Listener {
    /// What init made or was given.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        if sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
            UnixListener::from_std(socket.into()).map(Self::Unix)
        } else {
            rustix::io::ioctl_fionbio(&socket, false)?;
            // One at a time: the rest waits in the kernel's queue.
            let (accepted, connections) = mpsc::channel(1);
            std::thread::Builder::new()
                .name("ship-accept".to_owned())
                .spawn(move || accept_as_agent(&socket.into(), &accepted))?;
            Ok(Self::Tcp(connections))
        }
    }

    /// The next connection. Its options are the listener's.
    pub(super) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(connections) => {
                let stream =
                    connections.recv().await.ok_or_else(|| io::Error::other("nobody accepts any more"))??;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Stream::Tcp)
            }
        }
    }
}

/// Accepts with the agent's own id for files, until nobody wants to know.
fn accept_as_agent(
    listener: &std::net::TcpListener,
    accepted: &mpsc::Sender<io::Result<std::net::TcpStream>>,
) {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if let Err(error) = sys::set_file_ids(uid, gid) {
        let _ = accepted.blocking_send(Err(error));
        return;
    }
    while accepted.blocking_send(listener.accept().map(|(stream, _)| stream)).is_ok() {}
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Calls the same function of whichever stream there is.
macro_rules! either {
    ($this:expr, $call:ident $(, $argument:expr)*) => {
        match $this.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).$call($($argument),*),
            Stream::Tcp(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read, context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write, context, from)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored, context, from)
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds are.
        true
    }
}
