//! Background processes: started, read from, written to and ended by later calls.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bay_ship_api::http::{ProcessInfo, ProcessOutput, ShellExecRequest, StdinRequest, StdinResponse};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use super::follow::{Follower, Sink};
use super::registry::{Job, unknown};
use super::{PIPE_CAPACITY, Shell, capture_pipe, refused};
use crate::agent::error::{Code, Failure};
use crate::execution::Stream;

/// Longest wait for more output.
pub(crate) const MAX_WAIT: u64 = 30;
/// Most bytes of output in one answer, and how many without a wish: JSON may make six of one.
pub(crate) const MAX_READ: usize = 256 << 10;
pub(crate) const DEFAULT_READ: usize = 64 << 10;
/// Fewer might not hold one character.
pub(crate) const MIN_READ: usize = 4;
/// Most bytes for stdin in one call.
const MAX_STDIN: usize = 1 << 20;
/// How long a call waits for a process to read its stdin: it may never do so.
const STDIN_WAIT: Duration = Duration::from_secs(5);
/// How long a DELETE waits for the end: TERM, KILL and some room. What KILL does not end is stuck in the kernel.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What to read of a process.
pub(crate) struct ReadRequest {
    pub(crate) stream: Stream,
    /// In bytes from the stream's beginning.
    pub(crate) offset: u64,
    /// [`MIN_READ`]..=[`MAX_READ`].
    pub(crate) limit: usize,
    pub(crate) base64: bool,
    /// How long to wait for the first byte or the end.
    pub(crate) wait: Duration,
}

impl Shell {
    /// Starts a process that nobody waits for. Checked as one in the foreground.
    pub(super) async fn start(
        &self,
        request: ShellExecRequest,
        execution_id: Option<String>,
    ) -> Result<String, Failure> {
        let Ok(permit) = Arc::clone(&self.background).try_acquire_owned() else {
            let message = format!("{} background processes are running already", super::MAX_BACKGROUND);
            return Err(Failure::new(Code::Busy, message));
        };
        let timeout = request.timeout.map(|seconds| Duration::from_secs(seconds.into()));
        let (stdin, feed) = stdin(request.stdin.as_deref())?;
        let (stdout, theirs_out) = capture_pipe()?;
        let (stderr, theirs_err) = capture_pipe()?;
        let shown = request.command.clone();
        let command = self.command(request)?;
        let process = self.spawner.spawn(command, [stdin, theirs_out, theirs_err]).await.map_err(refused)?;
        let number = self.next_number();
        let process_id = process_id(number);
        let job = Job::new(process_id.clone(), execution_id, process.pid(), &shown, feed);
        let stop = job.stop.subscribe();
        self.jobs.insert(number, job);
        let follower = Follower { sink: Sink { jobs: Arc::clone(&self.jobs), number }, process, stop };
        tokio::spawn(async move {
            let _permit = permit;
            follower.follow(stdout, stderr, timeout).await;
        });
        Ok(process_id)
    }

    /// Every process that is known, in the order of their starts.
    pub(crate) fn processes(&self) -> Vec<ProcessInfo> {
        self.jobs.list()
    }

    /// A piece of what one wrote, perhaps after a wait for it.
    pub(crate) async fn read(&self, id: &str, request: &ReadRequest) -> Result<ProcessOutput, Failure> {
        let number = number(id)?;
        let until = Deadline::now() + request.wait;
        let mut changes = self.jobs.with(number, |job| job.changes.subscribe())?;
        loop {
            changes.mark_unchanged();
            let output = self.jobs.with(number, |job| piece(job, request))??;
            if !output.content.is_empty() || output.eof || output.lost > 0 {
                return Ok(output);
            }
            if timeout_at(until, changes.changed()).await.is_err() {
                return Ok(output);
            }
        }
    }

    /// Writes to the stdin of one, as far as it reads within [`STDIN_WAIT`].
    pub(crate) async fn write(&self, id: &str, request: &StdinRequest) -> Result<StdinResponse, Failure> {
        let number = number(id)?;
        let data = decode(request)?;
        if data.len() > MAX_STDIN {
            let message = format!("more than {MAX_STDIN} bytes at once; send it in parts");
            return Err(Failure::new(Code::PayloadTooLarge, message));
        }
        let stdin = self.jobs.with(number, |job| Arc::clone(&job.stdin))?;
        let mut taken = 0;
        let written = timeout(STDIN_WAIT, async {
            let mut stdin = stdin.lock().await;
            let Some(pipe) = stdin.as_mut() else { return Err(closed(taken)) };
            while taken < data.len() {
                match pipe.write(&data[taken..]).await {
                    Ok(count) if count > 0 => taken += count,
                    _ => {
                        stdin.take();
                        return Err(closed(taken));
                    }
                }
            }
            if request.close {
                stdin.take();
            }
            Ok(stdin.is_none())
        })
        .await;
        if !self.jobs.with(number, Job::running).unwrap_or(false) {
            // It ended meanwhile, and the pipe could not be closed under this writer.
            stdin.lock().await.take();
        }
        match written {
            Ok(Ok(closed)) => Ok(StdinResponse { process_id: id.to_owned(), taken: taken as u64, closed }),
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let message =
                    format!("the process does not read: {taken} of {} bytes were taken", data.len());
                let mut failure = Failure::new(Code::Busy, message);
                failure.details = json!({"taken": taken, "closed": false});
                Err(failure)
            }
        }
    }

    /// Ends one that runs and answers how it ended; forgets one that has ended.
    pub(crate) async fn stop(&self, id: &str) -> Result<ProcessInfo, Failure> {
        let number = number(id)?;
        if let Some(info) = self.jobs.remove_ended(number) {
            return Ok(info);
        }
        let mut changes = self.jobs.with(number, |job| {
            job.stop.send_replace(true);
            job.changes.subscribe()
        })?;
        let until = Deadline::now() + STOP_WAIT;
        loop {
            changes.mark_unchanged();
            let (running, info) = self.jobs.with(number, |job| (job.running(), job.info()))?;
            if !running {
                return Ok(info);
            }
            if timeout_at(until, changes.changed()).await.is_err() {
                let message = "it was sent KILL and has not ended: it is stuck in the kernel";
                return Err(Failure::new(Code::RuntimeError, message));
            }
        }
    }
}

/// The name of a process.
pub(super) fn process_id(number: u64) -> String {
    format!("proc_{number}")
}

fn number(id: &str) -> Result<u64, Failure> {
    let number = id.strip_prefix("proc_").and_then(|number| number.parse().ok());
    number.filter(|number| process_id(*number) == id).ok_or_else(unknown)
}

fn piece(job: &Job, request: &ReadRequest) -> Result<ProcessOutput, Failure> {
    let (ring, open) = (job.ring(request.stream), job.open(request.stream));
    if request.offset > ring.end() {
        return Err(Failure::field("offset", format!("the stream has only {} bytes so far", ring.end())));
    }
    let piece = if request.base64 {
        ring.read(request.offset, request.limit)
    } else {
        ring.read_text(request.offset, request.limit, open)
    };
    let next_offset = piece.offset + piece.bytes.len() as u64;
    let (content, encoding) = if request.base64 {
        (STANDARD.encode(&piece.bytes), "base64")
    } else {
        (String::from_utf8_lossy(&piece.bytes).into_owned(), "utf-8")
    };
    Ok(ProcessOutput {
        process: job.info(),
        stream: request.stream.name().to_owned(),
        offset: piece.offset,
        next_offset,
        lost: piece.lost,
        content,
        encoding: encoding.to_owned(),
        eof: !open && next_offset == ring.end(),
    })
}

fn decode(request: &StdinRequest) -> Result<Vec<u8>, Failure> {
    match request.encoding.as_deref() {
        None | Some("utf-8") => Ok(request.data.clone().into_bytes()),
        Some("base64") => {
            STANDARD.decode(&request.data).map_err(|_| Failure::field("data", "not valid base64"))
        }
        Some(_) => Err(Failure::field("encoding", "must be utf-8 or base64")),
    }
}

fn closed(taken: usize) -> Failure {
    let mut failure = Failure::new(Code::Conflict, "the process's stdin is closed");
    failure.details = json!({"taken": taken, "closed": true});
    failure
}

/// A process's stdin and our end of it; with a text, that is all there will be.
fn stdin(text: Option<&str>) -> Result<(OwnedFd, Option<pipe::Sender>), Failure> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(write.as_fd(), true)?;
    let Some(text) = text else {
        return Ok((read, Some(pipe::Sender::from_owned_fd(write)?)));
    };
    // Nobody reads yet, so it must fit: nothing of it is kept in memory.
    let bytes = text.as_bytes();
    if bytes.len() > PIPE_CAPACITY {
        let message =
            format!("more than {PIPE_CAPACITY} bytes; send it to the process's stdin route in parts");
        return Err(Failure::field("stdin", message));
    }
    if !bytes.is_empty() && !rustix::io::write(&write, bytes).is_ok_and(|count| count == bytes.len()) {
        return Err(Failure::new(Code::Busy, "the kernel has no room for so much in a pipe now"));
    }
    Ok((read, None))
}
