//! The names of what Ship itself puts into the workspace for a while.
//!
//! Neither a watch nor an archive shows them. User code may use such a name; then its file is not shown there.

use crate::files::delete::MOVED_PREFIX;

/// A file that will take another name when it is complete.
pub(super) const TEMPORARY_PREFIX: &str = ".bay-";
/// See [`TEMPORARY_PREFIX`].
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";
/// An archive being unpacked.
pub(super) const STAGING_PREFIX: &str = ".bay-archive-";

/// Whether a name is one of Ship's own.
pub(super) fn is_own(name: &[u8]) -> bool {
    let after = |prefix: &str| name.strip_prefix(prefix.as_bytes());
    let temporary = after(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()));
    let number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let random = |digits: &[u8]| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
    temporary.is_some_and(random)
        || after(STAGING_PREFIX).is_some_and(random)
        || after(MOVED_PREFIX).is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ships_own_names_are_its_own() {
        for own in [".bay-0123456789abcdef.tmp", ".bay-archive-0123456789abcdef", ".bay-delete-7"] {
            assert!(is_own(own.as_bytes()), "{own}");
        }
        for other in
            ["", ".bay-.tmp", ".bay-x.tmp", ".bay-archive-", ".bay-delete-", ".bay-delete-x", "a.tmp"]
        {
            assert!(!is_own(other.as_bytes()), "{other}");
        }
    }
}
