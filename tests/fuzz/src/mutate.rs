//! Seeded mutations of seeds, for targets that run as tests: no coverage guides them, but nothing needs installing.

use bay_ship_tests::random::Random;

/// What tends to matter at the edges of numbers and texts.
const WORDS: [&[u8]; 14] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\x7f",
    b"..",
    b"/",
    b"%",
    b"-",
    b"\"",
    b"{",
    b"18446744073709551616",
    b"\\ud800",
    b"\n",
];
/// An input stops growing here: longer ones find nothing that shorter ones do not, and cost time.
const MAX: usize = 16 << 10;

/// One of the seeds with a few things changed.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.get(at(seeds.len(), random)).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(MAX);
    bytes
}

/// A place among so many.
fn at(count: usize, random: &mut Random) -> usize {
    usize::try_from(random.below(count.max(1) as u64)).unwrap_or_default()
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let place = at(bytes.len() + 1, random);
    match random.below(7) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random.draw().to_le_bytes()[0];
            }
        }
        2 => bytes.truncate(place),
        3 => {
            let end = (place + at(16, random)).min(bytes.len());
            bytes.drain(place..end);
        }
        4 => {
            let word = WORDS[at(WORDS.len(), random)];
            bytes.splice(place..place, word.iter().copied());
        }
        5 => {
            let end = (place + at(64, random)).min(bytes.len());
            let again = bytes[place..end].to_vec();
            bytes.splice(place..place, again);
        }
        _ => {
            let other = seeds.get(at(seeds.len(), random)).map_or(&[][..], Vec::as_slice);
            let tail = other[at(other.len() + 1, random)..].to_vec();
            bytes.splice(place.., tail);
        }
    }
}
