//! Archives: a client's, or made by user code and handed on. What is accepted must stay beneath where it is unpacked.

use std::collections::BTreeSet;

use bay_ship::fuzz;

/// A block of a tar archive, and places in a header.
const BLOCK: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;

fn entry(name: &str, kind: u8, target: &str, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(SIZE.start, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000001\0");
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let end = vec![0; 2 * BLOCK];
    let long = [&[b'n'; 200][..], b"/", &[b'n'; 200], b"\0"].concat();
    let all = [
        vec![entry("dir/", b'5', "", b""), entry("dir/a.txt", b'0', "", b"hello")],
        vec![entry("a", b'0', "", b"x"), entry("b", b'1', "a", b""), entry("d/c", b'2', "../a", b"")],
        vec![entry("up", b'2', "..", b""), entry("up/x", b'0', "", b"x")],
        vec![entry("../x", b'0', "", b"x")],
        vec![entry("/x", b'0', "", b"x")],
        vec![entry("x", b'x', "", b"20 path=a/../../etc\n"), entry("y", b'0', "", b"y")],
        vec![entry("././@LongLink", b'L', "", &long), entry("n", b'0', "", b"")],
        vec![entry("dev", b'3', "", b""), entry("fifo", b'6', "", b"")],
    ];
    all.into_iter().map(|entries| [entries.concat(), end.clone()].concat()).collect()
}

/// The same with right checksums: without them nothing that was changed would be read.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (bytes.to_vec(), 0);
    while let Some(block) = bytes.get_mut(at..at + BLOCK) {
        let data = if block.iter().all(|byte| *byte == 0) {
            0
        } else {
            block[CHECKSUM].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let size = String::from_utf8_lossy(&block[SIZE]);
            usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0)
        };
        // Beyond the end of the input there is nothing to check.
        at = at
            .saturating_add(BLOCK)
            .saturating_add(data.checked_next_multiple_of(BLOCK).unwrap_or(bytes.len()));
        at = at.min(bytes.len());
    }
    bytes
}

/// Nothing that is accepted lies, points or leads outside, and nothing lies beneath a link.
pub(crate) fn archive(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), checked(bytes)] {
        let (entries, _) = fuzz::archive(&bytes);
        let mut links: BTreeSet<Vec<Vec<u8>>> = BTreeSet::new();
        for entry in &entries {
            assert_eq!(entry.mode & !0o777, 0, "{entry:?}");
            for path in std::iter::once(&entry.path).chain(&entry.hardlink) {
                let plain =
                    |step: &Vec<u8>| !matches!(&step[..], b"" | b"." | b"..") && !step.contains(&b'/');
                assert!(path.iter().all(|step| plain(step) && !step.contains(&0)), "{entry:?}");
                assert!(
                    (1..path.len()).all(|count| !links.contains(&path[..count])),
                    "{entry:?} in {entries:?}"
                );
            }
            if let Some(target) = &entry.symlink {
                assert!(stays_beneath(entry.path.len(), target), "{entry:?}");
                links.insert(entry.path.clone());
            }
        }
    }
}

/// Whether a link so many components deep never leads above the root.
fn stays_beneath(depth: usize, target: &[u8]) -> bool {
    let mut at = depth.saturating_sub(1);
    let steps = target.split(|byte| *byte == b'/');
    !target.starts_with(b"/")
        && !target.is_empty()
        && !target.contains(&0)
        && steps.filter(|step| !matches!(*step, b"" | b".")).all(|step| {
            if step == b".." {
                return at.checked_sub(1).map(|up| at = up).is_some();
            }
            at += 1;
            true
        })
}

#[cfg(test)]
mod tests {
    use super::{checked, seeds};

    /// A reader that refuses everything would pass every run.
    #[test]
    fn the_good_seeds_are_accepted_to_their_end() {
        let seeds = seeds();
        for (seed, entries) in [(0, 2), (1, 3), (6, 1)] {
            let (unpacked, whole) = bay_ship::fuzz::archive(&checked(&seeds[seed]));
            assert_eq!((unpacked.len(), whole), (entries, true), "seed {seed}: {unpacked:?}");
        }
        assert!(!bay_ship::fuzz::archive(&checked(&seeds[3])).1);
    }
}
