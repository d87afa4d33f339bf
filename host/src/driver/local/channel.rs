//! What Bay and its launcher say to each other: JSON messages with descriptors, over a socket that keeps messages
//! apart. It is the launcher's stdin, so no other descriptor has to be inherited.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// Largest message: a plan is some 20 KiB.
const MAX_MESSAGE: usize = 128 * 1024;
/// Most descriptors in one message.
const MAX_FDS: usize = 4;

/// Makes both ends; each waits for at most `patience` for the other.
pub(super) fn pair(patience: Duration) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&one, &other] {
        set_socket_timeout(end, Timeout::Recv, Some(patience))?;
        set_socket_timeout(end, Timeout::Send, Some(patience))?;
    }
    Ok((one, other))
}

/// Sends one message.
pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    if text.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::other("message too large for the launcher"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; the other end's death is an error.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut text = vec![0_u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            outcome => break outcome?,
        }
    };
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((serde_json::from_slice(&text[..received.bytes]).map_err(io::Error::other)?, fds))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn messages_arrive_whole_with_their_descriptors() {
        let (one, other) = pair(Duration::from_secs(5)).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&one, &vec!["x".repeat(20_000)], &[writer.as_fd()]).unwrap();
        send(&one, &7, &[]).unwrap();
        drop(writer);
        let (text, fds): (Vec<String>, _) = receive(&other).unwrap();
        assert_eq!(text[0].len(), 20_000);
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"hi").unwrap();
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "hi");
        assert_eq!(receive::<i32>(&other).unwrap().0, 7);
        drop(one);
        assert_eq!(receive::<i32>(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn patience_ends() {
        let (_one, other) = pair(Duration::from_millis(20)).unwrap();
        assert_eq!(receive::<i32>(&other).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
