//! A piece of the private address space for each Bay on Docker, so that those of tests that run side by side do not
//! clash on the one engine they share.

use std::fs::File;

/// Pieces there are: more than tests that ever run at once.
const PIECES: u32 = 200;

/// A `/24` that is one Bay's own as long as this lives.
#[derive(Debug)]
pub(crate) struct Subnet {
    /// As `[docker].subnet_pool` takes it.
    pub(crate) pool: String,
    _claim: File,
}

impl Subnet {
    /// Takes one that nobody has.
    pub(crate) fn claim() -> Self {
        let dir = std::env::temp_dir().join("bay-test-subnets");
        std::fs::create_dir_all(&dir).expect("make the directory of claims");
        let first = std::process::id() % PIECES;
        for n in (first..PIECES).chain(0..first) {
            let claim = File::create(dir.join(n.to_string())).expect("make a claim");
            if claim.try_lock().is_ok() {
                return Self { pool: format!("10.213.{n}.0/24"), _claim: claim };
            }
        }
        panic!("more than {PIECES} Bays run on this engine");
    }
}
