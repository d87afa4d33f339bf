//! Failed authentication by address: after some a minute, further failures answer 429 instead of 401.
//!
//! Only failures. A credential that is right works from any address at any time, because several clients may share one
//! address (a proxy, an office), and one of them must not be able to lock the others out. That makes the bound no
//! defence against guessing; none is needed, since a secret has 256 random bits. It tells a client that goes on with a
//! wrong key to stop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Over which time failures are counted, from the first.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses remembered; with more, the one whose count began longest ago is forgotten.
const MAX_ADDRESSES: usize = 4096;

/// The count of each address.
#[derive(Debug)]
pub struct Failures {
    allowed: u32,
    counts: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Failures {
    /// With a bound a minute and address.
    pub fn new(allowed: u32) -> Self {
        Self { allowed, counts: Mutex::default() }
    }

    /// Counts a failure. When it was one too many: how long until failures are answered as such again.
    pub fn note(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let address = block(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            make_room(&mut counts, now);
        }
        let count = counts.entry(address).or_insert(Count { since: now, failures: 0 });
        if now.duration_since(count.since) >= WINDOW {
            *count = Count { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
        let over = count.failures > self.allowed;
        over.then(|| WINDOW.saturating_sub(now.duration_since(count.since)))
    }
}

fn make_room(counts: &mut HashMap<IpAddr, Count>, now: Instant) {
    counts.retain(|_, count| now.duration_since(count.since) < WINDOW);
    if counts.len() >= MAX_ADDRESSES
        && let Some(oldest) = counts.iter().min_by_key(|(_, count)| count.since).map(|(a, _)| *a)
    {
        counts.remove(&oldest);
    }
}

/// What is counted as one address: of IPv6 the /64, which one customer has whole.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_past_the_bound_wait_for_the_minute_to_end() {
        let (failures, begin) = (Failures::new(2), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(failures.note(address("10.0.0.1"), at(0)), None);
        assert_eq!(failures.note(address("::ffff:10.0.0.1"), at(1)), None);
        assert_eq!(failures.note(address("10.0.0.1"), at(10)), Some(Duration::from_secs(50)));
        assert_eq!(failures.note(address("10.0.0.2"), at(10)), None, "another's business");
        assert_eq!(failures.note(address("10.0.0.1"), at(60)), None);
    }

    #[test]
    fn a_customers_network_counts_as_one() {
        let (failures, now) = (Failures::new(1), Instant::now());
        assert_eq!(failures.note(address("2001:db8:1:2::1"), now), None);
        assert!(failures.note(address("2001:db8:1:2:ffff::9"), now).is_some());
        assert_eq!(failures.note(address("2001:db8:1:3::1"), now), None);
    }

    #[test]
    fn the_table_has_a_bound_and_forgets_the_oldest_first() {
        let (failures, begin) = (Failures::new(1), Instant::now());
        for n in 0..=u32::try_from(MAX_ADDRESSES).unwrap() {
            failures.note(IpAddr::from(n.to_be_bytes()), begin + Duration::from_millis(n.into()));
        }
        assert_eq!(failures.counts.lock().unwrap().len(), MAX_ADDRESSES);
        let now = begin + Duration::from_secs(5);
        assert!(failures.note(IpAddr::from([0, 0, 0, 1]), now).is_some(), "still known");
        assert_eq!(failures.note(IpAddr::from([0, 0, 0, 0]), now), None, "forgotten");
    }
}
