//! The spawner: starts user processes for the agent, and reports their ends. Runs in init, or in the nest.
//!
//! Single-threaded and without a runtime: it forks on every spawn. It starts programs only as the user, and
//! signals only what it started.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};

use super::child::{Mould, Program, become_program};
use super::hunt;
use super::protocol::{End, Event, MAX_MESSAGE, Reach, Request, SPAWN_FDS};
use crate::sys::{self, Forked};

/// Most spawns that the agent has not released; more are refused.
const MAX_TRACKED: usize = 1024;
/// Most events waiting for the agent to read.
const MAX_UNSENT: usize = 2 * MAX_TRACKED;
/// Signals read before anything else has its turn: more than there are kinds that are listened for.
const SIGNALS_AT_ONCE: usize = 16;
/// Marks are group ids from here on; none of them means anything else inside.
const FIRST_MARK: u32 = 20_000;
const MARKS: u32 = 40_000;

/// From TERM to KILL for user processes when the container was told to end.
const USERS_GRACE: Duration = Duration::from_secs(1);
/// The most that all of an orderly end takes, the agent's last answers included: nothing inside can delay it.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// Rounds of killing all there are; user code that forks meanwhile is at its process limit by then.
const KILL_ROUNDS: usize = 32;

/// Why the loop ended. The process must end too, and so ends everything inside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// One of the processes that must live has died.
    Lost(Pid),
    /// The agent closed its end.
    AgentGone,
    /// SIGTERM or a like signal from outside.
    Told,
}

struct Tracked {
    mark: Option<u32>,
    running: bool,
}

/// The spawner's state.
pub(crate) struct Server {
    agent: OwnedFd,
    signals: OwnedFd,
    mould: Mould,
    /// Processes whose end ends the container, never to be signalled.
    vital: Vec<Pid>,
    tracked: HashMap<Pid, Tracked>,
    /// Events that the socket had no room for.
    unsent: VecDeque<Event>,
    spawned: u32,
    buffer: Vec<u8>,
    /// Whose signals ask for the end.
    heeds: Heeds,
    /// Told to end: nothing more is started.
    draining: bool,
}

impl Server {
    /// A spawner that answers on `agent` and reads its signals from `signals`.
    pub(crate) fn new(agent: OwnedFd, signals: OwnedFd, mould: Mould, vital: Vec<Pid>, heeds: Heeds) -> Self {
        Self {
            agent,
            signals,
            mould,
            vital,
            tracked: HashMap::new(),
            unsent: VecDeque::new(),
            spawned: 0,
            buffer: vec![0; MAX_MESSAGE],
            heeds,
            draining: false,
        }
    }

    /// Serves until something vital is over.
    pub(crate) fn run(&mut self) -> io::Result<Over> {
        loop {
            // Nothing more is taken on while the agent does not read what it asked for.
            let mut wanted = if self.unsent.len() < MAX_UNSENT { PollFlags::IN } else { PollFlags::empty() };
            if !self.unsent.is_empty() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = [
                PollFd::from_borrowed_fd(self.agent.as_fd(), wanted),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let (agent, signals) = (fds[0].revents(), fds[1].revents());
            if !signals.is_empty() {
                if told_to_end(&self.signals, self.heeds) {
                    self.drain()?;
                    return Ok(Over::Told);
                }
                if let Some(lost) = self.reap() {
                    return Ok(Over::Lost(lost));
                }
            }
            self.flush();
            if agent.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.serve_one()? {
                return Ok(Over::AgentGone);
            }
        }
    }

    /// The orderly end: all user processes get TERM, later KILL, and their ends are still reported, so that the
    /// agent can answer whoever waits for one. Over when nobody is left and the agent has gone, or after [`DRAIN`].
    fn drain(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.draining = true;
        self.report(Event::Ending);
        for pid in hunt::everyone(&self.vital) {
            let _ = kill_process(pid, Signal::TERM);
            // Or a stopped one would never hear.
            let _ = kill_process(pid, Signal::CONT);
        }
        let (mut agent_gone, mut killed) = (false, false);
        loop {
            let left = hunt::everyone(&self.vital);
            let passed = began.elapsed();
            if (left.is_empty() && agent_gone) || passed >= DRAIN {
                return Ok(());
            }
            if passed >= USERS_GRACE && !killed {
                killed = true;
                self.kill_users(left);
                continue;
            }
            let next = if killed { DRAIN } else { USERS_GRACE }.saturating_sub(passed);
            let wait = Timespec { tv_sec: next.as_secs().cast_signed(), tv_nsec: next.subsec_nanos().into() };
            let mut fds = [
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.agent.as_fd(), PollFlags::IN),
            ];
            // A socket whose other end is gone is always ready, so it is looked at no more.
            let looked = if agent_gone { &mut fds[..1] } else { &mut fds[..] };
            match poll(looked, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let spoke = !agent_gone && !fds[1].revents().is_empty();
            told_to_end(&self.signals, self.heeds);
            agent_gone |= self.reap().is_some();
            self.flush();
            if spoke && !agent_gone {
                // An agent that died may have left a broken connection, which is no error here.
                agent_gone = !self.serve_one().unwrap_or(false);
            }
        }
    }

    /// Kills what did not hear, and what it forks meanwhile.
    fn kill_users(&mut self, mut left: Vec<Pid>) {
        for _ in 0..KILL_ROUNDS {
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            self.reap();
            left = hunt::everyone(&self.vital);
            if left.is_empty() {
                return;
            }
        }
    }

    /// Takes one datagram; false at end of file.
    fn serve_one(&mut self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SPAWN_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.agent,
            &mut [IoSliceMut::new(&mut self.buffer)],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        );
        let message = match received {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        let mut fds = Vec::with_capacity(SPAWN_FDS);
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = part {
                fds.extend(passed);
            }
        }
        if message.bytes == 0 && fds.is_empty() {
            return Ok(false);
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Ok(true);
        }
        if let Ok(request) = Request::decode(&self.buffer[..message.bytes]) {
            self.handle(request, fds);
        }
        Ok(true)
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Spawn { id, argv, env, cwd, terminal } => {
                let event = match self.spawn(argv, env, cwd, terminal, fds) {
                    Ok(pid) => Event::Spawned { id, pid: pid.as_raw_pid().cast_unsigned() },
                    Err(error) => Event::Failed { id, errno: error.raw_os_error().unwrap_or(libc::EINVAL) },
                };
                self.report(event);
            }
            Request::Signal { pid, signal, reach } => self.signal(pid, signal, reach),
            Request::Release { pid } => {
                if let Some(pid) = known(pid) {
                    self.tracked.remove(&pid);
                }
            }
        }
    }

    fn spawn(
        &mut self,
        argv: Vec<Vec<u8>>,
        env: Vec<Vec<u8>>,
        cwd: Vec<u8>,
        terminal: bool,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Pid> {
        if self.draining || self.tracked.len() >= MAX_TRACKED {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let strings = |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let fds: [OwnedFd; SPAWN_FDS] =
            fds.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        let mark = (self.mould.isolation == Isolation::TwoUid).then_some(FIRST_MARK + self.spawned % MARKS);
        let (argv, env, cwd) = (strings(argv)?, strings(env)?, CString::new(cwd)?);
        let program = Program { argv, env, cwd, fds, terminal, mark };
        match sys::fork_single()? {
            Forked::Child => become_program(&self.mould, &program),
            Forked::Parent(pid) => {
                self.spawned = self.spawned.wrapping_add(1);
                self.tracked.insert(pid, Tracked { mark, running: true });
                Ok(pid)
            }
        }
    }

    fn signal(&mut self, pid: u32, signal: u8, reach: Reach) {
        let Some(pid) = known(pid) else { return };
        let (Some(tracked), Some(signal)) =
            (self.tracked.get(&pid), Signal::from_named_raw(i32::from(signal)))
        else {
            return;
        };
        let (mark, running) = (tracked.mark, tracked.running);
        if kill_process_group(pid, signal).is_err() && running {
            // Just forked: it has no group of its own yet.
            let _ = kill_process(pid, signal);
        }
        if reach == Reach::Everything && signal == Signal::KILL {
            // What is vital is never a member, but a look at it costs nothing and a mistake would cost all.
            let spare = self.vital.clone();
            hunt::kill_all(pid, running, mark, &spare, || {
                self.reap();
            });
        }
    }

    /// Collects the dead, orphans included. Returns the vital process among them, if any.
    fn reap(&mut self) -> Option<Pid> {
        let mut lost = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.vital.contains(&pid) {
                lost = Some(pid);
            }
            let end = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => End::Code(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => continue,
            };
            if let Some(tracked) = self.tracked.get_mut(&pid)
                && tracked.running
            {
                tracked.running = false;
                self.report(Event::Exited { pid: pid.as_raw_pid().cast_unsigned(), end });
            }
        }
        lost
    }

    fn report(&mut self, event: Event) {
        self.unsent.push_back(event);
        self.flush();
    }

    /// Sends what the socket takes; a dead agent is noticed by the loop.
    fn flush(&mut self) {
        while let Some(event) = self.unsent.front() {
            match send(&self.agent, &event.encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                _ => {
                    self.unsent.pop_front();
                }
            }
        }
    }
}

fn known(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Whose signals ask for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heeds {
    /// Anybody who may send one: user code may not, being another user or in another PID namespace.
    Anyone,
    /// Only processes outside the own PID namespace. User code inside has the same user id as the nest, and a
    /// signal that is blocked and read from a descriptor reaches even a process 1.
    Outside,
}

impl Heeds {
    /// Whether a record of the signal descriptor (`struct signalfd_siginfo`: number, errno, code and sender's
    /// process id, four bytes each) asks for the end.
    fn told_by(self, record: &[u8; sys::SIGNAL_RECORD]) -> bool {
        let word =
            |at: usize| i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (number, code, sender) = (word(0), word(8), word(12));
        if number == libc::SIGCHLD {
            return false;
        }
        match self {
            Self::Anyone => true,
            // The kernel says 0 for a sender outside; only with codes below SI_USER can a sender make one up.
            Self::Outside => code == libc::SI_USER && sender == 0,
        }
    }
}

/// Reads what the signal descriptor has; true when one of the signals asks for the end. What comes faster than it is
/// read, as user code can send signals to the nest, waits for its next turn.
pub(crate) fn told_to_end(signals: &OwnedFd, heeds: Heeds) -> bool {
    let mut told = false;
    let mut record = [0u8; sys::SIGNAL_RECORD];
    for _ in 0..SIGNALS_AT_ONCE {
        if !rustix::io::read(signals, &mut record).is_ok_and(|read| read == record.len()) {
            break;
        }
        told |= heeds.told_by(&record);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: i32, code: i32, sender: i32) -> [u8; sys::SIGNAL_RECORD] {
        let mut record = [0; sys::SIGNAL_RECORD];
        for (at, word) in [(0, number), (8, code), (12, sender)] {
            record[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        record
    }

    #[test]
    fn the_nest_heeds_only_who_is_outside() {
        let term = |code, sender| Heeds::Outside.told_by(&record(libc::SIGTERM, code, sender));
        assert!(term(libc::SI_USER, 0));
        assert!(!term(libc::SI_USER, 7), "a neighbour");
        assert!(!term(libc::SI_QUEUE, 0), "a made-up sender");
        assert!(!term(libc::SI_TKILL, 0), "a made-up sender");
        assert!(Heeds::Anyone.told_by(&record(libc::SIGTERM, libc::SI_USER, 7)));
        assert!(!Heeds::Anyone.told_by(&record(libc::SIGCHLD, libc::CLD_EXITED, 7)));
    }
}
