//! Following a background process to its end: its output into the rings, its timeout, its TERM and KILL.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant as Deadline, sleep_until};

use super::registry::{Outcome, Registry};
use super::{KILLED_GRACE, PIPE_CAPACITY, PIPE_GRACE, TERM_GRACE};
use crate::execution::Stream;
use crate::spawner::client::Process;
use crate::spawner::protocol::End;
use crate::sys;

/// Between two KILLs for a process that has not ended.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// Read from a pipe at once: all that it holds.
const CHUNK: usize = PIPE_CAPACITY;

/// Where a process is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// It ended by itself; what it left in its pipes is read.
    Ended,
    /// It got TERM.
    Asked,
    /// All that descends from it got KILL.
    Killed,
}

/// Sees one process to its end.
pub(super) struct Follower {
    pub(super) sink: Sink,
    pub(super) process: Process,
    /// Becomes true when somebody wants the end.
    pub(super) stop: watch::Receiver<bool>,
}

impl Follower {
    pub(super) async fn follow(
        mut self,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        timeout: Option<Duration>,
    ) {
        let (mut out, mut err) = (Some(stdout), Some(stderr));
        let (mut phase, mut end) = (Phase::Running, None);
        let (mut timed_out, mut stopped) = (false, false);
        let mut until = timeout.map(|timeout| Deadline::now() + timeout);
        while end.is_none() || out.is_some() || err.is_some() {
            tokio::select! {
                () = self.sink.pump(&mut out, Stream::Stdout), if out.is_some() => {}
                () = self.sink.pump(&mut err, Stream::Stderr), if err.is_some() => {}
                ended = self.process.wait(), if end.is_none() => {
                    end = Some(ended);
                    if phase == Phase::Running {
                        (phase, until) = (Phase::Ended, Some(Deadline::now() + PIPE_GRACE));
                    }
                }
                () = wished(&mut self.stop), if phase == Phase::Running => {
                    stopped = true;
                    self.process.signal(libc::SIGTERM);
                    (phase, until) = (Phase::Asked, Some(Deadline::now() + TERM_GRACE));
                }
                () = at(until) => match phase {
                    Phase::Running => {
                        timed_out = true;
                        self.process.signal(libc::SIGTERM);
                        (phase, until) = (Phase::Asked, Some(Deadline::now() + TERM_GRACE));
                    }
                    // Whoever still holds the pipes was left behind on purpose.
                    Phase::Ended => break,
                    Phase::Asked => {
                        self.process.kill_everything();
                        (phase, until) = (Phase::Killed, Some(Deadline::now() + KILLED_GRACE));
                    }
                    Phase::Killed if end.is_some() => break,
                    Phase::Killed => {
                        self.process.kill_everything();
                        until = Some(Deadline::now() + KILL_AGAIN);
                    }
                },
            }
        }
        if phase == Phase::Asked {
            // All have closed the pipes in time, but some may have done so without ending.
            self.process.kill_everything();
        }
        for (pipe, stream) in [(&out, Stream::Stdout), (&err, Stream::Stderr)] {
            self.sink.rest(pipe.as_ref(), stream);
        }
        // The loop ends without an end only where there is one.
        let end = end.unwrap_or(End::Signal(libc::SIGKILL));
        self.sink.jobs.finish(self.sink.number, Outcome { end, timed_out, stopped });
    }
}

/// Where a process's output goes.
pub(super) struct Sink {
    pub(super) jobs: Arc<Registry>,
    pub(super) number: u64,
}

impl Sink {
    /// Waits for something in the pipe and takes it; the pipe goes at its end. The process is never held up by a
    /// reader: what the ring has no room for is lost, and counted.
    async fn pump(&self, pipe: &mut Option<pipe::Receiver>, stream: Stream) {
        let Some(open) = pipe else { return };
        let alive = open.readable().await.is_ok() && self.take(open, stream);
        if alive {
            // Others have their turn, however fast this one writes.
            tokio::task::yield_now().await;
        } else {
            *pipe = None;
            self.jobs.close(self.number, stream);
        }
    }

    /// False at the end of the stream.
    fn take(&self, pipe: &pipe::Receiver, stream: Stream) -> bool {
        let mut chunk = [0u8; CHUNK];
        self.put(pipe.try_read(&mut chunk), &chunk, stream)
    }

    /// False where what was read is the end of the stream.
    fn put(&self, read: std::io::Result<usize>, chunk: &[u8], stream: Stream) -> bool {
        match read {
            Ok(0) => false,
            Ok(count) => {
                self.jobs.push(self.number, stream, &chunk[..count]);
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// Takes what lies in a pipe right now.
    fn rest(&self, pipe: Option<&pipe::Receiver>, stream: Stream) {
        let Some(pipe) = pipe else { return };
        let mut chunk = [0u8; CHUNK];
        self.put(sys::read_now(pipe, &mut chunk), &chunk, stream);
    }
}

/// Resolves once somebody wants the end.
async fn wished(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

async fn at(until: Option<Deadline>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
