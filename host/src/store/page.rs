//! Pages of lists: newest first, by `(created_at, id)`, stable while rows come and go.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::row::Millis;

/// Longest cursor that is decoded at all: a number, a point and an id, in base64.
const MAX_CURSOR: usize = 128;

/// Where the page before ended. A client sees it as opaque text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Creation time of the last row seen.
    pub created_at: Millis,
    /// Its id.
    pub id: String,
}

impl Cursor {
    /// As it goes to a client.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("1.{}.{}", self.created_at, self.id))
    }

    /// From a client; null when it is not one of ours.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > MAX_CURSOR {
            return None;
        }
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (created_at, id) = plain.strip_prefix("1.")?.split_once('.')?;
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if id.is_empty() || !id.bytes().all(known) {
            return None;
        }
        let cursor = Self { created_at: created_at.parse().ok()?, id: id.to_owned() };
        // One text for one place: `+5`, `05` and padding bits are not ours.
        (cursor.encode() == text).then_some(cursor)
    }
}

/// Which part of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Most items, 1 to 200; anything else is brought into that range.
    pub limit: u32,
    /// Where to go on; null: from the newest.
    pub cursor: Option<Cursor>,
}

impl Page {
    /// Largest page.
    pub const MAX: u32 = 200;

    /// The newest `limit` items.
    pub fn first(limit: u32) -> Self {
        Self { limit, cursor: None }
    }

    pub(super) fn size(&self) -> usize {
        self.limit.clamp(1, Self::MAX) as usize
    }

    /// What rows of this page are smaller than; `~` sorts after every id.
    pub(super) fn below(&self) -> (Millis, String) {
        match &self.cursor {
            Some(cursor) => (cursor.created_at, cursor.id.clone()),
            None => (Millis::MAX, "~".to_owned()),
        }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// Where the next page begins; null on the last.
    pub next_cursor: Option<Cursor>,
}

impl<T> Listing<T> {
    /// From one row more than the page holds, which shows that there is another page.
    pub(super) fn from_rows(mut rows: Vec<T>, page: &Page, key: impl Fn(&T) -> (Millis, &str)) -> Self {
        let more = rows.len() > page.size();
        rows.truncate(page.size());
        let next_cursor = rows.last().filter(|_| more).map(|last| {
            let (created_at, id) = key(last);
            Cursor { created_at, id: id.to_owned() }
        });
        Self { items: rows, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_way_to_the_client_and_back() {
        let cursor =
            Cursor { created_at: 1_764_000_000_123, id: "sbx_01arz3ndektsv4rrffq69g5fav".to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        let b64 = |s: &str| URL_SAFE_NO_PAD.encode(s);
        for bad in [
            String::new(),
            "!".to_owned(),
            "a".repeat(1 << 20),
            b64("1.5"),
            b64("1.x.sbx_1"),
            b64("2.5.sbx_1"),
            b64("1.+5.sbx_1"),
            b64("1.5."),
            b64("1.5.SBX' OR 1"),
            format!("{}=", b64("1.5.sbx_1")),
        ] {
            assert_eq!(Cursor::decode(&bad), None, "{bad:.40}");
        }
    }
}
