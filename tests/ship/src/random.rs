//! Small seeded randomness: a failure prints the seed, and the seed repeats it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `SplitMix64`.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `BAY_TEST_SEED`, else from the clock. Printed, so that a failure can be repeated.
    pub fn from_env() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = std::env::var("BAY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(clock.subsec_nanos()));
        eprintln!("BAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number beneath `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

/// How long a random test goes on: as long as given unless `BAY_TEST_SECONDS` says otherwise.
pub fn duration(usual: Duration) -> Duration {
    let named = std::env::var("BAY_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    named.map_or(usual, Duration::from_secs)
}
