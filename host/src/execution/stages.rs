//! The stages a call has passed, in order, with the time each took. Shown as `Server-Timing`, so that a client
//! (and a test) sees where a call went and how far it came.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One stage of a call, in the order of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Sandbox found, not expired, capability declared, operation known, input fits.
    Admit,
    /// The chain of rules, and the input checked again.
    Rules,
    /// The router's choice.
    Route,
    /// The intent is in the store.
    Record,
    /// A session is ready.
    Start,
    /// The adapter ran.
    Adapt,
}

impl Stage {
    /// As in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Rules => "rules",
            Self::Route => "route",
            Self::Record => "record",
            Self::Start => "start",
            Self::Adapt => "adapt",
        }
    }
}

/// The trail of one call.
#[derive(Debug)]
pub struct Stages {
    passed: Mutex<(Instant, Vec<(Stage, Duration)>)>,
    execution_id: OnceLock<String>,
}

impl Stages {
    /// The clock starts now.
    pub fn begin() -> Self {
        Self { passed: Mutex::new((Instant::now(), Vec::with_capacity(6))), execution_id: OnceLock::new() }
    }

    /// A stage is done, well or badly: it took the time since the one before.
    pub fn done(&self, stage: Stage) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let took = now.duration_since(passed.0);
        passed.0 = now;
        passed.1.push((stage, took));
        metrics::histogram!("bay_call_stage_seconds", "stage" => stage.as_str()).record(took);
    }

    /// The call is an execution of this id from now on.
    pub fn name(&self, execution_id: &str) {
        // A call has one.
        let _named_already = self.execution_id.set(execution_id.to_owned());
    }

    /// The execution that the call is, where it has come to be one.
    pub fn execution_id(&self) -> Option<&str> {
        self.execution_id.get().map(String::as_str)
    }

    /// The stages passed so far, in order.
    pub fn order(&self) -> Vec<Stage> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).1.iter().map(|(s, _)| *s).collect()
    }

    /// Value of a `Server-Timing` header: names and milliseconds.
    pub fn header(&self) -> String {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (stage, took) in &passed.1 {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{comma}{};dur={:.3}", stage.as_str(), took.as_secs_f64() * 1e3);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_stages_in_the_order_they_were_passed() {
        let stages = Stages::begin();
        stages.done(Stage::Admit);
        stages.done(Stage::Rules);
        assert_eq!(stages.order(), [Stage::Admit, Stage::Rules]);
        let header = stages.header();
        assert!(header.starts_with("admit;dur=") && header.contains(", rules;dur="), "{header}");
    }
}
