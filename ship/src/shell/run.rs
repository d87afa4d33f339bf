//! A command in the foreground: followed to its end by one caller, with what it said kept to a bound.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bay_ship_api::http::MAX_INLINE_OUTPUT;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant as Deadline, sleep_until};

use super::{KILLED_GRACE, PIPE_CAPACITY, PIPE_GRACE, TERM_GRACE, dev_null};
use crate::agent::error::Failure;
use crate::spawner::client::Process;
use crate::spawner::protocol::End;
use crate::text::BoundedBytes;

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

/// How a command ended, and what it said.
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) timed_out: bool,
    pub(super) stdout: BoundedBytes,
    pub(super) stderr: BoundedBytes,
}

/// Reads both pipes, keeps the time, and sees the process to its end.
pub(super) async fn follow(
    mut process: Process,
    mut stdout: pipe::Receiver,
    mut stderr: pipe::Receiver,
    feed: Option<Feed>,
    timeout: Duration,
) -> Ran {
    let (mut out, mut err) = (BoundedBytes::new(MAX_INLINE_OUTPUT), BoundedBytes::new(MAX_INLINE_OUTPUT));
    let mut timed_out = false;
    let end = {
        let reading = async {
            tokio::join!(drain(&mut stdout, &mut out), drain(&mut stderr, &mut err));
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
                    if !timed_out {
                        until = Deadline::now() + PIPE_GRACE;
                    }
                }
                () = sleep_until(until) => match (end, timed_out, killed) {
                    // Past the grace: whoever still holds the pipes is in the background.
                    (Some(_), false, _) | (Some(_), _, true) => break,
                    (_, false, _) => {
                        timed_out = true;
                        process.signal(libc::SIGTERM);
                        until = Deadline::now() + TERM_GRACE;
                    }
                    (_, true, false) => {
                        killed = true;
                        process.kill_everything();
                        until = Deadline::now() + KILLED_GRACE;
                    }
                    // Not even KILL ends it (it may be stuck in the kernel): answer all the same.
                    (None, true, true) => {
                        end = Some(End::Signal(libc::SIGKILL));
                        break;
                    }
                },
            }
        }
        if timed_out && !killed {
            // Everything has closed its pipes in time, but some may have done so without ending.
            process.kill_everything();
        }
        end.unwrap_or(End::Signal(libc::SIGKILL))
    };
    rest(&stdout, &mut out);
    rest(&stderr, &mut err);
    Ran { end, timed_out, stdout: out, stderr: err }
}

/// Takes what lies in a pipe right now: all that the program itself can have left there.
fn rest(pipe: &pipe::Receiver, into: &mut BoundedBytes) {
    let mut chunk = vec![0u8; 8192];
    let mut left = PIPE_CAPACITY;
    while left > 0 {
        match pipe.try_read(&mut chunk) {
            Ok(count) if count > 0 => {
                into.push(&chunk[..count]);
                left = left.saturating_sub(count);
            }
            _ => return,
        }
    }
}

/// Reads to the end, keeping only what the bound allows: a program must never be stopped by a full pipe.
async fn drain(pipe: &mut pipe::Receiver, into: &mut BoundedBytes) {
    let mut chunk = vec![0u8; 8192];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        into.push(&chunk[..count]);
    }
}
