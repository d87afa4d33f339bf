//! When a key was last used: written down at most once a minute a key, and never while its request waits.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How old the time written down may be, in milliseconds.
const FRESH: i64 = 60_000;
/// Most writes under way; past it a use goes unwritten, and the next one tries again.
const MAX_WRITES: usize = 256;

/// Keys whose time is being written.
#[derive(Debug, Default)]
pub struct Uses(Mutex<HashSet<String>>);

impl Uses {
    /// Whether the caller is to write this use down, and then to say so with [`Uses::written`].
    pub fn is_due(&self, key_id: &str, last: Option<i64>, now: i64) -> bool {
        if last.is_some_and(|last| now.saturating_sub(last) < FRESH) {
            return false;
        }
        let mut writing = self.writing();
        writing.len() < MAX_WRITES && writing.insert(key_id.to_owned())
    }

    /// The write has ended, well or not.
    pub fn written(&self, key_id: &str) {
        self.writing().remove(key_id);
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_written_once_a_minute_and_by_one_request() {
        let uses = Uses::default();
        assert!(uses.is_due("key_a", None, 5));
        assert!(!uses.is_due("key_a", None, 6), "somebody writes it already");
        assert!(uses.is_due("key_b", Some(0), FRESH));
        uses.written("key_a");
        assert!(!uses.is_due("key_a", Some(5), 4 + FRESH));
        assert!(uses.is_due("key_a", Some(5), 5 + FRESH));
    }

    #[test]
    fn writes_under_way_have_a_bound() {
        let uses = Uses::default();
        assert!((0..MAX_WRITES).all(|n| uses.is_due(&n.to_string(), None, 0)));
        assert!(!uses.is_due("one more", None, 0));
    }
}
