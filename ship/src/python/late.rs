//! Output that belongs to no execution: kept apart from all answers, and not lost without a word.

use std::sync::{Arc, Mutex, PoisonError};

use bay_ship_api::http::LateOutput;

/// Bytes kept of it, from the end: a thread may print for hours.
const MAX_TAIL: usize = 4096;

/// Where it gathers. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Late(Arc<Mutex<LateOutput>>);

impl Late {
    /// Adds some.
    pub(super) fn push(&self, text: &str) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        late.bytes = late.bytes.saturating_add(text.len() as u64);
        // What will not stay anyhow is not copied first.
        late.tail.push_str(&text[text.ceil_char_boundary(text.len().saturating_sub(MAX_TAIL))..]);
        let excess = late.tail.ceil_char_boundary(late.tail.len().saturating_sub(MAX_TAIL));
        late.tail.drain(..excess);
    }

    /// What there is.
    pub(super) fn read(&self) -> LateOutput {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets it: it was another kernel's.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = LateOutput::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_counted_and_the_end_is_kept_in_whole_characters() {
        let late = Late::default();
        late.push("first ");
        late.push(&"é".repeat(MAX_TAIL));
        late.push("x");
        let read = late.read();
        assert_eq!(read.bytes, 6 + 2 * MAX_TAIL as u64 + 1);
        assert!(read.tail.len() <= MAX_TAIL && read.tail.ends_with("éx"), "{}", read.tail.len());
        late.clear();
        assert_eq!(late.read(), LateOutput::default());
    }
}
