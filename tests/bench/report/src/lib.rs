//! What every bench ends with: the table for people and the same for machines.

mod stats;

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use serde::Serialize;

pub use stats::{median, p95};

/// One figure with what it is measured against.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The usual value.
    pub median: f64,
    /// What one in twenty is above.
    pub p95: f64,
    /// Of the values.
    pub unit: &'static str,
    /// How many values.
    pub n: usize,
    /// The median of what it is compared with, in the same unit; null where it stands alone.
    pub baseline: Option<f64>,
    /// Subject over baseline, medians.
    pub ratio: Option<f64>,
    /// What was promised, in words; null for a figure that only explains another.
    pub aim: Option<String>,
    /// Whether the promise is kept; true where there is none.
    pub ok: bool,
}

impl Row {
    /// A figure that stands alone.
    pub fn alone(what: &str, unit: &'static str, values: &[f64]) -> Self {
        Self {
            what: what.to_owned(),
            median: median(values),
            p95: p95(values),
            unit,
            n: values.len(),
            baseline: None,
            ratio: None,
            aim: None,
            ok: true,
        }
    }

    /// A figure beside the one it is compared with, measured in turns.
    pub fn against(what: &str, unit: &'static str, values: &[f64], baseline: &[f64]) -> Self {
        let base = median(baseline);
        let row = Self::alone(what, unit, values);
        Self { baseline: Some(base), ratio: Some(row.median / base), ..row }
    }

    /// What the subject adds to the baseline: difference of the medians, and of the p95.
    pub fn added(what: &str, unit: &'static str, values: &[f64], baseline: &[f64]) -> Self {
        let row = Self::against(what, unit, values, baseline);
        Self { median: row.median - median(baseline), p95: row.p95 - p95(baseline), ..row }
    }

    /// With a promise about the median.
    pub fn at_most(self, limit: f64) -> Self {
        let (aim, ok) = (Some(format!("≤ {limit} {}", self.unit)), self.median <= limit);
        Self { aim, ok, ..self }
    }

    /// With a promise that the median is no smaller: for a speed.
    pub fn at_least(self, limit: f64) -> Self {
        let (aim, ok) = (Some(format!("≥ {limit} {}", self.unit)), self.median >= limit);
        Self { aim, ok, ..self }
    }

    /// With a promise about the ratio.
    pub fn at_most_times(self, limit: f64) -> Self {
        let (aim, ok) =
            (Some(format!("≤ {limit} × baseline")), self.ratio.is_some_and(|ratio| ratio <= limit));
        Self { aim, ok, ..self }
    }

    /// With a promise that the ratio is no smaller: for a speed.
    pub fn at_least_times(self, limit: f64) -> Self {
        let (aim, ok) =
            (Some(format!("≥ {limit} × baseline")), self.ratio.is_some_and(|ratio| ratio >= limit));
        Self { aim, ok, ..self }
    }
}

/// All figures of one bench.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    machine: String,
    rows: Vec<Row>,
}

impl Report {
    /// Of a bench of this name, on this machine.
    pub fn new(bench: &'static str, rows: Vec<Row>) -> Self {
        Self { bench, machine: machine(), rows }
    }

    /// A table that can be pasted into an issue.
    pub fn markdown(&self) -> String {
        let mut text = format!("\nbench `{}` on {}\n\n", self.bench, self.machine);
        text.push_str("| what | median | p95 | unit | n | baseline | ratio | aim | ok |\n");
        text.push_str("|---|---:|---:|---|---:|---:|---:|---|---|\n");
        for row in &self.rows {
            let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), figure);
            let verdict = match (&row.aim, row.ok) {
                (None, _) => "",
                (Some(_), true) => "ok",
                (Some(_), false) => "**no**",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {verdict} |",
                row.what,
                figure(row.median),
                figure(row.p95),
                row.unit,
                row.n,
                optional(row.baseline),
                optional(row.ratio),
                row.aim.as_deref().unwrap_or("–"),
            );
        }
        text
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    // A process owns its own directory there.
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let user = if root { "root" } else { "a normal user" };
    format!(
        "{} ({}), {cores} cores, {} GiB, Linux {}, as {user}",
        model.unwrap_or("unknown processor").trim(),
        std::env::consts::ARCH,
        kib.div_ceil(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_about_what_it_says() {
        let subject = [5.0, 5.0, 6.0];
        let base = [4.5, 4.5, 5.0];
        let added = Row::added("a", "ms", &subject, &base).at_most(1.0);
        assert!(added.ok && (added.median - 0.5).abs() < 1e-9);
        let slow = Row::against("b", "ms", &subject, &base).at_most_times(1.1);
        assert!(!slow.ok, "{slow:?}");
    }

    #[test]
    fn the_json_has_the_shape_that_was_agreed() {
        let report = Report { bench: "path", machine: "m".into(), rows: vec![Row::alone("w", "ms", &[1.0])] };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "bench": "path", "machine": "m", "rows": [{
                "what": "w", "median": 1.0, "p95": 1.0, "unit": "ms", "n": 1,
                "baseline": null, "ratio": null, "aim": null, "ok": true,
            }] })
        );
    }
}
