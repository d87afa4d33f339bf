//! The built-in interpreter loop (`loop.py`), for a container whose Python has no ipykernel: started, asked, and
//! seen to its end with the same promises as a kernel.
//!
//! ```text
//! Ship ◀──frames── a socket pair, descriptor 0 at the start, then moved out of the way
//!      ◀──bytes─── pipes at 1 and 2: prints, children, C code
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};

use super::engine::Leash;
use super::frames::{Frame, FrameReader, Pieces, encode};
use super::kernel::{Ending, INTERRUPT_GRACE, Interrupt, SEND, START, StartFailure, end_words};
use super::late::Late;
use super::launch::{Guard, guard_arguments, random_hex, ready_code};
use super::output::Collector;
use crate::init::RUN_USER_DIR;
use crate::shell::{capture_pipe, refused};
use crate::spawner::client::{Command, Spawner};
use crate::spawner::protocol::End;
use crate::sys;
use crate::user::World;

const PROGRAM: &str = include_str!("loop.py");
/// Read from the socket or a pipe at once.
const CHUNK: usize = 32 << 10;
/// Most bytes taken from a pipe once the answer is there: the largest that user code can make a pipe. What a
/// writer in the background adds meanwhile must not hold the answer for ever.
const MAX_LEFT: usize = 1 << 20;
/// Kept of the last words on stderr, for a death.
const MAX_LAST_WORDS: usize = 2048;

/// One of the two text pipes.
struct Pipe {
    name: &'static str,
    from: pipe::Receiver,
    pieces: Pieces,
    open: bool,
}

pub(super) struct Interpreter {
    process: Leash,
    control: UnixStream,
    frames: FrameReader,
    waiting: std::collections::VecDeque<Frame>,
    pipes: [Pipe; 2],
    chunk: Box<[u8]>,
    late: Late,
}

impl Interpreter {
    /// Starts the loop and waits until it answers. When the future is dropped, what it started is ended.
    pub(super) async fn start(
        spawner: &Spawner,
        world: &World,
        guard: Guard,
        attempt: u64,
        late: Late,
    ) -> Result<Self, StartFailure> {
        let python = world.python.as_deref().ok_or_else(|| StartFailure::Other("no Python".into()))?;
        let private = format!("{RUN_USER_DIR}/kernel-{attempt}");
        let program = write_program(&private)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (out, their_out) = capture_pipe()?;
        let (err, their_err) = capture_pipe()?;
        let mut argv = vec![python.as_bytes().to_vec()];
        argv.extend(guard_arguments(guard).iter().map(|option| option.as_bytes().to_vec()));
        argv.push(program.into());
        let mut env = world.kernel_env(&private);
        if !env.iter().any(|pair| pair.starts_with(b"MPLBACKEND=")) {
            env.push(b"MPLBACKEND=Agg".to_vec());
        }
        let command = Command { argv, env, cwd: private.into() };
        let process =
            spawner.spawn(command, [OwnedFd::from(theirs), their_out, their_err]).await.map_err(refused)?;
        let _going = process.keep_going();
        let pipe = |name, from| Pipe { name, from, pieces: Pieces::default(), open: true };
        let mut this = Self {
            process: Leash(process),
            control: UnixStream::from_std(ours)?,
            frames: FrameReader::default(),
            waiting: Default::default(),
            pipes: [pipe("stdout", out), pipe("stderr", err)],
            chunk: vec![0; CHUNK].into_boxed_slice(),
            late,
        };
        this.become_ready(world).await?;
        Ok(this)
    }

    async fn become_ready(&mut self, world: &World) -> Result<(), StartFailure> {
        let content = json!({"code": ready_code(&world.withheld()), "silent": true});
        let mut collector = Collector::new(None);
        let ending = self.request(&content, &mut collector, Instant::now() + START, Duration::ZERO).await;
        let gathered = collector.finish();
        match (ending, gathered.error) {
            (Ending::Complete, None) => Ok(()),
            (Ending::Complete, Some(error)) => {
                Err(StartFailure::Other(format!("{}: {}", error.name, error.value)))
            }
            (Ending::Died(end), _) => Err(explain(end, &gathered.output)),
            (other, _) => {
                Err(StartFailure::Other(format!("the interpreter did not become ready: {other:?}")))
            }
        }
    }

    /// Runs code. `collector` has whatever it said, however it ended.
    pub(super) async fn execute(&mut self, code: &str, limit: Duration, collector: &mut Collector) -> Ending {
        let content = json!({"code": code, "silent": false});
        self.request(&content, collector, Instant::now() + limit, INTERRUPT_GRACE).await
    }

    /// Sends a request and follows it to its reply. At `until` the interpreter is interrupted; after `grace` more
    /// it counts as stuck.
    async fn request(
        &mut self,
        content: &Value,
        collector: &mut Collector,
        until: Instant,
        grace: Duration,
    ) -> Ending {
        let token = match random_hex() {
            Ok(token) => token,
            Err(_) => return Ending::Broken("no random numbers".into()),
        };
        let (mut until, mut interrupted, mut again) = (until, false, Interrupt::default());
        let ending = {
            let message = encode(&token, "execute_request", content);
            match timeout(SEND, self.control.write_all(&message)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(self.broken(&error).await),
                Err(_) => Some(Ending::Broken("it did not take the request".into())),
            }
        };
        if let Some(ending) = ending {
            return ending;
        }
        loop {
            let event = tokio::select! {
                event = next(&mut self.control, &mut self.frames, &mut self.waiting, &mut self.pipes, &mut self.chunk) => event,
                end = self.process.wait() => {
                    self.take_rest(&token, collector);
                    return Ending::Died(end);
                }
                () = collector.cancellation(), if !interrupted => {
                    interrupted = true;
                    again.send(&self.process, collector);
                    until = Instant::now() + grace;
                    continue;
                }
                () = again.due() => {
                    again.send(&self.process, collector);
                    continue;
                }
                () = sleep_until(until) => {
                    if interrupted || grace.is_zero() {
                        return Ending::Stuck;
                    }
                    interrupted = true;
                    again.send(&self.process, collector);
                    until = Instant::now() + grace;
                    continue;
                }
            };
            match event {
                Ok(Heard::Text(name, text)) => {
                    collector.stream(name, &text);
                    // The kernel's own pipes: unlike a socket that drops, they can be held up for those who follow.
                    collector.settle().await;
                }
                Ok(Heard::Frame(frame)) => {
                    if frame.token == token {
                        // What was written before it comes before it.
                        self.drain_pipes(collector);
                        collector.settle().await;
                    }
                    // Code can write frames faster than anything else here is done.
                    tokio::task::yield_now().await;
                    if self.take_frame(&token, frame, collector) {
                        return if interrupted { Ending::Interrupted } else { Ending::Complete };
                    }
                }
                Err(error) => {
                    let ending = self.broken(&error).await;
                    self.take_rest(&token, collector);
                    return ending;
                }
            }
        }
    }

    /// True for the reply.
    fn take_frame(
        &self,
        token: &str,
        Frame { token: of, message }: Frame,
        collector: &mut Collector,
    ) -> bool {
        if message.kind == "late" {
            let text = message.content::<Value>().unwrap_or_default();
            self.late.push(text["text"].as_str().unwrap_or_default());
        } else if of != token {
            // A display of a thread whose cell is over. Displays are large; that there was one must do.
            self.late.push("[a display came late]\n");
        } else {
            match message.kind.as_str() {
                "execute_reply" => {
                    collector.reply(&message);
                    return true;
                }
                "cut" => collector.lost(),
                _ => collector.iopub(&message),
            }
        }
        false
    }

    /// After the end: what still lies in pipes and socket.
    fn take_rest(&mut self, token: &str, collector: &mut Collector) {
        self.drain_pipes(collector);
        let mut left = MAX_LEFT;
        while let Ok(count) = sys::read_now(&self.control, &mut self.chunk) {
            let waiting = &mut self.waiting;
            let read = self.frames.feed(&self.chunk[..count], |frame| waiting.push_back(frame));
            left = left.saturating_sub(count);
            if count == 0 || left == 0 || read.is_err() {
                break;
            }
        }
        // A reply among them would be one to a process that died right after: its words count, its success not.
        while let Some(frame) = self.waiting.pop_front() {
            self.take_frame(token, frame, collector);
        }
        for pipe in &mut self.pipes {
            collector.stream(pipe.name, &pipe.pieces.rest());
        }
    }

    /// Takes what lies in the pipes right now.
    fn drain_pipes(&mut self, collector: &mut Collector) {
        for pipe in &mut self.pipes {
            let mut left = MAX_LEFT;
            while left > 0 {
                match sys::read_now(&pipe.from, &mut self.chunk) {
                    Ok(count) if count > 0 => {
                        collector.stream(pipe.name, &pipe.pieces.text(&self.chunk[..count]));
                        left = left.saturating_sub(count);
                    }
                    _ => break,
                }
            }
        }
    }

    /// A broken socket is most often an interpreter that is ending: the exit says more.
    async fn broken(&mut self, error: &io::Error) -> Ending {
        match timeout(Duration::from_secs(1), self.process.wait()).await {
            Ok(end) => Ending::Died(end),
            Err(_) => Ending::Broken(error.to_string()),
        }
    }

    /// Takes what is said between executions. Returns when it has ended or cannot be used.
    pub(super) async fn idle(&mut self) -> Ending {
        loop {
            let event = tokio::select! {
                event = next(&mut self.control, &mut self.frames, &mut self.waiting, &mut self.pipes, &mut self.chunk) => event,
                end = self.process.wait() => return Ending::Died(end),
            };
            match event {
                Ok(Heard::Text(_, text)) => self.late.push(&text),
                Ok(Heard::Frame(frame)) => {
                    let mut nobody = Collector::new(None);
                    self.take_frame("", frame, &mut nobody);
                }
                Err(error) => return self.broken(&error).await,
            }
        }
    }
}

/// What comes from the interpreter.
enum Heard {
    Text(&'static str, String),
    Frame(Frame),
}

/// The next of it. May be dropped while it waits: nothing is lost.
async fn next(
    control: &mut UnixStream,
    frames: &mut FrameReader,
    waiting: &mut std::collections::VecDeque<Frame>,
    pipes: &mut [Pipe; 2],
    chunk: &mut [u8],
) -> io::Result<Heard> {
    loop {
        if let Some(frame) = waiting.pop_front() {
            return Ok(Heard::Frame(frame));
        }
        let [out, err] = &*pipes;
        // Which of them has something; read below, so that no future holds bytes that dropping it would lose.
        let ready = {
            let (out, err) = (pin!(readable(out)), pin!(readable(err)));
            tokio::select! {
                ready = control.readable() => { ready?; None }
                () = out => Some(0),
                () = err => Some(1),
            }
        };
        let Some(which) = ready else {
            match control.try_read(chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    frames.feed(&chunk[..count], |frame| waiting.push_back(frame)).map_err(|_| {
                        io::Error::new(io::ErrorKind::InvalidData, "user code wrote to its socket")
                    })?
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            continue;
        };
        let pipe = &mut pipes[which];
        match pipe.from.try_read(chunk) {
            Ok(0) => pipe.open = false,
            Ok(count) => return Ok(Heard::Text(pipe.name, pipe.pieces.text(&chunk[..count]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => pipe.open = false,
        }
    }
}

async fn readable(pipe: &Pipe) {
    if !pipe.open || pipe.from.readable().await.is_err() {
        std::future::pending().await
    }
}

/// Makes the interpreter's own directory, with the program in it.
fn write_program(private: &str) -> Result<String, StartFailure> {
    let path = format!("{private}/loop.py");
    let failed = |error: rustix::io::Errno| StartFailure::Other(format!("{private}: {error}"));
    rustix::fs::mkdir(private, Mode::from_raw_mode(0o700)).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
    io::Write::write_all(&mut std::fs::File::from(file), PROGRAM.as_bytes())?;
    Ok(path)
}

/// Why the interpreter ended before it was ready.
fn explain(end: End, said: &str) -> StartFailure {
    if said.to_ascii_lowercase().contains("unknown option: -p") {
        return StartFailure::NoSuchOption;
    }
    let said = said.trim();
    let said = &said[said.ceil_char_boundary(said.len().saturating_sub(MAX_LAST_WORDS))..];
    StartFailure::Other(format!("the interpreter ended with {}: {said}", end_words(end)))
}
