//! Connections from Bay, over whichever kind of socket the driver chose.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, accept_with, getpeername, getsockname, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::sys;

/// Of the thread that accepts.
const STACK: usize = 64 << 10;

/// A socket that listens.
pub(super) enum Listener {
    Unix(UnixListener),
    /// What a thread of its own accepts: see [`accept_as_agent`].
    Tcp(mpsc::Receiver<io::Result<OwnedFd>>),
}

impl Listener {
    /// What init made or was given.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
            rustix::io::ioctl_fionbio(&socket, true)?;
            return UnixListener::from_std(socket.into()).map(Self::Unix);
        }
        rustix::io::ioctl_fionbio(&socket, false)?;
        // One is enough: further connections wait in the kernel's queue.
        let (send, accepted) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("ship-accept".into())
            .stack_size(STACK)
            .spawn(move || accept_as_agent(&socket, &send))?;
        Ok(Self::Tcp(accepted))
    }

    /// The next connection. Its options are the listener's.
    pub(super) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(accepted) => {
                let ended = || io::Error::other("the thread that accepts has ended");
                let socket = accepted.recv().await.ok_or_else(ended)??;
                TcpStream::from_std(socket.into()).map(Stream::Tcp)
            }
        }
    }
}

/// Accepts connections until nobody wants them, as the agent in every respect: a connection belongs to the file-system
/// id of whoever accepts it, and by that the kernel chooses its routes. The agent's other threads are the user there,
/// and what is denied to user code would be denied to their answers.
fn accept_as_agent(listener: &OwnedFd, send: &mpsc::Sender<io::Result<OwnedFd>>) {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if let Err(error) = sys::set_file_ids(uid, gid) {
        let _ = send.blocking_send(Err(error));
        return;
    }
    loop {
        let accepted = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        if accepted.as_ref().is_ok_and(is_from_inside) {
            continue;
        }
        if send.blocking_send(accepted.map_err(io::Error::from)).is_err() {
            return;
        }
    }
}

/// Whether the other end is in this container too. One that has gone already, and so has no address, is let go alike.
fn is_from_inside(socket: &OwnedFd) -> bool {
    let peer =
        getpeername(socket).and_then(|peer| peer.ok_or(Errno::NOTCONN)).and_then(SocketAddrV4::try_from);
    match (peer, getsockname(socket).and_then(SocketAddrV4::try_from)) {
        (Ok(peer), Ok(here)) => is_own(*peer.ip(), *here.ip()),
        _ => true,
    }
}

/// Whether a connection between these two addresses stays within the machine. A sender may choose any of its own
/// addresses, so that either end can be the one that tells. Published ports come from the network's gateway.
fn is_own(peer: Ipv4Addr, here: Ipv4Addr) -> bool {
    peer.is_loopback() || here.is_loopback() || peer == here
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_inside_is_told_from_what_bay_dials() {
        let [own, gateway] = [Ipv4Addr::new(172, 20, 0, 2), Ipv4Addr::new(172, 20, 0, 1)];
        let [loopback, other] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 9, 9)];
        for (peer, here) in [(loopback, loopback), (other, own), (own, other), (own, own), (loopback, own)] {
            assert!(is_own(peer, here), "{peer} to {here}");
        }
        assert!(!is_own(gateway, own));
    }

    #[test]
    fn a_connection_of_this_machines_own_is_from_inside() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(is_from_inside(&accepted.into()));
        drop(stream);
    }
}
