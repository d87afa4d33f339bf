//! Ship, the runtime inside a container: one static binary, three kinds of process.
//!
//! ```text
//! init   process 1: alone holds privilege; starts and signals user processes; ends when the agent does
//! agent  speaks HTTP with Bay over the socket that init made or inherited; no capability, an id of its own
//! user   the Python kernel and shell commands, as 1000:1000, under seccomp
//! ```
//!
//! Where a container has one user id only, user code and the part that starts it live in a nested PID
//! namespace; see `init::nest`.

mod agent;
mod execution;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod init;
mod python;
mod shell;
mod spawner;
mod sys;
mod terminal;
mod text;
mod user;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use init::listen::Listen;

const USAGE: &str = "usage: ship init [--listen unix:PATH | tcp:PORT]
                       start as process 1 of a container (Bay does this);
                       without --listen, descriptor 3 is the listening socket
       ship --version  print the version
";

/// Most bytes that one process writes to the log, which Bay keeps in a file.
const LOG_BUDGET: usize = 64 << 10;

/// The whole program: reads the command line and does what it says.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    match (first.as_deref().and_then(|a| a.to_str()), args.len()) {
        (Some("init"), _) => match Listen::of(args) {
            Ok(listen) => init::main(&listen),
            Err(why) => {
                say(rustix::stdio::stderr(), &format!("ship init: {why}\n{USAGE}"));
                ExitCode::from(2)
            }
        },
        (Some("--version"), 0) => {
            say(rustix::stdio::stdout(), &format!("ship {}\n", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        (Some("--help"), 0) => {
            say(rustix::stdio::stdout(), USAGE);
            ExitCode::SUCCESS
        }
        _ => {
            say(rustix::stdio::stderr(), USAGE);
            ExitCode::from(2)
        }
    }
}

/// One line to the container's log, within a budget, so that nothing inside can fill the host's disk with it.
pub(crate) fn log(line: &str) {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let line = format!("ship {line}\n");
    if WRITTEN.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= LOG_BUDGET {
        say(rustix::stdio::stderr(), &line);
    }
}

fn say(to: rustix::fd::BorrowedFd<'_>, text: &str) {
    // Whoever closed our output does not want to hear.
    let _ = rustix::io::write(to, text.as_bytes());
}
