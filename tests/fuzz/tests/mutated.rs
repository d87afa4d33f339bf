//! Every target on thousands of mutated inputs, for a few seconds at most. A failure prints its seed and input.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::time::{Duration, Instant};

use bay_fuzz::{TARGETS, mutate, target};
use bay_ship_tests::random::Random;

/// Inputs of each target.
const INPUTS: u32 = 20_000;
/// A slow machine tries fewer.
const AT_MOST: Duration = Duration::from_secs(5);
/// Beneath this nothing was tried.
const AT_LEAST: u32 = 100;

/// Says what the input was, when the target panics on it.
struct Input<'i>(&'i [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {}", self.0.escape_ascii());
        }
    }
}

fn fuzzed(name: &str) {
    let target = target(name).unwrap();
    let (seeds, mut random, end) = ((target.seeds)(), Random::from_env(), Instant::now() + AT_MOST);
    for seed in &seeds {
        let _shown = Input(seed);
        (target.run)(seed);
    }
    let mut tried = 0;
    while tried < INPUTS && Instant::now() < end {
        let input = mutate::mutated(&seeds, &mut random);
        let _shown = Input(&input);
        (target.run)(&input);
        tried += 1;
    }
    assert!(tried >= AT_LEAST, "only {tried} inputs in {AT_MOST:?}");
}

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                fuzzed(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_a_test() {
            let tests = [$(stringify!($name)),+];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), tests);
        }
    };
}

targets! {
    query, range, route, path, body, frames, kernel_stream, kernel_message, handshake_ship, handshake_bay, archive, start_message,
    spawner,
}
