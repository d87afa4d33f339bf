//! Resident memory, as the host sees it.

use anyhow::{Context as _, ensure};
use bay_tests::{Bay, procs};

use bay_bench_report::Row;

const MIB: f64 = 1024.0 * 1024.0;

/// Bay's own: what `ps` shows.
pub(crate) fn of_bay(bay: &Bay) -> anyhow::Result<f64> {
    resident(bay.pid())
}

/// Of the Ship of a sandbox: init, agent and whatever else runs that binary, each counted whole, although they
/// share the pages of one file.
pub(crate) fn of_ship(processes: &[procs::Process]) -> anyhow::Result<f64> {
    // By the name of the binary: as `cmdline` of init says it, and its forks inherit that.
    let ships: Vec<_> =
        processes.iter().filter(|process| process.cmdline.starts_with("/.bay/ship")).collect();
    ensure!(!ships.is_empty(), "no process of Ship among {processes:?}");
    ships.iter().map(|process| resident(process.pid)).sum()
}

/// A row of memory.
pub(crate) fn row(what: &str, mib: f64) -> Row {
    Row::alone(what, "MB", &[mib])
}

fn resident(pid: i32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("process {pid} says nothing of its memory"))?;
    Ok(kib * 1024.0 / MIB)
}
