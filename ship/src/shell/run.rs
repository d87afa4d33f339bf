//! A command in the foreground: followed to its end by one caller, with what it said kept to a bound.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant as Deadline, sleep_until};

use super::{KILLED_GRACE, PIPE_GRACE, TERM_GRACE, dev_null};
use crate::agent::error::Failure;
use crate::execution::{Execution, Stream};
use crate::spawner::client::Process;
use crate::spawner::protocol::End;
use crate::sys;

/// What a pipe can hold at the most, however large its user made it: the kernel's own bound for a normal user.
const MAX_PIPE: usize = 1 << 20;
/// Read from a pipe at once.
const CHUNK: usize = 16 << 10;

/// What is to be written into a program's stdin.
pub(super) struct Feed {
    pipe: pipe::Sender,
    bytes: Vec<u8>,
}

/// The program's stdin, and what to write into it.
pub(super) fn stdin(text: Option<String>) -> Result<(OwnedFd, Option<Feed>), Failure> {
    let Some(text) = text else {
        return Ok((dev_null()?, None));
    };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(write.as_fd(), true)?;
    Ok((read, Some(Feed { pipe: pipe::Sender::from_owned_fd(write)?, bytes: text.into_bytes() })))
}

/// How a command ended.
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) stopped: Option<Stopped>,
}

/// Why a command was stopped from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Its time was up.
    Late,
    /// Somebody asked for it.
    Cancelled,
}

/// Reads both pipes into the execution, keeps the time, and sees the process to its end.
pub(super) async fn follow(
    mut process: Process,
    mut stdout: pipe::Receiver,
    mut stderr: pipe::Receiver,
    feed: Option<Feed>,
    timeout: Duration,
    execution: &Arc<Execution>,
) -> Ran {
    let mut stopped = None;
    let end = {
        let reading = async {
            tokio::join!(
                drain(&mut stdout, execution, Stream::Stdout),
                drain(&mut stderr, execution, Stream::Stderr)
            );
        };
        let feeding = async {
            if let Some(Feed { mut pipe, bytes }) = feed {
                // A program that does not read its stdin is no error.
                let _ = pipe.write_all(&bytes).await;
            }
        };
        tokio::pin!(reading, feeding);
        let (mut read, mut fed) = (false, false);
        let mut end = None;
        let mut killed = false;
        let mut until = Deadline::now() + timeout;
        loop {
            tokio::select! {
                () = &mut feeding, if !fed => fed = true,
                () = &mut reading, if !read => {
                    read = true;
                    if end.is_some() { break }
                }
                ended = process.wait(), if end.is_none() => {
                    end = Some(ended);
                    if read { break }
                    if stopped.is_none() {
                        until = Deadline::now() + PIPE_GRACE;
                    }
                }
                () = execution.cancellation(), if stopped.is_none() && end.is_none() => {
                    stopped = Some(Stopped::Cancelled);
                    process.signal(libc::SIGTERM);
                    until = Deadline::now() + TERM_GRACE;
                }
                () = sleep_until(until) => match (end, stopped, killed) {
                    // Past the grace: whoever still holds the pipes is in the background.
                    (Some(_), None, _) | (Some(_), _, true) => break,
                    (_, None, _) => {
                        stopped = Some(Stopped::Late);
                        process.signal(libc::SIGTERM);
                        until = Deadline::now() + TERM_GRACE;
                    }
                    (_, Some(_), false) => {
                        killed = true;
                        process.kill_everything();
                        until = Deadline::now() + KILLED_GRACE;
                    }
                    // Not even KILL ends it (it may be stuck in the kernel): answer all the same.
                    (None, Some(_), true) => {
                        end = Some(End::Signal(libc::SIGKILL));
                        break;
                    }
                },
            }
        }
        if stopped.is_some() && !killed {
            // Everything has closed its pipes in time, but some may have done so without ending.
            process.kill_everything();
        }
        end.unwrap_or(End::Signal(libc::SIGKILL))
    };
    rest(&stdout, execution, Stream::Stdout);
    rest(&stderr, execution, Stream::Stderr);
    execution.write_out().await;
    Ran { end, stopped }
}

/// Takes what lies in a pipe right now: all that the program itself can have left there.
fn rest(pipe: &pipe::Receiver, execution: &Execution, stream: Stream) {
    let mut chunk = vec![0u8; CHUNK];
    let mut left = MAX_PIPE;
    while left > 0 {
        match sys::read_now(pipe, &mut chunk) {
            Ok(count) if count > 0 => {
                execution.output(stream, &chunk[..count]);
                left = left.saturating_sub(count);
            }
            _ => return,
        }
    }
}

/// Reads to the end. A program is held up by those who follow its events and by the disk, never by what is kept.
async fn drain(pipe: &mut pipe::Receiver, execution: &Arc<Execution>, stream: Stream) {
    let mut chunk = vec![0u8; CHUNK];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        execution.output(stream, &chunk[..count]);
        execution.settle().await;
    }
}
