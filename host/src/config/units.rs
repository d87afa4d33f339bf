//! Durations and sizes as people write them: `30m`, `1h30m`, `512m`, `8g`.

use std::ops::Deref;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// Longest duration: past it, sums with today's date would leave the calendar.
const MAX_SPAN: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A duration with its unit: `250ms`, `30s`, `30m`, `12h`, `30d`, or several of them, as in `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// From a number of seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// From its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut total = Duration::ZERO;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(span_help(text, "is not a duration"));
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at(letters);
            let Ok(number) = number.parse::<u64>() else {
                return Err(span_help(text, "is not a duration"));
            };
            let millis: u64 = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "" => return Err(span_help(text, "has no unit")),
                _ => return Err(span_help(text, "has a unit that is none of ms, s, m, h, d")),
            };
            total = number
                .checked_mul(millis)
                .and_then(|ms| total.checked_add(Duration::from_millis(ms)))
                .filter(|t| *t <= MAX_SPAN)
                .ok_or_else(|| format!("`{text}` is too long: at most 100 years, `36500d`"))?;
            rest = after;
        }
        Ok(Self(total))
    }
}

fn span_help(text: &str, wrong: &str) -> String {
    match text.trim().parse::<u64>() {
        Ok(number) => format!("`{text}` {wrong}: write `{number}s` for seconds, `{number}m` for minutes"),
        Err(_) => format!("`{text}` {wrong}: write for instance `30s`, `30m`, `12h` or `30d`"),
    }
}

impl Deref for Span {
    type Target = Duration;
    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A number of bytes with its unit, in powers of 1024: `64k`, `512m`, `1g`, `2t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// From a number of MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// As a number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// From its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = text.trim();
        let digits = plain.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = plain.split_at(digits);
        let Ok(number) = number.parse::<u64>() else {
            return Err(format!("`{text}` is not a size: write for instance `64k`, `512m` or `1g`"));
        };
        let shift = match unit.to_ascii_lowercase().as_str() {
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            "" => {
                return Err(format!(
                    "`{text}` has no unit: write `{number}m` for mebibytes, `{number}g` for gibibytes"
                ));
            }
            _ => {
                return Err(format!(
                    "`{text}` has a unit that is none of k, m, g, t: write for instance `512m`"
                ));
            }
        };
        // Kept within what SQLite and JavaScript clients can hold.
        number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= 1 << 53)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is too large: at most `8192t`"))
    }
}

macro_rules! from_text {
    ($type:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }
                    // A bare number is the likeliest mistake, so it gets the same help as a text without a unit.
                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}
from_text!(Span, "a duration such as \"30s\", \"30m\" or \"30d\"");
from_text!(Size, "a size such as \"512m\" or \"1g\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text).unwrap().as_millis(), ms, "{text}");
        }
        for (text, bytes) in [("64k", 65_536), ("1g", 1 << 30), ("512MiB", 512 << 20), ("0m", 0)] {
            assert_eq!(Size::parse(text).unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        for (text, says) in [
            ("30", "write `30s`"),
            ("", "30s"),
            ("-5s", "30s"),
            ("5 s", "no unit"),
            ("1.5h", "no unit"),
            ("30min", "none of"),
            ("36501d", "too long"),
            ("99999999999999999999s", "30s"),
        ] {
            let error = Span::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for (text, says) in [
            ("512", "`512m`"),
            ("1.5g", "none of"),
            ("-1g", "not a size"),
            ("g", "not a size"),
            ("9999999t", "too large"),
            ("1x", "none of"),
        ] {
            let error = Size::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
