//! Workspace paths as clients write them: one normaliser, used before rules see a call and again after.
//!
//! Pure text: whether a link leads out is Ship's to find, beneath the root.

/// Why a path was refused; the words are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// Nothing there.
    Empty,
    /// A NUL byte.
    NullByte,
    /// Starts at the root.
    Absolute,
    /// Climbs above the workspace.
    Traversal,
}

impl PathFault {
    /// The `reason` in an answer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "empty_path",
            Self::NullByte => "null_byte",
            Self::Absolute => "absolute_path",
            Self::Traversal => "path_traversal",
        }
    }
}

/// `./a/b/../c.txt` is `a/c.txt`, `a//b` is `a/b`, what comes to nothing is `.`.
pub fn normalise(path: &str) -> Result<String, PathFault> {
    if path.is_empty() {
        return Err(PathFault::Empty);
    }
    if path.contains('\0') {
        return Err(PathFault::NullByte);
    }
    if path.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(PathFault::Traversal)?;
            }
            name => parts.push(name),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_contracts_examples() {
        assert_eq!(normalise("./a/b/../c.txt").as_deref(), Ok("a/c.txt"));
        assert_eq!(normalise("a//b").as_deref(), Ok("a/b"));
        assert_eq!(normalise("a/..").as_deref(), Ok("."));
        assert_eq!(normalise(""), Err(PathFault::Empty));
        assert_eq!(normalise("a\0b"), Err(PathFault::NullByte));
        assert_eq!(normalise("/etc/passwd"), Err(PathFault::Absolute));
        assert_eq!(normalise("a/../../b"), Err(PathFault::Traversal));
    }

    proptest! {
        /// What comes out is relative, has no `..`, and is a fixed point.
        #[test]
        fn the_result_stays_inside(path in "[a./\\\\ \\PC]{0,40}") {
            if let Ok(clean) = normalise(&path) {
                prop_assert!(!clean.starts_with('/') && !clean.is_empty());
                prop_assert!(clean.split('/').all(|p| p != ".." && !p.is_empty()));
                prop_assert_eq!(normalise(&clean), Ok(clean.clone()));
            }
        }
    }
}
