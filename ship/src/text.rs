//! Text that user code produced: bounded, never cut inside a character, without terminal colours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A string that stops growing at a bound and remembers that it did.
#[derive(Debug, Default)]
pub(crate) struct BoundedText {
    text: String,
    limit: usize,
    truncated: bool,
}

impl BoundedText {
    pub(crate) fn new(limit: usize) -> Self {
        Self { text: String::new(), limit, truncated: false }
    }

    /// Appends what fits, whole characters only. After the first cut nothing more is taken, so that what is kept
    /// is a prefix of what was said.
    pub(crate) fn push(&mut self, more: &str) {
        if self.truncated {
            return;
        }
        let room = self.limit - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
        } else {
            self.text.push_str(&more[..more.floor_char_boundary(room)]);
            self.truncated = true;
        }
    }

    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
    }
}

/// The text of the first bytes of a stream that had `total` in all, and whether there were more: what is not UTF-8
/// is replaced, but a character that the bound cut in two is left out. Nor is it longer in JSON than `most` bytes.
pub(crate) fn prefix(head: &[u8], total: u64, most: usize) -> (String, bool) {
    let truncated = total > head.len() as u64;
    let whole = if truncated { head.len() - cut_tail(head) } else { head.len() };
    let mut text = String::from_utf8_lossy(&head[..whole]).into_owned();
    let cut = cut_to_json(&mut text, most);
    (text, truncated || cut)
}

/// Cuts text to what takes at most `most` bytes in JSON, where a control character takes six; true where it did.
pub(crate) fn cut_to_json(text: &mut String, most: usize) -> bool {
    let mut left = most;
    let end = text.char_indices().find(|(_, c)| {
        let takes = match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        let fits = left >= takes;
        left = left.saturating_sub(takes);
        !fits
    });
    let Some((at, _)) = end else { return false };
    text.truncate(at);
    true
}

/// Turns bytes that come in pieces into text that never splits a character: the beginning of one waits for its rest.
#[derive(Debug, Default)]
pub(crate) struct Utf8Pieces {
    waiting: Vec<u8>,
}

impl Utf8Pieces {
    /// The text that is whole by now, in pieces of at most about `most` bytes. What is not UTF-8 is replaced.
    pub(crate) fn take(&mut self, bytes: &[u8], most: usize) -> Vec<String> {
        self.waiting.extend_from_slice(bytes);
        let whole = self.waiting.len() - cut_tail(&self.waiting);
        let mut pieces = Vec::new();
        let mut rest = &self.waiting[..whole];
        while !rest.is_empty() {
            let mut piece = &rest[..rest.len().min(most)];
            if piece.len() < rest.len() {
                // Never nothing, so that there is an end: `most` is larger than any character.
                piece = &piece[..piece.len() - cut_tail(piece).min(piece.len() - 1)];
            }
            rest = &rest[piece.len()..];
            pieces.push(String::from_utf8_lossy(piece).into_owned());
        }
        self.waiting.drain(..whole);
        pieces
    }

    /// What waits for a rest that never comes.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.waiting);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// How many bytes at the end are the beginning of a character whose rest is missing.
pub(crate) fn cut_tail(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let tail = &bytes[bytes.len() - back..];
        if tail[0] & 0xC0 == 0x80 {
            continue;
        }
        let incomplete = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        return if incomplete { back } else { 0 };
    }
    0
}

/// Removes terminal escape sequences: colours, cursor movements, window titles.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: parameters, then one final character.
                Some('[') => {
                    for c in chars.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            break;
                        }
                    }
                }
                // OSC: up to BEL or ESC \.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                // Character sets take one more.
                Some('(' | ')') => {
                    chars.next();
                }
                _ => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// RFC 3339 in UTC with milliseconds, for instance `2026-11-24T00:05:12.345Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken from March, so that the leap day is last.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01; an era is the 400 years after which the calendar repeats.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bounded_text_is_a_whole_prefix(parts in prop::collection::vec("\\PC{0,9}", 0..20), limit in 0usize..60) {
            let mut bounded = BoundedText::new(limit);
            for part in &parts {
                bounded.push(part);
            }
            let whole = parts.concat();
            prop_assert!(whole.starts_with(bounded.as_str()));
            prop_assert!(bounded.as_str().len() <= limit);
            prop_assert_eq!(bounded.truncated(), whole.len() > limit);
            if !bounded.truncated() {
                prop_assert_eq!(bounded.as_str(), whole);
            }
        }

        #[test]
        fn a_prefix_never_shows_half_a_character(text in "\\PC{0,40}", limit in 0usize..60) {
            let bytes = text.as_bytes();
            let (shown, more) = prefix(&bytes[..bytes.len().min(limit)], bytes.len() as u64, usize::MAX);
            prop_assert!(text.starts_with(&shown), "{shown:?}");
            prop_assert_eq!(more, bytes.len() > limit);
            prop_assert!(more || shown == text);
        }

        #[test]
        fn a_text_cut_to_json_takes_no_more_and_no_less_than_it_may(text: String, most in 0usize..80) {
            let mut cut = text.clone();
            let was_cut = cut_to_json(&mut cut, most);
            let length = |text: &str| serde_json::to_string(text).unwrap().len() - 2;
            prop_assert!(length(&cut) <= most && text.starts_with(&cut));
            prop_assert_eq!(was_cut, length(&text) > most);
            if let Some(next) = text[cut.len()..].chars().next() {
                prop_assert!(length(&cut) + length(&next.to_string()) > most);
            }
        }

        #[test]
        fn pieces_together_are_the_text(text in "\\PC{0,60}", step in 1usize..9, most in 4usize..20) {
            let (mut pieces, mut together) = (Utf8Pieces::default(), String::new());
            for chunk in text.as_bytes().chunks(step) {
                for piece in pieces.take(chunk, most) {
                    prop_assert!(!piece.is_empty() && piece.len() <= most);
                    together.push_str(&piece);
                }
            }
            prop_assert_eq!(pieces.finish(), None);
            prop_assert_eq!(together, text);
        }

        #[test]
        fn pieces_of_any_bytes_are_the_bytes_as_text(bytes: Vec<u8>, step in 1usize..9) {
            let (mut pieces, mut together) = (Utf8Pieces::default(), String::new());
            for chunk in bytes.chunks(step) {
                together.extend(pieces.take(chunk, 1024));
            }
            together.extend(pieces.finish());
            prop_assert_eq!(together, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn escapes_go_and_nothing_panics(text: String) {
            let clean = !without_escapes(&text).contains('\u{1b}');
            prop_assert!(clean);
        }
    }

    #[test]
    fn colours_titles_and_character_sets_are_removed() {
        assert_eq!(without_escapes("\u{1b}[0;31mred\u{1b}[0m plain"), "red plain");
        assert_eq!(without_escapes("\u{1b}]0;title\u{7}a\u{1b}]8;;x\u{1b}\\b\u{1b}(Bc"), "abc");
    }

    #[test]
    fn times_are_written_as_the_contract_says() {
        let at = |ms| rfc3339(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_478_712_345), "2026-11-24T00:05:12.345Z");
    }
}
