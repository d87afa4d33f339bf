//! `bay quickstart`: starts Bay, shows what it does with real requests, and checks every answer.
//!
//! It is a client like any other: what it prints is what a person could type, and it holds no shortcut into Bay.

mod client;
mod demo;
mod server;
mod show;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use crate::config::{Config, Flags};

/// What can be typed after `bay quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct QuickstartArgs {
    /// Stop Bay after the demonstration, leaving no sandbox behind.
    #[arg(long)]
    once: bool,
    /// Where Bay keeps its data; the usual place when not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What runs sandboxes: this machine by itself, or a Docker engine.
    #[arg(long, value_enum, default_value_t = Driver::Local)]
    driver: Driver,
}

/// What runs sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Driver {
    /// This machine by itself.
    Local,
    /// A Docker engine, found as the `docker` command finds it.
    Docker,
}

impl Driver {
    /// Its name in Bay's configuration.
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Docker => "docker",
        }
    }

    /// Where its Bay keeps its data: one directory belongs to one driver, or the sandboxes of one would look lost to
    /// the other.
    fn data_dir(self, usual: PathBuf, chosen: bool) -> PathBuf {
        match (self, usual.file_name()) {
            (Self::Docker, Some(name)) if !chosen => {
                let mut name = name.to_owned();
                name.push("-docker");
                usual.with_file_name(name)
            }
            (Self::Docker | Self::Local, _) => usual,
        }
    }
}

/// Why the demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
enum QuickstartError {
    /// A file or a process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Sandboxes would have no Python.
    #[error("{0}")]
    Python(String),
    /// The Docker engine or the image is not there.
    #[error("{reason}\n\n{remedy}")]
    Docker {
        /// What is missing.
        reason: String,
        /// What to type.
        remedy: &'static str,
    },
    /// Bay ended instead of listening, or said nothing in time.
    #[error("Bay did not start: {reason}\n\nThe end of its log ({log}):\n{tail}")]
    Start {
        /// How that showed.
        reason: String,
        /// Where the whole log is.
        log: String,
        /// Its last lines.
        tail: String,
    },
    /// A request got no answer.
    #[error("no answer to {request}: {reason}")]
    NoAnswer {
        /// Method and path.
        request: String,
        /// Why.
        reason: String,
    },
    /// An answer is not what the step promises.
    #[error("step `{step}`: {what}")]
    Wrong {
        /// The step's title.
        step: &'static str,
        /// What was expected and what came.
        what: String,
    },
    /// Bay did not end when told to.
    #[error("Bay (pid {0}) did not end within its time and was killed")]
    Stop(u32),
}

/// Adds what was tried to what the system said.
fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> QuickstartError {
    let what = what.into();
    move |source| QuickstartError::Io { what, source }
}

/// Starts Bay (or uses the one that an earlier quickstart left running on this data directory), demonstrates it,
/// and leaves it running, or stops it where `--once` says so.
pub(super) async fn run(args: QuickstartArgs) -> anyhow::Result<()> {
    let own = args.data_dir.is_some();
    let flags = Flags { data_dir: args.data_dir, listen: None };
    let data_dir = Config::load(None, crate::config::environment(), &flags)?.data_dir;
    let data_dir = args.driver.data_dir(data_dir, own);
    // Paths are printed for the person to paste elsewhere.
    let data_dir = std::path::absolute(&data_dir).map_err(io("cannot tell where the data directory is"))?;
    demonstrate(data_dir, args.driver, args.once, &mut std::io::stdout()).await?;
    Ok(())
}

async fn demonstrate(
    data_dir: PathBuf,
    driver: Driver,
    once: bool,
    screen: &mut impl Write,
) -> Result<(), QuickstartError> {
    let bay = server::Server::find_or_start(data_dir, driver, screen).await?;
    let shown = demo::demonstrate(&bay.client(), once, screen).await;
    let sandbox = match shown {
        Ok(sandbox) => sandbox,
        Err(error) => {
            // What failed is the news; that Bay then also would not end is not.
            let _unheard = bay.stop_if_ours(once).await;
            return Err(error);
        }
    };
    let stopped = bay.stop_if_ours(once).await?;
    show::farewell(screen, &bay, &sandbox, stopped, once).map_err(io("cannot write to the terminal"))
}
