//! Rules, router and adapter by themselves, as `path_micro` of the plugin host measures them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use bay_bench_report::Row;

/// Rules + router + adapter together, in microseconds.
const AIM: f64 = 150.0;
/// The row that is promised; the others say what it is made of.
const TOGETHER: &str = "together";

/// Runs it. It prints a table: what, median, p95, count.
pub(crate) fn rows(path_micro: &Path) -> anyhow::Result<Vec<Row>> {
    let output = Command::new(path_micro)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run path_micro")?;
    ensure!(output.status.success(), "path_micro ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("path_micro printed what is not text")?;
    let rows: Vec<Row> = text.lines().filter_map(row).collect();
    ensure!(rows.iter().any(|row| row.aim.is_some()), "path_micro printed no row `{TOGETHER}`:\n{text}");
    Ok(rows)
}

/// A line of the table; none for its head and for what stands around it.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> =
        line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let &[what, median, p95, n] = cells.as_slice() else { return None };
    let row = Row {
        median: median.parse().ok()?,
        p95: p95.parse().ok()?,
        n: n.parse().ok()?,
        ..Row::alone(&format!("plugins per call: {what}"), "µs", &[])
    };
    Some(if what == TOGETHER { row.at_most(AIM) } else { row })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_figures_are_read() {
        assert!(row("| what | median µs | p95 µs | n |").is_none());
        assert!(row("|---|---|---|---|").is_none());
        assert!(row("resident: 1 KiB").is_none());
        let read = row("| together | 151.5 | 300.0 | 5000 |").unwrap();
        assert_eq!((read.median, read.n, read.ok), (151.5, 5000, false));
        assert!(row("| rules | 9.5 | 30.0 | 5000 |").unwrap().aim.is_none());
    }
}
