//! Rules, router and adapter by themselves, as `path_micro` of the plugin host measures them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::report::Row;

/// Median of rules + router + adapter together, in microseconds.
const AIM: f64 = 150.0;

/// Runs it. It prints one JSON array: the microseconds of each call.
pub(crate) fn row(path_micro: &Path) -> anyhow::Result<Row> {
    let output = Command::new(path_micro)
        .arg("--json")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run path_micro")?;
    ensure!(output.status.success(), "path_micro ended with {}", output.status);
    let values: Vec<f64> =
        serde_json::from_slice(&output.stdout).context("path_micro printed no list of times")?;
    Ok(Row::alone("rules + router + adapter together, per call", "µs", &values).at_most(AIM))
}
