//! Log lines on stderr: text for people, JSON for machines. Numbers are in [`metrics`].

pub mod metrics;
mod recorder;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Sets the log up; once a process. A level that does not parse is an error for the operator.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level).map_err(|e| {
        anyhow::anyhow!("log.level = \"{}\" is not a filter: {e}; try \"info\"", config.level)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|e| anyhow::anyhow!("the log could not be set up: {e}"))
}
