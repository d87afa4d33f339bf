//! The tar format, without any file system: headers in (ustar, GNU and pax) and out (GNU).

use std::io::Read;

use super::archive::reason::{Reason, Stop};

/// Everything in a tar file comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;
/// A name or a link target with all its directories, as the kernel's bound on a path.
const MAX_NAME: usize = 4096;
/// One pax header. Ours and everybody's are a few hundred bytes; without a bound it would be memory for the taking.
const MAX_PAX: u64 = 64 << 10;
/// Global headers before one entry, so that a stream of nothing else ends.
const MAX_GLOBALS: u32 = 16;
/// Zeros after the end. Tapes are padded to 10 KiB; gigabytes of zeros are somebody's bomb.
const MAX_PADDING: usize = 1 << 20;
/// The last second that four-digit years can say. Times are brought between this and 1970.
const MAX_TIME: i64 = 253_402_300_799;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    /// A device or a FIFO.
    Special,
    Sparse,
    Other,
}

/// One entry as the archive describes it, with nothing judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Of a link.
    pub(super) target: Vec<u8>,
    /// All the bits that were given.
    pub(super) mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    /// Bytes of data that follow.
    pub(super) size: u64,
}

/// What extension headers say of the entry after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    pax: bool,
    sparse: bool,
}

/// Reads an archive entry by entry.
pub(super) struct Reader<R> {
    input: R,
    /// Bytes of the present entry's data not yet read.
    left: u64,
    /// Bytes between the end of its data and the next header.
    padding: usize,
    globals: u32,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, globals: 0 }
    }

    /// The next entry, after the data of the one before has been read; none at a proper end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Stop> {
        let mut extension = Extension::default();
        self.globals = 0;
        loop {
            let Some(header) = self.header()? else {
                return if extension.any() { Err(Reason::Truncated.into()) } else { Ok(None) };
            };
            match header[156] {
                b'x' => {
                    if std::mem::replace(&mut extension.pax, true) {
                        return Err(Reason::Corrupt.into());
                    }
                    let records = self.text(&header, MAX_PAX)?;
                    extension.read_pax(&records)?;
                }
                b'g' => {
                    self.globals += 1;
                    let records = self.text(&header, MAX_PAX)?;
                    let mut global = Extension::default();
                    global.read_pax(&records)?;
                    // One name for every entry makes no sense, and readers would not agree on it.
                    if self.globals > MAX_GLOBALS || global.any() {
                        return Err(Reason::Unsupported.into());
                    }
                }
                b'L' => extension.long(&self.text(&header, MAX_NAME as u64 + 1)?, |e| &mut e.name)?,
                b'K' => extension.long(&self.text(&header, MAX_NAME as u64 + 1)?, |e| &mut e.target)?,
                _ => {
                    let member = extension.member(&header)?;
                    self.expect(member.size);
                    return Ok(Some(member));
                }
            }
        }
    }

    /// Reads data of the present entry; 0 at its end.
    pub(super) fn data(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(Reason::Truncated.into());
        }
        self.left -= count as u64;
        Ok(count)
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    /// The next header with a right checksum; none at the end, which has been checked.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Stop> {
        if self.left > 0 {
            return Err(Reason::UnexpectedData.into());
        }
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block[..std::mem::take(&mut self.padding)])?;
        self.input.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            self.rest()?;
            return Ok(None);
        }
        if number(&block[148..156]) != Some(checksum(&block)) {
            return Err(Reason::Corrupt.into());
        }
        Ok(Some(block))
    }

    /// Reads to the end of the input, so that a checksum there is checked, too. Only zeros may come.
    fn rest(&mut self) -> Result<(), Stop> {
        let mut buffer = [0; 4096];
        let mut seen = 0;
        loop {
            let count = match self.input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            seen += count;
            if seen > MAX_PADDING || buffer[..count].iter().any(|byte| *byte != 0) {
                return Err(Reason::AfterTheEnd.into());
            }
        }
    }

    /// The data of an extension header.
    fn text(&mut self, header: &[u8; BLOCK], most: u64) -> Result<Vec<u8>, Stop> {
        let size = number(&header[124..136]).ok_or(Reason::Corrupt)?;
        if size > most {
            return Err(Reason::LongName.into());
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.input.read_exact(&mut text)?;
        self.expect(size);
        self.left = 0;
        Ok(text)
    }
}

impl Extension {
    fn any(&self) -> bool {
        self.pax || self.sparse || self.name.is_some() || self.target.is_some() || self.size.is_some()
    }

    /// A GNU long name, which ends at its NUL.
    fn long(&mut self, text: &[u8], field: impl Fn(&mut Self) -> &mut Option<Vec<u8>>) -> Result<(), Reason> {
        let text = until_nul(text).to_vec();
        match field(self).replace(text) {
            None => Ok(()),
            Some(_) => Err(Reason::Corrupt),
        }
    }

    /// Records `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn read_pax(&mut self, mut text: &[u8]) -> Result<(), Reason> {
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ').ok_or(Reason::Corrupt)?;
            let length =
                decimal(&text[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(Reason::Corrupt)?;
            if length > text.len() || length < space + 2 || text[length - 1] != b'\n' {
                return Err(Reason::Corrupt);
            }
            let record = &text[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(Reason::Corrupt)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or(Reason::Corrupt)?),
                b"mtime" => self.mtime = Some(time(value).ok_or(Reason::Corrupt)?),
                other if other.starts_with(b"GNU.sparse.") => self.sparse = true,
                // Owners, attributes, comments: not kept.
                _ => {}
            }
            text = &text[length..];
        }
        Ok(())
    }

    /// The entry of a plain header with all that was said before it.
    fn member(self, header: &[u8; BLOCK]) -> Result<Member, Reason> {
        let name = self.name.unwrap_or_else(|| {
            let (prefix, name) = (until_nul(&header[345..500]), until_nul(&header[..100]));
            // GNU keeps times where POSIX has the prefix.
            match &header[257..263] == b"ustar\0" && !prefix.is_empty() {
                true => [prefix, b"/", name].concat(),
                false => name.to_vec(),
            }
        });
        let kind = match header[156] {
            _ if self.sparse => Kind::Sparse,
            // Before POSIX a directory was a file whose name ends so.
            b'0' | 0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | 0 => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' | b'6' => Kind::Special,
            b'5' => Kind::Directory,
            b'S' => Kind::Sparse,
            _ => Kind::Other,
        };
        let size = self.size.or_else(|| number(&header[124..136])).ok_or(Reason::Corrupt)?;
        let mtime = self.mtime.unwrap_or_else(|| {
            let seconds = number(&header[136..148]).and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
            (seconds.min(MAX_TIME), 0)
        });
        Ok(Member {
            target: self.target.unwrap_or_else(|| until_nul(&header[157..257]).to_vec()),
            mode: u32::try_from(number(&header[100..108]).unwrap_or(0o644)).unwrap_or(0o644),
            name,
            kind,
            mtime,
            size,
        })
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Zeros that fill the last block.
pub(super) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// A number in a header: octal digits between spaces and NULs, or, with the top bit set, big-endian binary. Nothing
/// at all is 0. A negative one is refused.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        if *first != 0x80 {
            return None;
        }
        return rest.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0_u64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// `1700000000.25`, brought into range.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (whole, part) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if let Some(before_1970) = whole.strip_prefix(b"-") {
        return decimal(before_1970).map(|_| (0, 0));
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanos = 0;
    for place in 0..9 {
        let digit = part.get(place).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some((seconds.min(MAX_TIME), nanos))
}

/// The sum of all bytes, those of the sum itself counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// Appends the header of an entry, with GNU long names before it where a name does not fit. Bytes of names go out as
/// they are: unlike pax, GNU asks for no encoding.
pub(super) fn write_header(out: &mut Vec<u8>, member: &Member) {
    for (flag, text) in [(b'K', &member.target), (b'L', &member.name)] {
        if text.len() > 100 {
            let size = text.len() as u64 + 1;
            block(out, b"././@LongLink", flag, b"", (0o644, 0, size));
            out.extend_from_slice(text);
            out.resize(out.len() + 1 + padding(size), 0);
        }
    }
    let flag = match member.kind {
        Kind::Directory => b'5',
        Kind::Symlink => b'2',
        Kind::Hardlink => b'1',
        Kind::File | Kind::Special | Kind::Sparse | Kind::Other => b'0',
    };
    let seconds = u64::try_from(member.mtime.0).unwrap_or(0);
    block(out, &member.name, flag, &member.target, (member.mode, seconds, member.size));
}

/// One header block; of a name only what fits.
fn block(out: &mut Vec<u8>, name: &[u8], flag: u8, target: &[u8], (mode, mtime, size): (u32, u64, u64)) {
    let mut block = [0; BLOCK];
    let cut = |text: &'_ [u8]| text.len().min(100);
    block[..cut(name)].copy_from_slice(&name[..cut(name)]);
    put_number(&mut block[100..108], mode.into());
    put_number(&mut block[108..116], bay_ship_api::USER_ID.into());
    put_number(&mut block[116..124], bay_ship_api::USER_ID.into());
    put_number(&mut block[124..136], size);
    put_number(&mut block[136..148], mtime);
    block[156] = flag;
    block[157..157 + cut(target)].copy_from_slice(&target[..cut(target)]);
    block[257..265].copy_from_slice(b"ustar  \0");
    let sum = checksum(&block);
    put_number(&mut block[148..155], sum);
    block[155] = b' ';
    out.extend_from_slice(&block);
}

/// Octal digits and a NUL where they fit, else binary.
fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits).min(63) == 0 {
        field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    } else {
        let bytes = value.to_be_bytes();
        field[0] = 0x80;
        let start = field.len() - bytes.len();
        field[start..].copy_from_slice(&bytes);
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
