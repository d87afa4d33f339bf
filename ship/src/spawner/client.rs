//! The agent's end of the spawner protocol.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{oneshot, watch};

use super::protocol::{End, Event, Reach, Request, SPAWN_FDS};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// `argv[0]` is an absolute path.
    pub(crate) argv: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub(crate) env: Vec<Vec<u8>>,
    /// Absolute.
    pub(crate) cwd: Vec<u8>,
}

/// Why nothing was started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// Arguments and environment together are larger than a message.
    TooLarge,
    /// The kernel or the spawner refused, with its error number: `EAGAIN` at the limit of processes.
    Refused(i32),
    /// The spawner is gone; the container is about to end.
    Gone,
}

type Started = Result<Process, i32>;

#[derive(Default)]
struct Waiting {
    spawns: HashMap<u32, oneshot::Sender<Started>>,
    exits: HashMap<u32, oneshot::Sender<End>>,
}

/// Starts and signals user processes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spawner {
    /// A SEQPACKET socket in truth: read and written with `recv` and `sendmsg`, which do not care.
    socket: Arc<UnixDatagram>,
    waiting: Arc<Mutex<Waiting>>,
    next: Arc<AtomicU32>,
    ending: Arc<watch::Sender<bool>>,
}

impl Spawner {
    /// Takes the agent's end of the socket pair, which must not block. Call [`Spawner::listen`] on a clone.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: Arc::new(UnixDatagram::from_std(socket.into())?),
            waiting: Arc::default(),
            next: Arc::new(AtomicU32::new(1)),
            ending: Arc::new(watch::Sender::new(false)),
        })
    }

    /// Becomes true when the container was told to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Hands events to those who wait for them, until the spawner is gone.
    pub(crate) async fn listen(self) -> io::Result<()> {
        let mut buffer = [0u8; 64];
        loop {
            let read = self
                .socket
                .async_io(Interest::READABLE, || Ok(recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT)?.0))
                .await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match Event::decode(&buffer[..read]) {
                Ok(event) => self.dispatch(event),
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn dispatch(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Spawned { id, pid } => {
                // The exit may be the very next event, so its channel is made here.
                let (send, receive) = oneshot::channel();
                waiting.exits.insert(pid, send);
                let waiter = waiting.spawns.remove(&id);
                drop(waiting);
                // Until somebody takes it nobody watches it: whoever asked may have gone away, before this or with
                // the answer under way, and then it ends as this is dropped.
                let process =
                    Process { pid, exit: receive, ended: None, spawner: self.clone(), unclaimed: true };
                if let Some(waiter) = waiter {
                    drop(waiter.send(Ok(process)));
                }
            }
            Event::Failed { id, errno } => {
                if let Some(waiter) = waiting.spawns.remove(&id) {
                    let _ = waiter.send(Err(errno));
                }
            }
            Event::Exited { pid, end } => {
                if let Some(waiter) = waiting.exits.remove(&pid) {
                    let _ = waiter.send(end);
                }
            }
            Event::Ending => {
                self.ending.send_replace(true);
            }
        }
    }

    /// Starts a program with these as stdin, stdout and stderr.
    pub(crate) async fn spawn(
        &self,
        command: Command,
        fds: [OwnedFd; SPAWN_FDS],
    ) -> Result<Process, SpawnError> {
        self.start(command, fds, false).await
    }

    /// Starts a program with this terminal as stdin, stdout and stderr, and as its controlling terminal.
    pub(crate) async fn spawn_on_terminal(
        &self,
        command: Command,
        terminal: OwnedFd,
    ) -> Result<Process, SpawnError> {
        let copy = || {
            terminal
                .try_clone()
                .map_err(|error| SpawnError::Refused(error.raw_os_error().unwrap_or(libc::EMFILE)))
        };
        let (first, second) = (copy()?, copy()?);
        let fds = [first, second, terminal];
        self.start(command, fds, true).await
    }

    async fn start(
        &self,
        command: Command,
        fds: [OwnedFd; SPAWN_FDS],
        terminal: bool,
    ) -> Result<Process, SpawnError> {
        if *self.ending.borrow() {
            return Err(SpawnError::Gone);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let Command { argv, env, cwd } = command;
        let request = Request::Spawn { id, argv, env, cwd, terminal };
        let bytes = request.encode().ok_or(SpawnError::TooLarge)?;
        let (send, receive) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).spawns.insert(id, send);
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, || {
                let borrowed: [BorrowedFd<'_>; SPAWN_FDS] = fds.each_ref().map(AsFd::as_fd);
                send_with(&self.socket, &bytes, &borrowed)
            })
            .await;
        // The child's copies are on their way; ours would keep the pipes open.
        drop(fds);
        if sent.is_err() {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).spawns.remove(&id);
            return Err(SpawnError::Gone);
        }
        match receive.await {
            Ok(Ok(mut process)) => {
                process.unclaimed = false;
                Ok(process)
            }
            // Asked just as the end began: it was refused for that, and no limit was reached.
            Ok(Err(_)) if *self.ending.borrow() => Err(SpawnError::Gone),
            Ok(Err(errno)) => Err(SpawnError::Refused(errno)),
            Err(_) => Err(SpawnError::Gone),
        }
    }

    /// Sends without waiting: such messages are a few bytes, and a full socket means a spawner that is stuck.
    fn tell(&self, request: &Request) {
        if let Some(bytes) = request.encode() {
            let _ = send_with(&self.socket, &bytes, &[]);
        }
    }
}

fn send_with(socket: &UnixDatagram, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SPAWN_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A running user process. Dropping it lets it run on, unwatched.
pub(crate) struct Process {
    pid: u32,
    exit: oneshot::Receiver<End>,
    ended: Option<End>,
    spawner: Spawner,
    /// Nobody has it yet; dropped so, it ends.
    unclaimed: bool,
}

impl Process {
    /// Its process id as user code sees it: the spawner lives in the same PID namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end; may be dropped and called again, also after the end.
    pub(crate) async fn wait(&mut self) -> End {
        if let Some(end) = self.ended {
            return end;
        }
        // The sender goes away only with the spawner, and then the container is over.
        let end = (&mut self.exit).await.unwrap_or(End::Signal(libc::SIGKILL));
        self.ended = Some(end);
        end
    }

    /// Signals its process group.
    pub(crate) fn signal(&self, signal: i32) {
        let Ok(signal) = u8::try_from(signal) else { return };
        self.spawner.tell(&Request::Signal { pid: self.pid, signal, reach: Reach::Group });
    }

    /// Until the returned value is dropped, lets its group go on every second: other user code may have stopped it.
    pub(crate) fn keep_going(&self) -> KeepGoing {
        let (spawner, pid) = (self.spawner.clone(), self.pid);
        KeepGoing(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                spawner.tell(&Request::Signal { pid, signal: libc::SIGCONT as u8, reach: Reach::Group });
            }
        }))
    }

    /// Kills it and everything that descends from it, as far as can be told.
    pub(crate) fn kill_everything(&self) {
        let signal = libc::SIGKILL as u8;
        self.spawner.tell(&Request::Signal { pid: self.pid, signal, reach: Reach::Everything });
    }
}

/// See [`Process::keep_going`].
pub(crate) struct KeepGoing(tokio::task::JoinHandle<()>);

impl Drop for KeepGoing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.unclaimed {
            self.kill_everything();
        }
        self.spawner.tell(&Request::Release { pid: self.pid });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::spawner::protocol::MAX_MESSAGE;

    /// One look at a future, whatever it says.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }

    /// A spawner's client, and the other end.
    fn pair() -> (Spawner, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Spawner::new(ours).unwrap(), theirs)
    }

    fn heard(theirs: &OwnedFd) -> Option<Request> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let length = recv(theirs, &mut buffer, RecvFlags::DONTWAIT).ok()?.0;
        Some(Request::decode(&buffer[..length]).unwrap())
    }

    async fn spawn(spawner: &Spawner) -> Result<Process, SpawnError> {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let command = Command { argv: vec![b"/bin/true".to_vec()], env: vec![], cwd: b"/".to_vec() };
        spawner.spawn(command, [null(), null(), null()]).await
    }

    /// Looks at a spawn until the other end has been asked for it: the id.
    async fn asked<F: Future>(mut asking: std::pin::Pin<&mut F>, theirs: &OwnedFd) -> u32 {
        let asked = async {
            loop {
                assert!(poll_once(asking.as_mut()).await.is_pending());
                if let Some(request) = heard(theirs) {
                    return request;
                }
                tokio::task::yield_now().await;
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
        let Request::Spawn { id, .. } = asked else { panic!("no request to spawn") };
        id
    }

    #[tokio::test]
    async fn a_process_whose_asker_left_with_the_answer_under_way_ends() {
        let (spawner, theirs) = pair();
        {
            let mut asking = pin!(spawn(&spawner));
            let id = asked(asking.as_mut(), &theirs).await;
            spawner.dispatch(Event::Spawned { id, pid: 42 });
        }
        let killed = Request::Signal { pid: 42, signal: libc::SIGKILL as u8, reach: Reach::Everything };
        assert_eq!(heard(&theirs), Some(killed));
        assert_eq!(heard(&theirs), Some(Request::Release { pid: 42 }));
    }

    #[tokio::test]
    async fn what_is_refused_once_the_end_has_begun_has_reached_no_limit() {
        let (spawner, theirs) = pair();
        let mut asking = pin!(spawn(&spawner));
        let id = asked(asking.as_mut(), &theirs).await;
        spawner.dispatch(Event::Failed { id, errno: libc::EAGAIN });
        let refused = asking.await.err();
        assert!(matches!(refused, Some(SpawnError::Refused(libc::EAGAIN))), "{refused:?}");

        let mut asking = pin!(spawn(&spawner));
        let id = asked(asking.as_mut(), &theirs).await;
        spawner.dispatch(Event::Ending);
        spawner.dispatch(Event::Failed { id, errno: libc::EAGAIN });
        let refused = asking.await.err();
        assert!(matches!(refused, Some(SpawnError::Gone)), "{refused:?}");
    }
}
