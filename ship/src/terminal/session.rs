//! One terminal's conversation: bytes between socket and PTY until one of them is over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use super::control::{Mode, Text};
use super::pty::Pty;
use super::{Process, Terminal};
use crate::agent::stream::Stream;
use crate::shell::signal_name;
use crate::spawner::protocol::End;
use crate::sys;

/// The largest message a client may send, and the largest frame: a paste of more comes in several.
const MAX_MESSAGE: usize = 64 << 10;
/// Input kept for a program that does not read it. Once there is this much the socket is not read, until the
/// program does; with the message that passed the bound, no more than twice as much is ever kept.
const MAX_PENDING: usize = 64 << 10;
/// Output in one frame.
const CHUNK: usize = 32 << 10;
/// Room for unsent frames: one of output, and the control frames beside it. More are never made.
const MAX_UNSENT: usize = 2 * CHUNK;
/// What a socket is read with at once.
const READ_BUFFER: usize = 4 << 10;
/// Keeps proxies on the way from taking a quiet terminal for a dead one.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a quiet PTY is waited for once its shell has ended: what that had written comes at once.
const QUIET: Duration = Duration::from_millis(100);
/// Most output after the shell's end. The kernel keeps less than this in a PTY; whoever outlived the shell and has
/// opened the PTY anew could write for ever.
const MAX_REST: usize = 256 << 10;
/// Between looks at a PTY that nobody has open while its shell runs on: it can be opened again by name.
const UNOPENED: Duration = Duration::from_millis(250);
/// How long the other side may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<Stream>;

/// Why a conversation ended.
enum Over {
    /// The shell has ended, and everything was said.
    Exited,
    /// The client closed in due form.
    Closed,
    /// The connection broke.
    Gone,
    /// The client broke the rules.
    Refused(CloseCode, &'static str),
    /// The PTY cannot be used any more.
    Failed,
}

/// Runs a terminal on an upgraded connection until one of them is over; afterwards nothing of it is left.
pub(crate) async fn run(upgraded: Upgraded, mut terminal: Terminal, mode: Mode) {
    // Ship's connections are of this type, always.
    let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<Stream>>() else {
        return terminal.end().await;
    };
    let Ok(hang_up) = HangUp::of(io.inner()) else { return terminal.end().await };
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = MAX_UNSENT;
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let socket: Socket =
        WebSocketStream::from_partially_read(io.into_inner(), read_buf.into(), Role::Server, Some(config))
            .await;
    let (mut sink, mut stream) = socket.split();
    let over = {
        let Terminal { process, pty, .. } = &mut terminal;
        tokio::select! {
            over = input(&mut stream, pty, mode) => over,
            over = output(&mut sink, pty, process) => over,
            // Input that nobody takes keeps the socket from being read, so that its end is not seen there.
            () = hang_up.wait() => Over::Gone,
        }
    };
    tokio::join!(terminal.end(), close(sink, stream, over));
}

/// From the socket to the PTY.
async fn input(stream: &mut SplitStream<Socket>, pty: &Pty, mode: Mode) -> Over {
    let mut pending = BytesMut::new();
    loop {
        tokio::select! {
            message = stream.next(), if pending.len() < MAX_PENDING => match message {
                Some(Ok(Message::Binary(bytes))) => pending.extend_from_slice(&bytes),
                Some(Ok(Message::Text(text))) => match Text::read(&text, mode) {
                    // A PTY whose other side has gone takes no size, and needs none.
                    Text::Resize(size) => drop(pty.resize(size)),
                    Text::Ignored => {}
                    Text::Input => pending.extend_from_slice(text.as_bytes()),
                    Text::Malformed => return Over::Refused(
                        CloseCode::Protocol,
                        "text frames must be JSON objects with a type",
                    ),
                },
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) => return Over::Closed,
                Some(Err(error)) => return broken(&error),
                None => return Over::Gone,
            },
            taken = pty.write(&pending), if !pending.is_empty() => match taken {
                Ok(count) => pending.advance(count),
                // Nobody is there to read it. The other direction sees how that goes on.
                Err(_) => pending.clear(),
            },
        }
    }
}

fn broken(error: &Error) -> Over {
    match error {
        Error::Capacity(_) => Over::Refused(CloseCode::Size, "a message may have 64 KiB"),
        Error::Utf8(_) => Over::Refused(CloseCode::Invalid, "a text frame is not UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Over::Gone,
        Error::Protocol(_) => Over::Refused(CloseCode::Protocol, "this is not how WebSockets work"),
        _ => Over::Gone,
    }
}

/// From the PTY to the socket, with pings between, then how the shell ended.
async fn output(sink: &mut SplitSink<Socket, Message>, pty: &Pty, process: &mut Process) -> Over {
    let mut chunk = vec![0; CHUNK];
    let end = match while_running(sink, pty, process, &mut chunk).await {
        Ok(end) => end,
        Err(over) => return over,
    };
    // What the shell left in the background is not to outlive it, nor to add to its output.
    process.kill_everything();
    let mut left = MAX_REST;
    while left > 0
        && let Ok(Ok(count)) = timeout(QUIET, pty.read(&mut chunk)).await
    {
        left = left.saturating_sub(count);
        if send(sink, &chunk[..count]).await.is_err() {
            return Over::Gone;
        }
    }
    let exit = match end {
        End::Code(code) => json!({"type": "exit", "code": code}),
        End::Signal(signal) => json!({"type": "exit", "code": null, "signal": signal_name(signal)}),
    };
    match sink.send(Message::text(exit.to_string())).await {
        Ok(()) => Over::Exited,
        Err(_) => Over::Gone,
    }
}

async fn while_running(
    sink: &mut SplitSink<Socket, Message>,
    pty: &Pty,
    process: &mut Process,
    chunk: &mut [u8],
) -> Result<End, Over> {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    loop {
        // A frame is sent to its end before anything else is read: this is what holds a fast program back.
        tokio::select! {
            read = pty.read(chunk), if open => match read {
                Ok(count) => send(sink, &chunk[..count]).await.map_err(|_| Over::Gone)?,
                // Every program has closed it. Most likely the shell is about to end.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => open = false,
                Err(_) => return Err(Over::Failed),
            },
            () = sleep(UNOPENED), if !open => open = true,
            end = process.wait() => return Ok(end),
            _ = pings.tick() => sink.send(Message::Ping(Bytes::new())).await.map_err(|_| Over::Gone)?,
        }
    }
}

async fn send(sink: &mut SplitSink<Socket, Message>, bytes: &[u8]) -> Result<(), Error> {
    sink.send(Message::Binary(Bytes::copy_from_slice(bytes))).await
}

/// Says why, and gives the other side a moment to answer.
async fn close(mut sink: SplitSink<Socket, Message>, mut stream: SplitStream<Socket>, over: Over) {
    let (code, reason) = match over {
        Over::Exited => (CloseCode::Normal, ""),
        Over::Refused(code, reason) => (code, reason),
        Over::Failed => (CloseCode::Error, "the terminal failed"),
        Over::Closed => {
            // The answer is made already, and only waits to be written.
            let _ = timeout(CLOSE_WAIT, sink.flush()).await;
            return;
        }
        Over::Gone => return,
    };
    let _ = timeout(CLOSE_WAIT, async {
        let frame = CloseFrame { code, reason: reason.into() };
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    })
    .await;
}

/// Notices that the other side closed its socket, without reading from it.
struct HangUp {
    socket: AsyncFd<OwnedFd>,
    interest: Interest,
}

impl HangUp {
    fn of(stream: &Stream) -> io::Result<Self> {
        let interest = match stream {
            // Priority data do not exist on such sockets, so that what remains to be reported is the hang-up.
            Stream::Unix(_) => Interest::PRIORITY,
            // TCP reports the other side's end only along with input: each piece of input wakes for nothing.
            Stream::Tcp(_) => Interest::READABLE,
        };
        Ok(Self { socket: sys::watch(stream.as_fd().try_clone_to_owned()?, interest)?, interest })
    }

    async fn wait(&self) {
        // An error means that the runtime is ending.
        while let Ok(mut guard) = self.socket.ready(self.interest).await {
            if guard.ready().is_read_closed() {
                return;
            }
            guard.clear_ready();
        }
    }
}
