//! What to make of each entry of an archive, decided without touching a file system.
//!
//! [`judge`] looks at one entry, [`Tree`] at all of them together. What both accept lies beneath the root: names
//! have neither `..` nor an absolute start, no entry lies beneath a symbolic link, and a symbolic link has `..` only
//! at the start of its target and never more of them than directories above it, so that it ends beneath the root
//! whatever other links of the archive it passes.

use std::collections::BTreeMap;

use super::reason::Reason;
use crate::files::tar::{Kind, Member};

/// Bounds on an archive. Each has a default in [`BOUNDS`].
#[derive(Debug, Clone, Copy)]
pub(in crate::files) struct Bounds {
    /// Entries, with the directories they imply: memory of the agent's, and inodes of the locker's.
    pub(in crate::files) entries: usize,
    /// Bytes of all files: a small body must not fill a disk.
    pub(in crate::files) bytes: u64,
    /// Directories within each other: one descriptor each.
    pub(in crate::files) depth: usize,
    /// Bytes of a whole name: memory of the agent's.
    pub(in crate::files) name: usize,
}

/// The bounds that hold.
pub(in crate::files) const BOUNDS: Bounds =
    Bounds { entries: 100_000, bytes: 4 << 30, depth: 64, name: 1024 };

/// As the kernel: one component of a name.
const MAX_COMPONENT: usize = 255;

/// Components of a path beneath the root; none is the root itself.
pub(in crate::files) type Steps = Vec<Box<[u8]>>;

/// An entry that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) struct Plan {
    pub(in crate::files) path: Steps,
    pub(in crate::files) what: What,
    /// Permission bits, the owner's own ones always set: what is unpacked can be read, changed and deleted.
    pub(in crate::files) mode: u32,
    pub(in crate::files) mtime: (i64, u32),
}

/// What an accepted entry becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) enum What {
    Directory,
    File { size: u64 },
    Symlink { target: Vec<u8> },
    Hardlink { source: Steps },
}

/// Decides about one entry by itself.
pub(in crate::files) fn judge(member: &Member, bounds: &Bounds) -> Result<Plan, Reason> {
    let path = steps(&member.name, bounds)?;
    let what = match member.kind {
        Kind::Special => return Err(Reason::Special),
        Kind::Sparse => return Err(Reason::Sparse),
        Kind::Other => return Err(Reason::Unsupported),
        // Readers do not agree whether data follows here.
        Kind::Directory | Kind::Symlink | Kind::Hardlink if member.size > 0 => {
            return Err(Reason::UnexpectedData);
        }
        Kind::Directory => What::Directory,
        Kind::File if member.size > bounds.bytes => return Err(Reason::TooManyBytes),
        Kind::File => What::File { size: member.size },
        Kind::Symlink => {
            check_target(&member.target, path.len(), bounds)?;
            What::Symlink { target: member.target.clone() }
        }
        Kind::Hardlink => match steps(&member.target, bounds) {
            Ok(source) => What::Hardlink { source },
            Err(Reason::AbsoluteName | Reason::ClimbingName) => return Err(Reason::EscapingLink),
            Err(Reason::EmptyName) => return Err(Reason::EmptyLink),
            Err(other) => return Err(other),
        },
    };
    let directory = what == What::Directory;
    if path.is_empty() && !directory {
        return Err(Reason::EmptyName);
    }
    // A file's name that ends in a slash is not what it says it is.
    if !directory && member.name.ends_with(b"/") {
        return Err(Reason::Corrupt);
    }
    let mode = member.mode & 0o777 | if directory { 0o700 } else { 0o600 };
    Ok(Plan { path, what, mode, mtime: member.mtime })
}

/// The components of a name.
fn steps(name: &[u8], bounds: &Bounds) -> Result<Steps, Reason> {
    if name.is_empty() {
        return Err(Reason::EmptyName);
    }
    if name.contains(&0) {
        return Err(Reason::NullByte);
    }
    if name.starts_with(b"/") {
        return Err(Reason::AbsoluteName);
    }
    if name.len() > bounds.name {
        return Err(Reason::LongName);
    }
    let mut steps = Steps::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Reason::ClimbingName),
            long if long.len() > MAX_COMPONENT => return Err(Reason::LongName),
            part => steps.push(part.into()),
        }
    }
    if steps.len() > bounds.depth {
        return Err(Reason::TooDeep);
    }
    Ok(steps)
}

/// A symbolic link's target, for a link whose own path has `depth` components.
fn check_target(target: &[u8], depth: usize, bounds: &Bounds) -> Result<(), Reason> {
    if target.is_empty() {
        return Err(Reason::EmptyLink);
    }
    if target.contains(&0) {
        return Err(Reason::NullByte);
    }
    if target.starts_with(b"/") {
        return Err(Reason::AbsoluteLink);
    }
    if target.len() > bounds.name {
        return Err(Reason::LongName);
    }
    let (mut ups, mut names) = (0, 0);
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => ups += 1,
            _ => names += 1,
        }
        // Behind a name, which may be another link, `..` leads nobody knows where.
        if ups >= depth.max(1) || (part == b".." && names > 0) {
            return Err(Reason::EscapingLink);
        }
    }
    Ok(())
}

/// What a node of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::files) enum Form {
    Directory,
    File,
    Symlink,
}

/// Device and inode number of what was made, so that it is known again.
pub(in crate::files) type Made = (u64, u64);

/// One thing that the archive makes.
#[derive(Debug, Clone)]
pub(in crate::files) struct Node {
    /// Of a directory: what its children are listed under.
    pub(in crate::files) id: u32,
    pub(in crate::files) form: Form,
    /// None: the directory is only implied by what is in it.
    explicit: Option<Attributes>,
    /// Set once it exists.
    pub(in crate::files) made: Option<Made>,
}

#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: u32,
    mtime: (i64, u32),
}

impl Node {
    /// Of a directory: its permission bits, and its time where the archive says one.
    pub(in crate::files) fn attributes(&self) -> (u32, Option<(i64, u32)>) {
        self.explicit.map_or((0o755, None), |own| (own.mode, Some(own.mtime)))
    }
}

/// All that the archive has made so far.
pub(in crate::files) struct Tree {
    bounds: Bounds,
    /// By the directory they are in, and name.
    nodes: BTreeMap<(u32, Box<[u8]>), Node>,
    pub(in crate::files) root: Node,
    next: u32,
    /// Entries of the archive.
    pub(in crate::files) entries: u64,
    /// Bytes of its files.
    pub(in crate::files) bytes: u64,
}

impl Tree {
    pub(in crate::files) fn new(bounds: Bounds) -> Self {
        let root = Node { id: 0, form: Form::Directory, explicit: None, made: None };
        Self { bounds, nodes: BTreeMap::new(), root, next: 1, entries: 0, bytes: 0 }
    }

    /// Takes in an entry, if it goes with those before it.
    pub(in crate::files) fn admit(&mut self, plan: &Plan) -> Result<(), Reason> {
        let form = match &plan.what {
            What::Directory => Form::Directory,
            What::File { size } => {
                self.bytes = self.bytes.saturating_add(*size);
                Form::File
            }
            What::Symlink { .. } => Form::Symlink,
            What::Hardlink { source } => {
                let earlier = self.find(source).is_some_and(|node| node.form == Form::File);
                earlier.then_some(Form::File).ok_or(Reason::UnknownLinkTarget)?
            }
        };
        if self.bytes > self.bounds.bytes {
            return Err(Reason::TooManyBytes);
        }
        self.entries += 1;
        let explicit = Some(Attributes { mode: plan.mode, mtime: plan.mtime });
        let Some((last, parents)) = plan.path.split_last() else {
            return match self.root.explicit.replace(Attributes { mode: plan.mode, mtime: plan.mtime }) {
                None => Ok(()),
                Some(_) => Err(Reason::Duplicate),
            };
        };
        let mut at = 0;
        for name in parents {
            at = match self.nodes.get(&(at, name.clone())) {
                None => self.insert(at, name, Form::Directory, None)?,
                Some(Node { form: Form::Directory, id, .. }) => *id,
                Some(Node { form: Form::File, .. }) => return Err(Reason::BeneathAFile),
                Some(Node { form: Form::Symlink, .. }) => return Err(Reason::BeneathALink),
            };
        }
        match self.nodes.get_mut(&(at, last.clone())) {
            None => self.insert(at, last, form, explicit).map(drop),
            Some(known) if known.explicit.is_none() && form == Form::Directory => {
                known.explicit = explicit;
                Ok(())
            }
            Some(_) => Err(Reason::Duplicate),
        }
    }

    fn insert(
        &mut self,
        at: u32,
        name: &[u8],
        form: Form,
        explicit: Option<Attributes>,
    ) -> Result<u32, Reason> {
        if self.nodes.len() >= self.bounds.entries {
            return Err(Reason::TooManyEntries);
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert((at, name.into()), Node { id, form, explicit, made: None });
        Ok(id)
    }

    /// What is at a path.
    pub(in crate::files) fn find(&self, path: &[Box<[u8]>]) -> Option<&Node> {
        path.iter().try_fold(&self.root, |at, name| self.nodes.get(&(at.id, name.clone())))
    }

    /// What is in a directory under a name.
    pub(in crate::files) fn child(&mut self, at: u32, name: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(&(at, name.into()))
    }

    /// What is in a directory.
    pub(in crate::files) fn children(&self, at: u32) -> impl Iterator<Item = (&[u8], &Node)> {
        let all = self.nodes.range((at, Box::default())..(at + 1, Box::default()));
        all.map(|((_, name), node)| (&**name, node))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
