//! `[quota]`, in `bay.toml` for every tenant and in a tenant's own file over it.

use std::fmt;
use std::num::NonZeroU32;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::store::{Limits, Quota};

/// Highest value of a quota: what SQLite and JavaScript clients can hold.
const MAX_BOUND: u64 = 1 << 53;

/// A bound as configured: a whole number, or `"unlimited"` to lift what stands in `bay.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// At most this much.
    At(u64),
    /// No bound.
    Unlimited,
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bound;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or \"unlimited\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
                // The environment's values may come as text.
                match text.parse() {
                    Ok(number) => self.visit_u64(number),
                    Err(_) if text == "unlimited" => Ok(Bound::Unlimited),
                    Err(_) => Err(E::custom(format!("`{text}` is neither a whole number nor \"unlimited\""))),
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Bound, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom("a quota cannot be negative: write \"unlimited\" for no bound")),
                }
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Bound, E> {
                if number > MAX_BOUND {
                    return Err(E::custom(format!("at most {MAX_BOUND}: write \"unlimited\" for no bound")));
                }
                Ok(Bound::At(number))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// How often a tenant may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

/// What a tenant may have. What is left out is as in `bay.toml`, and there unlimited unless said otherwise here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// Sandboxes, running or not.
    pub sandboxes: Option<Bound>,
    /// Sandboxes that run, start or stop.
    pub running: Option<Bound>,
    /// Starts under way.
    pub starting: Option<Bound>,
    /// Executions at once.
    pub executions: Option<Bound>,
    /// Open streams; 256 where nothing is said.
    pub streams: Option<Bound>,
    /// External lockers.
    pub lockers: Option<Bound>,
    /// Sum of the size limits of external lockers, in MiB. With it each needs a size limit.
    pub locker_mb: Option<Bound>,
    /// What the history of all its sandboxes keeps, in bytes. Over it nothing is executed.
    pub history_bytes: Option<Bound>,
    /// Requests a second.
    pub requests_per_second: Option<Bound>,
    /// Requests at once; where nothing is said, those of a second.
    pub burst: Option<Bound>,
}

/// Streams a tenant may have open that nobody has set a bound for: each holds a connection.
const DEFAULT_STREAMS: u64 = 256;

impl QuotaConfig {
    /// This over `base`: key by key.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            sandboxes: self.sandboxes.or(base.sandboxes),
            running: self.running.or(base.running),
            starting: self.starting.or(base.starting),
            executions: self.executions.or(base.executions),
            streams: self.streams.or(base.streams),
            lockers: self.lockers.or(base.lockers),
            locker_mb: self.locker_mb.or(base.locker_mb),
            history_bytes: self.history_bytes.or(base.history_bytes),
            requests_per_second: self.requests_per_second.or(base.requests_per_second),
            // A tenant's own rate with another's burst would be neither.
            burst: self.burst.or(base.burst.filter(|_| self.requests_per_second.is_none())),
        }
    }

    /// What the store and the streams hold to.
    pub fn limits(&self) -> Limits {
        let streams = self.streams.unwrap_or(Bound::At(DEFAULT_STREAMS));
        [
            (Quota::Sandboxes, self.sandboxes),
            (Quota::Running, self.running),
            (Quota::Starting, self.starting),
            (Quota::Executions, self.executions),
            (Quota::Streams, Some(streams)),
            (Quota::Lockers, self.lockers),
            (Quota::LockerMb, self.locker_mb),
            (Quota::HistoryBytes, self.history_bytes),
        ]
        .into_iter()
        .fold(Limits::default(), |limits, (quota, bound)| match bound {
            Some(Bound::At(limit)) => limits.with(quota, limit),
            Some(Bound::Unlimited) | None => limits,
        })
    }

    /// How often it may ask; null: as often as it likes.
    pub fn rate(&self) -> Option<Rate> {
        let number = |bound: Option<Bound>| match bound {
            Some(Bound::At(n)) => NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX)),
            Some(Bound::Unlimited) | None => None,
        };
        let per_second = number(self.requests_per_second)?;
        Some(Rate { per_second, burst: number(self.burst).unwrap_or(per_second) })
    }

    /// What types alone do not refuse: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        for (key, bound) in [("requests_per_second", self.requests_per_second), ("burst", self.burst)] {
            match bound {
                Some(Bound::At(0)) => {
                    return Err((key, "must be at least 1: revoke its keys to shut a tenant out"));
                }
                Some(Bound::At(n)) if n > MAX_RATE => return Err((key, "must be at most 1000000")),
                Some(Bound::Unlimited) if key == "burst" => {
                    return Err((key, "must be a number: what is unlimited is requests_per_second"));
                }
                Some(Bound::At(_) | Bound::Unlimited) | None => {}
            }
        }
        Ok(())
    }
}

/// Highest rate and burst: above, a limit only costs time.
const MAX_RATE: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> QuotaConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_tenants_own_quota_stands_over_that_of_all() {
        let all = parse("sandboxes = 5\nrunning = 2\nrequests_per_second = 10\nburst = 50");
        let own = parse("sandboxes = \"unlimited\"\nlockers = 0\nrequests_per_second = 3").over(all);
        let limits = own.limits();
        assert_eq!(limits.of(Quota::Sandboxes), None);
        assert_eq!(limits.of(Quota::Running), Some(2));
        assert_eq!(limits.of(Quota::Lockers), Some(0));
        assert_eq!(limits.of(Quota::Streams), Some(DEFAULT_STREAMS));
        let rate = own.rate().unwrap();
        assert_eq!((rate.per_second.get(), rate.burst.get()), (3, 3));
        assert_eq!(parse("").over(all).rate().unwrap().burst.get(), 50);
        assert_eq!(parse("requests_per_second = \"unlimited\"").over(all).rate(), None);
    }

    #[test]
    fn what_is_no_bound_is_refused_in_words() {
        for (text, says) in [
            ("sandboxes = -1", "cannot be negative"),
            ("sandboxes = \"many\"", "neither a whole number"),
            ("sandboxes = 1.5", "a whole number"),
            ("sandbox = 1", "unknown field"),
        ] {
            let error = toml::from_str::<QuotaConfig>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(parse("requests_per_second = 0").check().unwrap_err().0, "requests_per_second");
        assert_eq!(parse("burst = \"unlimited\"").check().unwrap_err().0, "burst");
    }
}
