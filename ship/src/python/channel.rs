//! One socket of a kernel: a ZMTP connection over a unix socket that carries Jupyter messages.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::message::{Incoming, Reader, Signer};
use super::zmtp;
use crate::sys;

/// Read at once. Complete messages of one read are all that is ever waiting.
const BUFFER: usize = 64 << 10;

/// Which kind of peer we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests and replies.
    Dealer,
    /// Everything published.
    Sub,
}

pub(super) struct Channel {
    stream: UnixStream,
    reader: Reader,
    waiting: VecDeque<Incoming>,
    buffer: Box<[u8]>,
}

impl Channel {
    /// Waits for the kernel to bind `path`, then greets it. The caller bounds the time.
    pub(super) async fn connect(path: &Path, kind: Kind, signer: Signer) -> io::Result<Self> {
        let mut stream = connect(path).await?;
        stream.write_all(&zmtp::GREETING).await?;
        let mut greeting = [0; 64];
        stream.read_exact(&mut greeting).await?;
        zmtp::check_greeting(&greeting).map_err(|_| not_zmtp())?;
        let hello = match kind {
            Kind::Dealer => zmtp::ready("DEALER"),
            Kind::Sub => [zmtp::ready("SUB"), zmtp::SUBSCRIBE_ALL.to_vec()].concat(),
        };
        stream.write_all(&hello).await?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { stream, reader: Reader::new(signer), waiting: VecDeque::new(), buffer })
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// The next message. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            self.stream.readable().await?;
            let read = self.stream.try_read(&mut self.buffer);
            self.take(read)?;
        }
    }

    /// A message that has arrived already, if there is one.
    pub(super) fn next_now(&mut self) -> Option<Incoming> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(message);
            }
            let read = sys::read_now(&self.stream, &mut self.buffer);
            if !self.take(read).ok()? {
                return None;
            }
        }
    }

    /// Takes what was read into the buffer; false when there was nothing to read.
    fn take(&mut self, read: io::Result<usize>) -> io::Result<bool> {
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let waiting = &mut self.waiting;
                self.reader
                    .feed(&self.buffer[..count], |message| waiting.push_back(message))
                    .map_err(|_| not_zmtp())?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn not_zmtp() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's socket does not speak ZMTP")
}

/// The socket appears some hundred milliseconds after the interpreter's start. A try costs a few microseconds, so
/// it is made every millisecond while that is likely, and less often after.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock => {}
                _ => return Err(error),
            },
        }
        let eager = began.elapsed() < Duration::from_secs(3);
        sleep(Duration::from_millis(if eager { 1 } else { 10 })).await;
    }
}
