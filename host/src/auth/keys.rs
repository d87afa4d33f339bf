//! API keys: `bay_<key id>_<secret>`.
//!
//! The secret is 256 random bits, so a plain SHA-256 is enough to store: there is nothing to guess. The key id
//! finds the row; a key id that is unknown costs the same comparison as a wrong secret.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::id::Kind;

/// What every key begins with, so that people and scanners recognise a leaked one.
const PREFIX: &str = "bay_";
/// Characters of the ULID in a key id.
const ID_LEN: usize = 26;
/// Bytes of secret.
const SECRET_LEN: usize = 32;
/// Length of a whole key in characters.
pub const KEY_LEN: usize = PREFIX.len() + ID_LEN + 1 + 2 * SECRET_LEN;

/// An API key with its secret. Neither `Debug` nor `Display` shows the secret; only [`ApiKey::reveal`] does.
#[derive(Clone)]
pub struct ApiKey {
    ulid: String,
    secret: [u8; SECRET_LEN],
}

impl ApiKey {
    /// A fresh key. Fails only when the operating system gives no randomness.
    pub fn mint() -> std::io::Result<Self> {
        let mut secret = [0; SECRET_LEN];
        getrandom::fill(&mut secret).map_err(|e| std::io::Error::other(e.to_string()))?;
        let ulid = Kind::Key.mint().split_off(Kind::Key.prefix().len());
        Ok(Self { ulid, secret })
    }

    /// Reads a key that a client presented. Null when it does not have the form of one; what the form says is
    /// public, so this takes no care about time.
    pub fn parse(text: &str) -> Option<Self> {
        let (ulid, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let formed = ulid.len() == ID_LEN && secret.len() == 2 * SECRET_LEN;
        if !formed || !ulid.bytes().all(lower) || !secret.bytes().all(lower) {
            return None;
        }
        let mut bytes = [0; SECRET_LEN];
        hex::decode_to_slice(secret, &mut bytes).ok()?;
        Some(Self { ulid: ulid.to_owned(), secret: bytes })
    }

    /// The id of its row, `key_…`.
    pub fn id(&self) -> String {
        format!("{}{}", Kind::Key.prefix(), self.ulid)
    }

    /// What is stored of the secret.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// Whether this is the key whose hash is stored; `None` when its id is unknown. Takes the same time for an
    /// unknown id, a wrong secret and the right one.
    pub fn verify(&self, stored: Option<&[u8; 32]>) -> bool {
        // Compared, too, when there is nothing to compare with; the answer is then no whatever it says.
        let (expected, known) = match stored {
            Some(hash) => (*hash, Choice::from(1)),
            None => ([0; 32], Choice::from(0)),
        };
        (self.hash().ct_eq(&expected) & known).into()
    }

    /// The whole key, secret included: for its owner, once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.ulid, hex::encode(self.secret))
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({self})")
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_verifies() {
        let key = ApiKey::mint().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), KEY_LEN);
        let read = ApiKey::parse(&text).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(Kind::Key.is(&read.id()));
        assert!(read.verify(Some(&key.hash())));
    }

    #[test]
    fn a_wrong_secret_and_an_unknown_id_are_refused() {
        let (key, other) = (ApiKey::mint().unwrap(), ApiKey::mint().unwrap());
        assert!(!key.verify(Some(&other.hash())));
        assert!(!key.verify(None));
        assert_ne!(key.reveal(), other.reveal());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let good = ApiKey::mint().unwrap().reveal();
        for bad in [
            String::new(),
            "bay_".to_owned(),
            good[..KEY_LEN - 1].to_owned(),
            format!("{good}0"),
            good.to_uppercase(),
            good.replace("bay_", "bey_"),
            good.replacen('_', "-", 2),
            format!("{}z", &good[..KEY_LEN - 1]),
            format!("bay_{}_{}", "ä".repeat(13), "0".repeat(64)),
        ] {
            assert!(ApiKey::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn nothing_that_formats_a_key_shows_the_secret() {
        let key = ApiKey::mint().unwrap();
        let secret = hex::encode(key.secret);
        for text in [format!("{key}"), format!("{key:?}"), format!("{key:#?}")] {
            assert!(!text.contains(&secret[..8]), "{text}");
        }
    }
}
