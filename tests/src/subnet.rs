//! A piece of the private address space for each Bay on Docker, so that those of tests that run side by side do not
//! clash on the one engine they share.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};

/// Pieces there are: more than tests that ever run at once.
const PIECES: u32 = 200;
/// A claim is a file, never what a link leads to.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

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
        let _ = DirBuilder::new().mode(0o700).create(&dir);
        // Whoever else owned it could put links there, or take all claims. Who has the engine is one user.
        let meta = dir.symlink_metadata().expect("the directory of claims");
        let own = rustix::process::geteuid().as_raw();
        assert!(meta.is_dir() && meta.uid() == own, "{} is not this user's directory", dir.display());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
        let first = std::process::id() % PIECES;
        for n in (first..PIECES).chain(0..first) {
            let claim = options.open(dir.join(n.to_string())).expect("make a claim");
            if claim.try_lock().is_ok() {
                return Self { pool: format!("10.213.{n}.0/24"), _claim: claim };
            }
        }
        panic!("more than {PIECES} Bays run on this engine");
    }
}
