//! The agent's end of a pseudoterminal, read and written without blocking.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::control::Size;
use crate::agent::error::{Code, Failure};
use crate::sys;

/// What `/dev/ptmx` must be: anything else was put there by somebody.
const MULTIPLEXER: (u32, u32) = (5, 2);

/// A PTY's master. Whoever holds the other side sees a hang-up when this is dropped.
pub(super) struct Pty(AsyncFd<OwnedFd>);

impl Pty {
    /// A new one of this size, and its other side, for a program to have as stdin, stdout and stderr.
    ///
    /// The other side belongs to the user: the kernel gives it to the file-system id of whoever opens the master.
    pub(super) fn open(size: Size) -> Result<(Self, OwnedFd), Failure> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let master = open("/dev/ptmx", flags, Mode::empty()).map_err(|error| failed(&error.into()))?;
        let stat = fstat(&master)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !is_device || (major(stat.st_rdev), minor(stat.st_rdev)) != MULTIPLEXER {
            return Err(Failure::new(Code::RuntimeError, "/dev/ptmx is not the kernel's"));
        }
        let pty = Self(
            sys::watch(master, Interest::READABLE | Interest::WRITABLE).map_err(|error| failed(&error))?,
        );
        let theirs = pty.other_side(size).map_err(|error| failed(&error))?;
        Ok((pty, theirs))
    }

    fn other_side(&self, size: Size) -> io::Result<OwnedFd> {
        let master = self.0.get_ref();
        unlockpt(master)?;
        self.resize(size)?;
        // By the master, not by name: no path of the container takes part.
        let theirs =
            ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        // Backspace takes a whole character, as in any terminal of today.
        let mut modes = tcgetattr(&theirs)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&theirs, OptionalActions::Now, &modes)?;
        Ok(theirs)
    }

    /// Sets the window's size; the foreground group gets SIGWINCH where it is another one.
    pub(super) fn resize(&self, size: Size) -> io::Result<()> {
        let window = Winsize { ws_row: size.rows(), ws_col: size.cols(), ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), window)?)
    }

    /// Waits for output and takes what is there, as far as it fits: at least one byte. An error once nobody has
    /// the other side open.
    pub(super) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |master| take(master, into)).await
    }

    /// Waits until some input is taken, and says how much was.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.async_io(Interest::WRITABLE, |master| Ok(rustix::io::write(master, bytes)?)).await
    }
}

/// The kernel hands out 4 KiB at a time: collects them, so that one frame carries more.
fn take(master: &OwnedFd, into: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < into.len() {
        match rustix::io::read(master, &mut into[count..]) {
            Ok(0) => return if count > 0 { Ok(count) } else { Err(io::ErrorKind::UnexpectedEof.into()) },
            Ok(more) => count += more,
            Err(rustix::io::Errno::INTR) => {}
            // Whatever it is, it comes again at the next call.
            Err(_) if count > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

fn failed(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::EAGAIN | libc::ENOMEM) => {
            Failure::new(Code::Busy, "no pseudoterminal is free")
        }
        _ => Failure::new(Code::RuntimeError, format!("no pseudoterminal could be had: {error}")),
    }
}
