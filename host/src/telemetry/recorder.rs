//! Keeps what is counted, and writes it as Prometheus reads it.
//!
//! Every number is an atomic that is there once: nothing piles up between two looks, and the series are bounded in
//! number whatever becomes a label.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use metrics::atomics::AtomicU64 as Number;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// Upper ends of the buckets of every histogram, in seconds.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
    300.0,
];
/// Most series. Labels have few values; should one not, what comes late is not counted rather than kept.
const MAX_SERIES: usize = 4096;

/// One series.
#[derive(Clone)]
enum Series {
    Counter(Arc<Count>),
    Gauge(Arc<Level>),
    Histogram(Arc<Spread>),
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// All series. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Registry {
    series: Arc<RwLock<HashMap<Key, Series>>>,
    help: Arc<RwLock<BTreeMap<KeyName, SharedString>>>,
}

impl Registry {
    /// The series of a key, made where there is none; null over the bound.
    fn series(&self, key: &Key, new: impl FnOnce() -> Series) -> Option<Series> {
        // Read first: after the first requests every series is there.
        if let Some(found) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(found.clone());
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SERIES && !all.contains_key(key) {
            return None;
        }
        Some(all.entry(key.clone()).or_insert_with(new).clone())
    }

    fn describe(&self, name: KeyName, text: SharedString) {
        let mut help: RwLockWriteGuard<'_, _> = self.help.write().unwrap_or_else(PoisonError::into_inner);
        help.insert(name, text);
    }

    /// Everything, in the text format of Prometheus.
    pub(super) fn render(&self) -> String {
        let all: Vec<(Key, Series)> = {
            let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
            all.iter().map(|(key, series)| (key.clone(), series.clone())).collect()
        };
        // By name and labels: the same look gives the same text.
        let mut lines: BTreeMap<String, BTreeMap<String, Series>> = BTreeMap::new();
        for (key, series) in all {
            lines.entry(key.name().to_owned()).or_default().insert(labels(&key), series);
        }
        let help = self.help.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, series) in lines {
            let Some(kind) = series.values().next().map(Series::kind) else { continue };
            if let Some(about) = help.get(name.as_str()) {
                put(&mut text, format_args!("# HELP {name} {about}\n"));
            }
            put(&mut text, format_args!("# TYPE {name} {kind}\n"));
            for (labels, one) in series {
                write(&mut text, &name, &labels, &one);
            }
        }
        text
    }
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(more);
}

/// `a="b",c="d"`
fn labels(key: &Key) -> String {
    let mut text = String::new();
    for label in key.labels() {
        let comma = if text.is_empty() { "" } else { "," };
        let value = label.value().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        put(&mut text, format_args!("{comma}{}=\"{value}\"", label.key()));
    }
    text
}

fn write(text: &mut String, name: &str, labels: &str, series: &Series) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    match series {
        Series::Counter(count) => {
            put(text, format_args!("{name}{braced} {}\n", count.0.load(Ordering::Relaxed)));
        }
        Series::Gauge(level) => put(text, format_args!("{name}{braced} {}\n", level.get())),
        Series::Histogram(spread) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut below = 0;
            for (end, count) in BUCKETS.iter().zip(&spread.buckets) {
                below += count.load(Ordering::Relaxed);
                put(text, format_args!("{name}_bucket{{{labels}{comma}le=\"{end}\"}} {below}\n"));
            }
            below += spread.above.load(Ordering::Relaxed);
            put(text, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}\n"));
            put(text, format_args!("{name}_sum{braced} {}\n", spread.sum.get()));
            put(text, format_args!("{name}_count{braced} {below}\n"));
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(key, text);
    }

    fn describe_gauge(&self, key: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(key, text);
    }

    fn describe_histogram(&self, key: KeyName, _unit: Option<Unit>, text: SharedString) {
        self.describe(key, text);
    }

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Some(Series::Counter(count)) => Counter::from_arc(count),
            Some(Series::Gauge(_) | Series::Histogram(_)) | None => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Some(Series::Gauge(level)) => Gauge::from_arc(level),
            Some(Series::Counter(_) | Series::Histogram(_)) | None => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        match self.series(key, || Series::Histogram(Arc::default())) {
            Some(Series::Histogram(spread)) => Histogram::from_arc(spread),
            Some(Series::Counter(_) | Series::Gauge(_)) | None => Histogram::noop(),
        }
    }
}

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// A number with a fraction, as its bits.
struct Level(Number);

impl Default for Level {
    fn default() -> Self {
        Self(Number::new(0.0_f64.to_bits()))
    }
}

impl Level {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        GaugeFn::increment(&self.0, value);
    }

    fn decrement(&self, value: f64) {
        GaugeFn::decrement(&self.0, value);
    }

    fn set(&self, value: f64) {
        GaugeFn::set(&self.0, value);
    }
}

/// How many values are in each bucket, and their sum.
#[derive(Default)]
struct Spread {
    buckets: [AtomicU64; BUCKETS.len()],
    above: AtomicU64,
    sum: Level,
}

impl HistogramFn for Spread {
    fn record(&self, value: f64) {
        let bucket = BUCKETS.iter().zip(&self.buckets).find(|(end, _)| value <= **end);
        bucket.map_or(&self.above, |(_, count)| count).fetch_add(1, Ordering::Relaxed);
        self.sum.increment(value);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, gauge, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn what_was_counted_is_written_as_prometheus_reads_it() {
        let registry = Registry::default();
        with_local_recorder(&registry, || {
            metrics::describe_counter!("asked_total", "How often");
            counter!("asked_total", "who" => "a\"b\\").increment(2);
            counter!("asked_total", "who" => "c").increment(1);
            gauge!("level").increment(1.5);
            gauge!("level").decrement(1.0);
            for seconds in [0.000_05, 0.3, 1000.0] {
                histogram!("took_seconds", "to" => "x").record(seconds);
            }
        });
        let text = registry.render();
        for line in [
            "# HELP asked_total How often\n# TYPE asked_total counter\nasked_total{who=\"a\\\"b\\\\\"} 2\n",
            "asked_total{who=\"c\"} 1\n",
            "# TYPE level gauge\nlevel 0.5\n",
            "took_seconds_bucket{to=\"x\",le=\"0.0001\"} 1\n",
            "took_seconds_bucket{to=\"x\",le=\"0.5\"} 2\n",
            "took_seconds_bucket{to=\"x\",le=\"+Inf\"} 3\n",
            "took_seconds_sum{to=\"x\"} 1000.30005\ntook_seconds_count{to=\"x\"} 3\n",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn series_are_bounded_whatever_becomes_a_label() {
        let registry = Registry::default();
        with_local_recorder(&registry, || {
            for number in 0..2 * MAX_SERIES {
                counter!("asked_total", "who" => number.to_string()).increment(1);
            }
            counter!("asked_total", "who" => "0").increment(1);
        });
        assert_eq!(registry.series.read().unwrap().len(), MAX_SERIES);
        assert!(registry.render().contains("asked_total{who=\"0\"} 2\n"), "old series go on");
    }
}
