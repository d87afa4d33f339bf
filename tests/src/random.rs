//! Small seeded randomness: a failure prints the seed, and the seed repeats it.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From `BAY_TEST_SEED`, else from the clock. Printed, so that a failure can be repeated.
    pub fn from_env() -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = std::env::var("BAY_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(clock.subsec_nanos()));
        eprintln!("BAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another, for a thread of its own: what one draws does not shift what the other does.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number beneath `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % bound as u64).unwrap_or_default()
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Rounds of a random test: few unless `BAY_TEST_ROUNDS` says more.
pub fn rounds(few: usize) -> usize {
    std::env::var("BAY_TEST_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(few)
}
