//! The names of what Ship itself puts into the workspace for a while.
//!
//! No listing, watch or archive shows them. User code may use such a name; then its file is not shown there.

use crate::agent::error::{Code, Failure};
use crate::python::hex;

/// Passing names are this, 16 hexadecimal digits, and [`SUFFIX`].
const PREFIX: &str = ".bay-";
const SUFFIX: &str = ".tmp";
const DIGITS: usize = 16;

/// What a deletion under way moves up is called this and 16 hexadecimal digits. Listings show it: if the deletion
/// is cut off, it is what is left to be deleted.
const DELETING: &str = "bay-deleting-";

/// A new passing name, which nobody can guess.
pub(super) fn passing_name() -> Result<String, Failure> {
    Ok(format!("{PREFIX}{}{SUFFIX}", digits()?))
}

/// A new name for a directory that is being deleted.
pub(super) fn deleting_name() -> Result<String, Failure> {
    Ok(format!("{DELETING}{}", digits()?))
}

fn digits() -> Result<String, Failure> {
    let mut random = [0; DIGITS / 2];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Code::RuntimeError, error.to_string()))?;
    Ok(hex(&random))
}

/// Whether a name is a passing one.
pub(super) fn is_passing_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes())
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()))
        .is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether a name is what inotify calls a file that has none yet (`O_TMPFILE`): `#` and its inode's number.
pub(super) fn is_nameless(name: &[u8]) -> bool {
    name.strip_prefix(b"#").is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ships_own_names_are_passing_ones() {
        assert!(is_passing_name(passing_name().unwrap().as_bytes()));
        assert!(!is_passing_name(deleting_name().unwrap().as_bytes()));
        for other in [
            "",
            ".bay-.tmp",
            ".bay-0123456789abcde.tmp",
            ".bay-0123456789abcdeg.tmp",
            "bay",
            ".bay-x",
            "a.tmp",
        ] {
            assert!(!is_passing_name(other.as_bytes()), "{other}");
        }
        assert!(is_nameless(b"#12") && !is_nameless(b"#") && !is_nameless(b"#1a") && !is_nameless(b"12"));
    }
}
