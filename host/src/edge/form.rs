//! A multipart form (RFC 7578), read as it comes: a few small fields first, then one file that is passed on.
//!
//! Not a library's: what is kept of a form (a part's head, a field, a piece of a file) must have a bound each.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

use super::incoming::{Incoming, Pieces};
use crate::error::{ApiError, ApiResult, Code};

/// Largest head of a part.
const MAX_HEAD: usize = 8 << 10;
/// Largest field that is not the file.
const MAX_FIELD: usize = 8 << 10;
/// Most parts: each costs a little, and no form of ours has more than a handful.
const MAX_PARTS: usize = 32;
/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// The name of the part that holds the bytes.
const FILE: &str = "file";

/// A form on its way.
pub struct Form {
    body: Incoming,
    /// Come, and not yet taken; kept below a head and a piece.
    buffer: BytesMut,
    /// `\r\n--boundary`: what ends a part.
    delimiter: Vec<u8>,
    parts: usize,
}

/// The file of a form, as it comes. Its end is the form's: what follows a file must be nothing that changes its meaning.
pub struct FileOfForm {
    form: Form,
    /// Fields that may not come any more.
    late: &'static [&'static str],
}

impl Form {
    /// From a request's head and body; 415 where it is no form.
    pub fn new(headers: &HeaderMap, body: Incoming) -> ApiResult<Self> {
        let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
        if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(ApiError::new(
                Code::UnsupportedMediaType,
                "send a form (multipart/form-data) with `path` and `file`",
            ));
        }
        let boundary = parameter(parameters, "boundary")
            .filter(|b| (1..=MAX_BOUNDARY).contains(&b.len()))
            .ok_or_else(|| malformed("its Content-Type has no boundary"))?;
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first delimiter stands at the beginning of a line, too.
        Ok(Self { body, buffer: BytesMut::from(&b"\r\n"[..]), delimiter, parts: 0 })
    }

    /// Reads up to the file. Returns the fields before it, by name, of those that are `wanted`.
    pub async fn fields(
        mut self,
        wanted: &'static [&'static str],
    ) -> ApiResult<(Vec<(&'static str, String)>, FileOfForm)> {
        // What stands before the first delimiter is nothing.
        while self.piece().await?.is_some() {}
        let mut fields = Vec::new();
        while let Some(name) = self.next_part().await? {
            if name == FILE {
                return Ok((fields, FileOfForm { form: self, late: wanted }));
            }
            let value = self.field(&name).await?;
            if let Some(name) = wanted.iter().find(|w| **w == name) {
                let value = String::from_utf8(value).map_err(|_| ApiError::field(name, "is not UTF-8"))?;
                fields.push((*name, value));
            }
        }
        Err(ApiError::field(FILE, "is required: the form has no such part"))
    }

    async fn field(&mut self, name: &str) -> ApiResult<Vec<u8>> {
        let mut value = Vec::new();
        while let Some(piece) = self.piece().await? {
            if value.len() + piece.len() > MAX_FIELD {
                let name: String = name.chars().take(100).collect();
                return Err(ApiError::field(&name, format!("is over {MAX_FIELD} bytes")));
            }
            value.extend_from_slice(&piece);
        }
        Ok(value)
    }

    /// The next piece of the part; none at its end, which has been taken then.
    async fn piece(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            match memchr::memmem::find(&self.buffer, &self.delimiter) {
                Some(0) => {
                    let _delimiter = self.buffer.split_to(self.delimiter.len());
                    return Ok(None);
                }
                Some(at) => return Ok(Some(self.buffer.split_to(at).freeze())),
                None => {}
            }
            // The end of what is there may be a delimiter's beginning.
            let sure = (self.buffer.len() + 1).saturating_sub(self.delimiter.len());
            if sure > 0 {
                return Ok(Some(self.buffer.split_to(sure).freeze()));
            }
            self.fill().await?;
        }
    }

    /// The name of the part that begins behind a delimiter; none where the form ends there.
    async fn next_part(&mut self) -> ApiResult<Option<String>> {
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        if self.buffer.starts_with(b"--") {
            // What stands behind the end is nothing; it is taken, so that the connection can be used again.
            self.buffer.clear();
            while self.body.next_piece().await?.is_some() {}
            return Ok(None);
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(malformed("it has too many parts"));
        }
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed("the head of a part is too large"));
            }
            self.fill().await?;
        };
        let head = self.buffer.split_to(end + 4);
        let head = std::str::from_utf8(&head).map_err(|_| malformed("the head of a part is not UTF-8"))?;
        let (padding, lines) = head.split_once("\r\n").unwrap_or((head, ""));
        if !padding.trim_matches([' ', '\t']).is_empty() {
            return Err(malformed("something follows a boundary on its line"));
        }
        name_of(lines).map(Some)
    }

    async fn fill(&mut self) -> ApiResult<()> {
        match self.body.next_piece().await? {
            Some(piece) => {
                self.buffer.extend_from_slice(&piece);
                Ok(())
            }
            None => Err(malformed("it ends before its last boundary")),
        }
    }
}

impl Pieces for FileOfForm {
    async fn next_piece(&mut self) -> ApiResult<Option<Bytes>> {
        if let Some(piece) = self.form.piece().await? {
            return Ok(Some(piece));
        }
        while let Some(name) = self.form.next_part().await? {
            if name == FILE {
                return Err(ApiError::field(FILE, "stands there twice; one upload is one file"));
            }
            if let Some(late) = self.late.iter().find(|l| **l == name) {
                return Err(ApiError::field(
                    late,
                    "must come before `file` in the form: the file is not kept back for it",
                ));
            }
            self.form.field(&name).await?;
        }
        Ok(None)
    }
}

/// `name` of a part's `Content-Disposition: form-data`.
fn name_of(head: &str) -> ApiResult<String> {
    let line = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut dispositions = line.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
    let value = dispositions.next().map(|(_, value)| value).unwrap_or_default();
    let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
    parameter(parameters, "name")
        .filter(|_| kind.trim().eq_ignore_ascii_case("form-data"))
        .ok_or_else(|| malformed("a part has no name"))
}

/// A parameter of a header: `a=b; c="d;\"e"`.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = text.split_once('=')?;
        let name = name.trim_matches([';', ' ', '\t']);
        let (value, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, rest) = rest.split_once(';').unwrap_or((rest, ""));
                (value.trim().to_owned(), rest)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

/// A quoted string, from behind its first quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn malformed(what: &str) -> ApiError {
    ApiError::new(Code::ValidationError, format!("the form cannot be read: {what}"))
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
