//! What reads an archive, as a function of bytes; see [`crate::fuzz`].

use super::archive::plan::{BOUNDS, Tree, What, judge};
use super::tar::Reader;

/// An entry that would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Components beneath the directory it is unpacked into; none for that itself.
    pub path: Vec<Vec<u8>>,
    /// Where a symbolic link points.
    pub symlink: Option<Vec<u8>>,
    /// What a hard link is another name of.
    pub hardlink: Option<Vec<Vec<u8>>>,
    /// Permission bits.
    pub mode: u32,
}

/// The entries of an archive up to its end or to the first thing that refuses it, and whether it is whole.
pub fn archive(bytes: &[u8]) -> (Vec<Unpacked>, bool) {
    let (mut reader, mut tree, mut unpacked) = (Reader::new(bytes), Tree::new(BOUNDS), Vec::new());
    let mut sink = [0; 4096];
    loop {
        let member = match reader.next() {
            Ok(Some(member)) => member,
            Ok(None) => return (unpacked, true),
            Err(_) => return (unpacked, false),
        };
        let Ok(plan) = judge(&member, &BOUNDS) else { return (unpacked, false) };
        if tree.admit(&plan).is_err() {
            return (unpacked, false);
        }
        let owned = |steps: &[Box<[u8]>]| steps.iter().map(|step| step.to_vec()).collect();
        let (symlink, hardlink) = match &plan.what {
            What::Symlink { target } => (Some(target.clone()), None),
            What::Hardlink { source } => (None, Some(owned(source))),
            What::Directory | What::File { .. } => (None, None),
        };
        unpacked.push(Unpacked { path: owned(&plan.path), symlink, hardlink, mode: plan.mode });
        loop {
            match reader.data(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return (unpacked, false),
            }
        }
    }
}
