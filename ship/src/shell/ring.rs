//! The last bytes of a stream that never ends: bounded, allocated as used, each byte at its offset in the whole.

use std::collections::VecDeque;

use crate::text::cut_tail;

/// Most bytes kept of one stream.
pub(super) const RING: usize = 1 << 20;
/// Bytes are kept and dropped in pieces of this size.
pub(super) const CHUNK: usize = 16 << 10;
/// The smallest piece that is allocated.
const SMALLEST: usize = 256;

/// The end of one stream.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// None is empty, none but the last is shorter than [`CHUNK`].
    chunks: VecDeque<Vec<u8>>,
    /// Offset of the first byte kept.
    start: u64,
    /// Bytes kept.
    len: usize,
    /// Bytes of memory.
    held: usize,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of its first byte.
    pub(super) offset: u64,
    /// Bytes between what was asked for and `offset`.
    pub(super) lost: u64,
    pub(super) bytes: Vec<u8>,
}

impl Ring {
    /// Appends, and drops the oldest beyond [`RING`].
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
                self.chunks.push_back(Vec::new());
            }
            let Some(chunk) = self.chunks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - chunk.len()));
            let needed = chunk.len() + now.len();
            if needed > chunk.capacity() {
                // Doubled, but never beyond what a piece may hold.
                let had = chunk.capacity();
                chunk.reserve_exact(needed.max(2 * had).clamp(SMALLEST, CHUNK) - chunk.len());
                self.held += chunk.capacity() - had;
            }
            chunk.extend_from_slice(now);
            self.len += now.len();
            bytes = later;
            while self.len > RING {
                self.drop_oldest();
            }
        }
    }

    /// Gives up the oldest piece.
    pub(super) fn drop_oldest(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.start += chunk.len() as u64;
            self.len -= chunk.len();
            self.held -= chunk.capacity();
        }
        if self.chunks.is_empty() {
            self.chunks.shrink_to_fit();
        }
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Offset behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// Up to `most` bytes from `offset` on, or from the oldest that is kept.
    pub(super) fn read(&self, offset: u64, most: usize) -> Piece {
        let from = offset.clamp(self.start, self.end());
        let mut skip = usize::try_from(from - self.start).unwrap_or(self.len);
        let mut bytes = Vec::with_capacity(most.min(self.len - skip));
        for chunk in &self.chunks {
            let part = chunk.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(chunk.len());
            bytes.extend_from_slice(&part[..part.len().min(most - bytes.len())]);
            if bytes.len() == most {
                break;
            }
        }
        Piece { offset: from, lost: from.saturating_sub(offset), bytes }
    }

    /// The same for a text: what is left of a character after a loss counts as lost, and one whose rest has not
    /// come yet (`open`: it still may) or does not fit is left for the next time. `most` is 4 or more.
    pub(super) fn read_text(&self, offset: u64, most: usize, open: bool) -> Piece {
        let mut piece = self.read(offset, most);
        if piece.lost > 0 {
            let torn = piece.bytes.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
            piece.bytes.drain(..torn);
            piece.offset += torn as u64;
            piece.lost += torn as u64;
        }
        let next = piece.offset + piece.bytes.len() as u64;
        if open || next < self.end() {
            let whole = piece.bytes.len() - cut_tail(&piece.bytes);
            piece.bytes.truncate(whole);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes and drops, mirrored by a plain vector.
    fn grown(steps: &[(usize, u8, bool)]) -> (Ring, Vec<u8>) {
        let (mut ring, mut all) = (Ring::default(), Vec::new());
        for (count, seed, drop) in steps {
            let bytes: Vec<u8> = (0..*count).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            ring.push(&bytes);
            all.extend(bytes);
            if *drop {
                ring.drop_oldest();
            }
        }
        (ring, all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_ring_is_the_end_of_all_that_was_written(
            steps in prop::collection::vec((0usize..300_000, any::<u8>(), prop::bool::weighted(0.1)), 0..12),
            offset in 0u64..4_000_000,
            most in 1usize..600_000,
        ) {
            let (ring, all) = grown(&steps);
            prop_assert_eq!(ring.end(), all.len() as u64);
            prop_assert!(ring.len <= RING && ring.held() <= RING + CHUNK);
            prop_assert_eq!(ring.held(), ring.chunks.iter().map(Vec::capacity).sum::<usize>());
            let dropped = steps.iter().filter(|(_, _, drop)| *drop).count();
            prop_assert!(ring.len + (dropped + 1) * CHUNK >= all.len().min(RING));
            let piece = ring.read(offset, most);
            let from = offset.clamp(ring.start, ring.end());
            prop_assert_eq!(piece.offset, from);
            prop_assert_eq!(piece.lost, from.saturating_sub(offset));
            let rest = &all[from as usize..];
            prop_assert_eq!(&piece.bytes[..], &rest[..rest.len().min(most)]);
        }

        #[test]
        fn a_text_read_piece_by_piece_is_the_text(
            text in "[a-zé☃🦀]{0,200}", first in 0usize..40, most in 4usize..40, later in 1usize..9,
        ) {
            let mut ring = Ring::default();
            let (mut at, mut seen) = (0, String::new());
            for (turn, bytes) in text.as_bytes().chunks(first + later).enumerate() {
                ring.push(bytes);
                let piece = ring.read_text(at, most, true);
                prop_assert_eq!(piece.lost, 0, "turn {}", turn);
                at += piece.bytes.len() as u64;
                seen.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            }
            while at < ring.end() {
                let piece = ring.read_text(at, most, false);
                prop_assert!(!piece.bytes.is_empty());
                at += piece.bytes.len() as u64;
                seen.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            }
            prop_assert_eq!(seen, text);
        }

        #[test]
        fn after_a_loss_a_text_begins_with_a_whole_character(shift in 0usize..4, offset in 0u64..40_000) {
            let mut ring = Ring::default();
            ring.push("a".repeat(shift).as_bytes());
            ring.push("🦀".repeat(3 * CHUNK / 4).as_bytes());
            ring.drop_oldest();
            let piece = ring.read_text(offset, 4096, true);
            let aligned = piece.lost > 0 || (offset as usize).wrapping_sub(shift).is_multiple_of(4);
            if aligned {
                prop_assert!(std::str::from_utf8(&piece.bytes).is_ok());
            }
            prop_assert_eq!(piece.lost, piece.offset.saturating_sub(offset));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_read_to_their_end() {
        let mut ring = Ring::default();
        ring.push(&[0xE2; 10]);
        let first = ring.read_text(0, 4, true);
        assert_eq!(first.bytes.len(), 3, "one byte more may make it a character");
        assert_eq!(ring.read_text(9, 4, true).bytes.len(), 0, "its rest may come");
        assert_eq!(ring.read_text(9, 4, false).bytes.len(), 1, "and will not");
    }

    #[test]
    fn little_output_takes_little_memory() {
        let mut ring = Ring::default();
        assert_eq!(ring.held(), 0);
        ring.push(b"x");
        assert!(ring.held() <= SMALLEST, "{}", ring.held());
    }
}
