//! `bay quickstart`: starts Bay, shows what it does with real requests, and checks every answer.
//!
//! It is a client like any other: what it prints is what a person could type, and it holds no shortcut into Bay.

mod client;
mod demo;
mod server;
mod show;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

/// What can be typed after `bay quickstart`.
#[derive(Debug, Clone, clap::Args)]
pub struct QuickstartArgs {
    /// Stop Bay after the demonstration, leaving no sandbox behind.
    #[arg(long)]
    pub once: bool,
    /// Where Bay keeps its data; the usual place when not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Why the demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// A file or a process could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
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
/// and leaves it running, or stops it where `once` says so.
pub async fn run(args: &QuickstartArgs, default_data_dir: PathBuf) -> Result<(), QuickstartError> {
    let data_dir = args.data_dir.clone().unwrap_or(default_data_dir);
    // Paths are printed for the person to paste elsewhere.
    let data_dir = std::path::absolute(&data_dir).map_err(io("cannot tell where the data directory is"))?;
    let mut screen = std::io::stdout();
    let bay = server::Server::start_or_find(data_dir, &mut screen).await?;
    let shown = demo::demonstrate(&bay.client(), args.once, &mut screen).await;
    let sandbox = match shown {
        Ok(sandbox) => sandbox,
        Err(error) => {
            // What failed is the news; that Bay then also would not end is not.
            let _ = bay.stop_if_ours(args.once).await;
            return Err(error);
        }
    };
    let stopped = bay.stop_if_ours(args.once).await?;
    show::farewell(&mut screen, &bay, &sandbox, stopped, args.once)
        .map_err(io("cannot write to the terminal"))
}
