//! Terminals: one WebSocket each, a login shell on a PTY of its own, gone when the connection goes.
//!
//! ```text
//! socket ── input ──► at most 128 KiB ──► PTY ──► shell and what it starts
//!        ◄── one frame of at most 32 KiB ◄── PTY
//! ```
//!
//! Nothing queues up on the way out: the PTY is read again once the socket has taken all of the frame before, so a
//! program that writes without end runs as fast as its reader reads, and waits in its own `write` otherwise.

mod control;
pub(crate) mod handshake;
mod pty;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::WORKSPACE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub(crate) use control::{MAX_SIDE, Mode, Size};
pub(crate) use session::run;

use crate::agent::error::{Code, Failure};
use crate::shell::refused;
use crate::spawner::client::{Command, Process, Spawner};
use crate::user::World;
use pty::Pty;

/// Terminals at once: each holds a connection, a PTY and up to a quarter of a MiB, whatever its user does.
const MAX_TERMINALS: usize = 16;
/// From SIGHUP to SIGKILL: a shell writes its history in that time.
const HANGUP_GRACE: Duration = Duration::from_millis(500);

/// Opens terminals. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Terminals {
    spawner: Spawner,
    world: Arc<World>,
    room: Arc<Semaphore>,
}

/// A login shell on its PTY. Must be ended with [`Terminal::end`].
pub(crate) struct Terminal {
    process: Process,
    pty: Pty,
    /// Its place among [`MAX_TERMINALS`].
    place: OwnedSemaphorePermit,
}

impl Terminals {
    pub(crate) fn new(spawner: Spawner, world: Arc<World>) -> Self {
        Self { spawner, world, room: Arc::new(Semaphore::new(MAX_TERMINALS)) }
    }

    /// Starts a login shell on a new PTY of this size. `term` has been checked.
    pub(crate) async fn open(&self, size: Size, term: &str) -> Result<Terminal, Failure> {
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Failure::new(Code::Busy, format!("{MAX_TERMINALS} terminals are open, and no more may be"))
        })?;
        let shell = self.world.shell.ok_or_else(|| {
            Failure::new(Code::CapabilityNotSupported, "there is no shell in this container")
        })?;
        let (pty, theirs) = Pty::open(size)?;
        let env = BTreeMap::from([("TERM".to_owned(), term.to_owned())]);
        let command = Command {
            // A login shell: it reads the user's own profile, which has a say in nothing but this terminal.
            argv: vec![shell.into(), b"-l".to_vec()],
            env: self.world.shell_env(&env),
            cwd: WORKSPACE.into(),
        };
        let process = self.spawner.spawn_on_terminal(command, theirs).await.map_err(refused)?;
        Ok(Terminal { process, pty, place })
    }
}

impl Terminal {
    /// Hangs up and ends everything that runs on it or was started from it.
    pub(crate) async fn end(self) {
        let Self { mut process, pty, place } = self;
        process.signal(libc::SIGHUP);
        // Closing it makes the kernel hang up, too: on the foreground group, and on all who still read or write.
        drop(pty);
        let _ = timeout(HANGUP_GRACE, process.wait()).await;
        process.kill_everything();
        drop(place);
    }
}
