//! Why an archive is refused, and how that is answered.

use std::io;

use serde_json::json;

use crate::agent::error::{Code, Failure};

/// Longest name of an entry that an answer repeats, in characters.
const SHOWN_NAME: usize = 200;

/// What is wrong with an archive or with one of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::files) enum Reason {
    NotAnArchive,
    Corrupt,
    Truncated,
    AfterTheEnd,
    EmptyName,
    NullByte,
    AbsoluteName,
    ClimbingName,
    AbsoluteLink,
    EscapingLink,
    EmptyLink,
    UnknownLinkTarget,
    Special,
    Sparse,
    Unsupported,
    UnexpectedData,
    Duplicate,
    BeneathAFile,
    BeneathALink,
    LongName,
    TooDeep,
    TooManyEntries,
    TooManyBytes,
    Ratio,
}

impl Reason {
    /// The word for programs, the words for people.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotAnArchive => {
                ("not_an_archive", "this is neither a tar archive nor a gzip-compressed one")
            }
            Self::Corrupt => ("corrupt", "the archive is damaged"),
            Self::Truncated => ("truncated", "the archive ends too early"),
            Self::AfterTheEnd => ("after_the_end", "there is something behind the end of the archive"),
            Self::EmptyName => ("empty_path", "an entry has no name"),
            Self::NullByte => ("null_byte", "a name contains a NUL"),
            Self::AbsoluteName => ("absolute_path", "a name is absolute"),
            Self::ClimbingName => ("path_traversal", "a name contains `..`"),
            Self::AbsoluteLink => ("absolute_link", "a symbolic link has an absolute target"),
            Self::EscapingLink => {
                ("escaping_link", "a link's target leaves the archive, or has `..` behind a name")
            }
            Self::EmptyLink => ("empty_link", "a link has no target"),
            Self::UnknownLinkTarget => {
                ("unknown_link_target", "a hard link's target is no earlier file of the archive")
            }
            Self::Special => ("special_file", "the entry is a device, a FIFO or a socket"),
            Self::Sparse => ("sparse", "sparse entries are not supported"),
            Self::Unsupported => ("unsupported", "the entry is of a kind that is not supported"),
            Self::UnexpectedData => ("unexpected_data", "the entry has data where its kind has none"),
            Self::Duplicate => ("duplicate", "there are two entries of this name"),
            Self::BeneathAFile => ("beneath_a_file", "the entry lies beneath one that is no directory"),
            Self::BeneathALink => ("beneath_a_link", "the entry lies beneath a symbolic link"),
            Self::LongName => ("long_name", "a name is too long"),
            Self::TooDeep => ("too_deep", "the entry is nested too deep"),
            Self::TooManyEntries => ("too_many_entries", "the archive has too many entries"),
            Self::TooManyBytes => ("too_many_bytes", "the archive unpacks to too many bytes"),
            Self::Ratio => ("compression_ratio", "the archive is compressed implausibly well"),
        }
    }

    fn code(self) -> Code {
        match self {
            Self::EmptyName | Self::NullByte | Self::AbsoluteName | Self::ClimbingName => Code::InvalidPath,
            Self::TooDeep | Self::TooManyEntries | Self::TooManyBytes | Self::Ratio => Code::PayloadTooLarge,
            Self::NotAnArchive
            | Self::Corrupt
            | Self::Truncated
            | Self::AfterTheEnd
            | Self::AbsoluteLink
            | Self::EscapingLink
            | Self::EmptyLink
            | Self::UnknownLinkTarget
            | Self::Special
            | Self::Sparse
            | Self::Unsupported
            | Self::UnexpectedData
            | Self::Duplicate
            | Self::BeneathAFile
            | Self::BeneathALink
            | Self::LongName => Code::ValidationError,
        }
    }

    /// The answer; `entry` is the name of the entry concerned, where there is one.
    pub(super) fn failure(self, entry: Option<&[u8]>) -> Failure {
        let (reason, words) = self.words();
        let entry = entry.map(shown);
        let message = match &entry {
            Some(name) => format!("{words} (entry {name})"),
            None => words.to_owned(),
        };
        let mut failure = Failure::new(self.code(), message);
        failure.details = json!({"field": "body", "reason": reason, "entry": entry});
        failure
    }
}

/// A name for people: no raw control characters, of bounded length.
pub(super) fn shown(name: &[u8]) -> String {
    let end = name.len().min(SHOWN_NAME * 4);
    String::from_utf8_lossy(&name[..end]).chars().take(SHOWN_NAME).flat_map(char::escape_debug).collect()
}

/// Why reading an archive stopped.
#[derive(Debug)]
pub(in crate::files) enum Stop {
    Refused(Reason),
    /// The file system's own trouble.
    Io(io::Error),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        // Bounds and damage come through `io::Read` as errors of these kinds.
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Refused(Reason::Truncated),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Refused(Reason::Corrupt),
            io::ErrorKind::FileTooLarge => Self::Refused(Reason::TooManyBytes),
            io::ErrorKind::QuotaExceeded => Self::Refused(Reason::Ratio),
            _ => Self::Io(error),
        }
    }
}
