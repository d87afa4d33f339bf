//! The last events of an execution, numbered, within a bound of bytes. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of events kept. A reader that falls behind further than this loses some, and is told how many.
pub(super) const RING_BYTES: usize = 256 << 10;
/// What an event costs beside its text, so that many small ones are bounded, too.
const OVERHEAD: usize = 64;

/// Events by number, from 1 on, without holes.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Rendered, ready to be sent.
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Number of the newest event; 0 before the first.
    newest: u64,
}

/// What a reader gets that has seen everything up to some number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Events that are gone already: numbers of the first and the last of them.
    pub(super) gap: Option<(u64, u64)>,
    /// The next events, in order.
    pub(super) events: Vec<Bytes>,
    /// The number of the last of them (or the last one lost), from which to read on.
    pub(super) last: u64,
}

impl Ring {
    /// The number that the next event will have.
    pub(super) fn next(&self) -> u64 {
        self.newest + 1
    }

    /// Appends an event and lets go of the oldest beyond the bound, but never of the one just appended.
    pub(super) fn push(&mut self, event: Bytes) {
        self.newest += 1;
        self.bytes += event.len() + OVERHEAD;
        self.events.push_back(event);
        while self.bytes > RING_BYTES && self.events.len() > 1 {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.len() + OVERHEAD;
            }
        }
    }

    /// Counts events that would not stay anyway, without making them.
    pub(super) fn skip(&mut self, count: u64) {
        if count > 0 {
            self.newest += count;
            self.forget();
        }
    }

    /// Lets go of all events; their numbers stay.
    pub(super) fn forget(&mut self) {
        self.bytes = 0;
        self.events.clear();
    }

    /// What comes after number `seen`, up to about `most` bytes, at least one event where there is one. A number
    /// from the future counts as the newest.
    pub(super) fn after(&self, seen: u64, most: usize) -> Page {
        let seen = seen.min(self.newest);
        let oldest = self.newest - self.events.len() as u64 + 1;
        let gap = (seen + 1 < oldest).then_some((seen + 1, oldest - 1));
        let first = oldest.max(seen + 1);
        let (mut events, mut bytes) = (Vec::new(), 0);
        let skip = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        for event in self.events.iter().skip(skip) {
            if bytes > 0 && bytes + event.len() > most {
                break;
            }
            bytes += event.len();
            events.push(event.clone());
        }
        let last = first - 1 + events.len() as u64;
        Page { gap, events, last }
    }

    /// Bytes that a reader who has seen everything up to `seen` has not been given yet.
    pub(super) fn unread(&self, seen: u64) -> usize {
        let count = usize::try_from(self.newest.saturating_sub(seen)).unwrap_or(usize::MAX);
        self.events.iter().rev().take(count).map(|event| event.len() + OVERHEAD).sum()
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u64, size: usize) -> Bytes {
        let mut text = format!("{number};").into_bytes();
        text.resize(text.len().max(size), b'x');
        text.into()
    }

    proptest! {
        /// A model that keeps everything: what a reader gets, with the gaps, is all of it in order.
        #[test]
        fn a_reader_gets_every_event_in_order_or_is_told_which_are_lost(
            steps in prop::collection::vec((0usize..120_000, any::<bool>(), 1usize..200_000), 1..60)
        ) {
            let mut ring = Ring::default();
            let (mut seen, mut pushed) = (0, 0u64);
            let mut told = Vec::new();
            for (size, read, most) in steps {
                pushed += 1;
                prop_assert_eq!(ring.next(), pushed);
                ring.push(event(pushed, size));
                prop_assert!(ring.bytes() <= RING_BYTES || ring.events.len() == 1);
                if read {
                    let page = ring.after(seen, most);
                    if let Some((from, to)) = page.gap {
                        prop_assert!(from == seen + 1 && to >= from);
                        told.extend(from..=to);
                    }
                    for got in &page.events {
                        let text = String::from_utf8_lossy(got);
                        told.push(text.split(';').next().unwrap().parse().unwrap());
                    }
                    prop_assert!(!page.events.is_empty());
                    seen = page.last;
                    prop_assert_eq!(ring.unread(ring.newest), 0);
                }
            }
            prop_assert_eq!(&told, &(1..=seen).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_number_from_the_future_reads_nothing_and_loses_nothing() {
        let mut ring = Ring::default();
        ring.push(event(1, 1));
        assert_eq!(ring.after(99, 1000), Page { gap: None, events: vec![], last: 1 });
        assert_eq!(Ring::default().after(5, 1000), Page { gap: None, events: vec![], last: 0 });
    }

    #[test]
    fn skipped_events_are_a_gap() {
        let mut ring = Ring::default();
        ring.push(event(1, 10));
        ring.skip(3);
        assert_eq!(ring.after(0, 10), Page { gap: Some((1, 4)), events: vec![], last: 4 });
        ring.push(event(5, 1));
        let page = ring.after(1, 10);
        assert_eq!((page.gap, page.events.len(), page.last), (Some((2, 4)), 1, 5));
    }

    #[test]
    fn the_newest_event_stays_however_large_it_is() {
        let mut ring = Ring::default();
        ring.push(event(1, 10));
        ring.push(event(2, RING_BYTES * 2));
        let page = ring.after(0, 10);
        assert_eq!((page.gap, page.events.len(), page.last), (Some((1, 1)), 1, 2));
    }
}
