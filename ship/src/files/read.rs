//! Reading files, whole, by lines, or in pieces for a download.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bay_ship_api::http::{MAX_FILE, ReadFileRequest, ReadFileResponse};
use rustix::fs::{FileType, OFlags, Stat, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::resolve::{self, Parents, Place};
use super::{Files, RelPath, etag, kind, not_regular, size};
use crate::agent::error::{Code, Failure};

/// How text goes into JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Base64,
}

impl Encoding {
    pub(super) fn parse(name: Option<&str>) -> Result<Self, Failure> {
        match name {
            None | Some("utf-8") => Ok(Self::Utf8),
            Some("base64") => Ok(Self::Base64),
            Some(_) => Err(Failure::field("encoding", "must be utf-8 or base64")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Base64 => "base64",
        }
    }
}

/// A regular file, open, for a download.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) name: String,
}

impl Opened {
    /// Fills `buffer` from `offset`, less at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut have = 0;
        while have < buffer.len() {
            match self.file.read_at(&mut buffer[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    /// What of it is in memory already, without waiting for a disk: none where that cannot be told.
    pub(crate) fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut parts = [IoSliceMut::new(buffer)];
        preadv2(&self.file, &mut parts, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }
}

/// Opens a regular file and nothing else. Looked at before (opening can have effects) and after (it may have been
/// exchanged); `O_NONBLOCK` keeps a FIFO that slipped in between from hanging the call.
pub(super) fn open_regular(place: &Place, flags: OFlags) -> Result<(OwnedFd, Stat), Failure> {
    let before = place.stat()?.ok_or(Errno::NOENT)?;
    if kind(&before) != FileType::RegularFile {
        return Err(not_regular(&before));
    }
    let fd = match place.open(flags | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(Errno::LOOP) => return Err(Failure::new(Code::Conflict, "the file was exchanged meanwhile")),
        other => other?,
    };
    let stat = fstat(&fd)?;
    if kind(&stat) != FileType::RegularFile {
        return Err(not_regular(&stat));
    }
    Ok((fd, stat))
}

impl Files {
    /// `POST /fs/read_file`.
    pub(crate) fn read_file(&self, request: &ReadFileRequest) -> Result<ReadFileResponse, Failure> {
        let encoding = Encoding::parse(request.encoding.as_deref())?;
        if request.offset == Some(0) {
            return Err(Failure::field("offset", "lines are counted from 1"));
        }
        let path = RelPath::parse("path", &request.path)?;
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let (fd, stat) = open_regular(&place, OFlags::RDONLY)?;
        let bytes = read_whole(fd, &stat)?;
        let size = bytes.len() as u64;
        let chosen = lines(&bytes, request.offset, request.limit);
        let content = match encoding {
            Encoding::Base64 => STANDARD.encode(chosen),
            Encoding::Utf8 => match std::str::from_utf8(chosen) {
                Ok(text) => text.to_owned(),
                Err(_) => {
                    return Err(Failure::field(
                        "encoding",
                        "the file is not UTF-8: ask for base64, or download it",
                    ));
                }
            },
        };
        Ok(ReadFileResponse {
            content,
            path: request.path.clone(),
            size,
            encoding: encoding.name().to_owned(),
            etag: etag(&stat),
        })
    }

    /// Opens a file for `GET /fs/download`.
    pub(crate) fn open_download(&self, path: &str) -> Result<Opened, Failure> {
        let path = RelPath::parse("path", path)?;
        let place = resolve::resolve(&self.root, &path, Parents::MustExist)?;
        let (fd, stat) = open_regular(&place, OFlags::RDONLY)?;
        let text = path.text();
        let name = text.rsplit('/').next().unwrap_or("file").to_owned();
        Ok(Opened { file: File::from(fd), size: size(&stat), etag: etag(&stat), name })
    }
}

/// All of a file within the bound, which it may pass while it is read. Its state was taken before: a change
/// meanwhile makes the etag one that no longer matches, never one that matches what was not read.
pub(super) fn read_whole(fd: OwnedFd, stat: &Stat) -> Result<Vec<u8>, Failure> {
    let size = size(stat);
    if size > MAX_FILE {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    File::from(fd).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

fn too_large(size: u64) -> Failure {
    let message = format!("the file has {size} bytes, and this call carries at most {MAX_FILE}: download it");
    let mut failure = Failure::new(Code::PayloadTooLarge, message);
    failure.details = serde_json::json!({"size": size, "limit": MAX_FILE});
    failure
}

/// `limit` lines from line `offset` on, with their line ends.
fn lines(bytes: &[u8], offset: Option<u64>, limit: Option<u64>) -> &[u8] {
    let skip = usize::try_from(offset.unwrap_or(1) - 1).unwrap_or(usize::MAX);
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let start = after_lines(bytes, skip);
    let rest = &bytes[start..];
    &rest[..after_lines(rest, limit)]
}

/// Where the text goes on after this many lines.
fn after_lines(bytes: &[u8], count: usize) -> usize {
    match count {
        0 => 0,
        usize::MAX => bytes.len(),
        _ => bytes
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'\n')
            .nth(count - 1)
            .map_or(bytes.len(), |(at, _)| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_counted_from_one_and_keep_their_ends() {
        let text = b"one\ntwo\nthree";
        assert_eq!(lines(text, None, None), text);
        assert_eq!(lines(text, Some(2), None), b"two\nthree");
        assert_eq!(lines(text, Some(2), Some(1)), b"two\n");
        assert_eq!(lines(text, None, Some(2)), b"one\ntwo\n");
        assert_eq!(lines(text, Some(9), Some(9)), b"");
        assert_eq!(lines(text, Some(3), Some(u64::MAX)), b"three");
        assert_eq!(lines(text, None, Some(0)), b"");
        assert_eq!(lines(b"", Some(1), Some(1)), b"");
    }

    proptest! {
        #[test]
        fn pages_of_lines_make_up_the_whole(text in "[a\n]{0,40}", page in 1u64..5) {
            let mut joined = Vec::new();
            let mut offset = 1;
            loop {
                let got = lines(text.as_bytes(), Some(offset), Some(page));
                if got.is_empty() {
                    break;
                }
                joined.extend_from_slice(got);
                offset += page;
            }
            prop_assert_eq!(joined, text.as_bytes());
        }
    }
}
