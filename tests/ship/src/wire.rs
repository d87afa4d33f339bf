//! Where an HTTP/1.1 body ends.

use std::io::{self, BufRead, Read};

/// Longest line of a head or of a chunk's size: Ship's are short, and a stream that is out of step must not be
/// read to its end as one line.
const MAX_LINE: u64 = 64 << 10;

/// How the rest of a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks; inside one of them this many bytes are left, and before the first none are.
    Chunks { left: u64, first: bool },
    /// Everything has been read.
    Over,
}

impl Framing {
    /// Reads it off a head.
    pub(crate) fn of(head: &str) -> io::Result<Self> {
        if field(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Self::Chunks { left: 0, first: true });
        }
        let length = field(head, "content-length").unwrap_or_else(|| "0".to_owned());
        length.parse().map(Self::Length).map_err(|_| broken("a content-length that is no number"))
    }

    /// Some bytes of the body; none at its end.
    pub(crate) fn read(&mut self, from: &mut impl BufRead, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if let Self::Chunks { left: 0, first } = *self {
            self.next_chunk(from, first)?;
        }
        let left = match self {
            Self::Over | Self::Length(0) => return Ok(0),
            Self::Length(left) | Self::Chunks { left, .. } => left,
        };
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(into.len());
        match from.read(&mut into[..most])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body broke off")),
            count => {
                *left -= count as u64;
                Ok(count)
            }
        }
    }

    fn next_chunk(&mut self, from: &mut impl BufRead, first: bool) -> io::Result<()> {
        if !first && !line(from)?.is_empty() {
            return Err(broken("a chunk longer than it said"));
        }
        let size = line(from)?;
        let left = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| broken("a chunk's size that is no number"))?;
        *self = Self::Chunks { left, first: false };
        if left == 0 {
            // Trailers, of which Ship sends none, then an empty line.
            while !line(from)?.is_empty() {}
            *self = Self::Over;
        }
        Ok(())
    }
}

/// A head up to and including its empty line.
pub(crate) fn head(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let next = line(from)?;
        head.push_str(&next);
        head.push_str("\r\n");
        if head == "\r\n" {
            return Err(broken("an empty line where a head was expected"));
        }
    }
    Ok(head)
}

/// The value of a header, whatever the case of its name.
pub fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

/// A line without its end.
pub(crate) fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| broken("a line that is not UTF-8"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(head: &str, mut rest: &[u8]) -> io::Result<Vec<u8>> {
        let mut framing = Framing::of(head)?;
        let mut out = Vec::new();
        let mut some = [0; 3];
        loop {
            match framing.read(&mut rest, &mut some)? {
                0 => return Ok(out),
                count => out.extend_from_slice(&some[..count]),
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        assert_eq!(body("Content-Length: 4\r\n\r\n", b"12345").unwrap(), b"1234");
        let chunks = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nnext";
        assert_eq!(body("Transfer-Encoding: chunked\r\n\r\n", chunks).unwrap(), b"hello!");
        assert_eq!(body("\r\n", b"next").unwrap(), b"");
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        assert!(body("content-length: 9\r\n\r\n", b"1234").is_err());
        for rest in [&b"5\r\nhel"[..], b"5\r\nhello\r\n", b"2\r\nhello\r\n0\r\n\r\n", b"x\r\n"] {
            assert!(body("transfer-encoding: chunked\r\n\r\n", rest).is_err(), "{rest:?}");
        }
    }
}
