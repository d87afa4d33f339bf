//! Sandbox tokens: `bst_<claims>.<mac>`, the only credential a browser ever gets.
//!
//! A token is not stored: it says what it is for, and an HMAC over that, with a key derived from the instance's
//! secret, says that this Bay made it. What ends it early is looked up at every use: its sandbox is deleted, or the
//! key that made it is revoked or expires. Its owner is not in it; that is the sandbox's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Grant;

/// What every token begins with, so that people and scanners recognise a leaked one.
const PREFIX: &str = "bst_";
/// Keeps these tokens apart from everything else that derives from the instance's secret.
const PURPOSE: &[u8] = b"bay sandbox token v1";
/// Longest text that is looked at: 32 capabilities with names of 40 characters, ids and a time, in base64.
const MAX_LEN: usize = 4096;
/// Most capabilities of a token.
pub const MAX_CAPABILITIES: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The one sandbox.
    #[serde(rename = "s")]
    pub sandbox_id: String,
    /// The key that made it; null: an anonymous caller.
    #[serde(rename = "k")]
    pub key_id: Option<String>,
    /// Capabilities of that sandbox.
    #[serde(rename = "c")]
    pub capabilities: Vec<String>,
    /// Unix milliseconds.
    #[serde(rename = "e")]
    pub expires_at: i64,
}

impl Claims {
    /// What it lets its holder do.
    pub fn grant(self) -> Grant {
        let mut capabilities = self.capabilities;
        capabilities.sort_unstable();
        Grant { sandbox_id: self.sandbox_id, capabilities }
    }
}

/// Signs and checks tokens.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// From the instance's secret.
    pub fn derive(secret: &[u8]) -> Self {
        let mut purpose = mac(secret);
        purpose.update(PURPOSE);
        Self(mac(&purpose.finalize().into_bytes()))
    }

    /// The token of these claims.
    pub fn sign(&self, claims: &Claims) -> serde_json::Result<String> {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?);
        let mac = URL_SAFE_NO_PAD.encode(self.over(&body).finalize().into_bytes());
        Ok(format!("{PREFIX}{body}.{mac}"))
    }

    /// What a token says; null unless this Bay made it and it is still good at `now`. Nothing of it is read before
    /// its MAC is right.
    pub fn open(&self, text: &str, now: i64) -> Option<Claims> {
        let (body, mac) = text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_LEN)?.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        // In constant time.
        self.over(body).verify_slice(&mac).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        (now < claims.expires_at).then_some(claims)
    }

    fn over(&self, body: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(body.as_bytes());
        mac
    }
}

/// Whether a credential is to be taken for a token.
pub fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            sandbox_id: "sbx_01arz3ndektsv4rrffq69g5fav".into(),
            key_id: Some("key_01arz3ndektsv4rrffq69g5fav".into()),
            capabilities: vec!["terminal".into(), "shell".into()],
            expires_at: 1000,
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_for_until_its_time_is_up() {
        let key = TokenKey::derive(b"secret");
        let token = key.sign(&claims()).unwrap();
        assert!(is_token(&token) && !is_token("bay_x"));
        // What a WebSocket subprotocol may hold.
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
        assert_eq!(key.open(&token, 999), Some(claims()));
        assert_eq!(key.open(&token, 1000), None);
        assert_eq!(claims().grant().capabilities, ["shell", "terminal"]);
    }

    #[test]
    fn the_largest_token_is_still_read() {
        let key = TokenKey::derive(b"secret");
        let large = Claims { capabilities: vec!["c".repeat(40); MAX_CAPABILITIES], ..claims() };
        assert_eq!(key.open(&key.sign(&large).unwrap(), 0), Some(large));
    }

    #[test]
    fn what_this_bay_did_not_make_is_refused() {
        let key = TokenKey::derive(b"secret");
        let token = key.sign(&claims()).unwrap();
        let (body, mac) = token.split_once('.').unwrap();
        let other = TokenKey::derive(b"another").sign(&claims()).unwrap();
        let more = key.sign(&Claims { capabilities: vec!["python".into()], ..claims() }).unwrap();
        let (richer, _) = more.split_once('.').unwrap();
        for bad in [
            String::new(),
            "bst_".to_owned(),
            "bst_.".to_owned(),
            body.to_owned(),
            format!("{body}."),
            format!("{richer}.{mac}"),
            format!("{token}A"),
            token[..token.len() - 2].to_owned(),
            token.replace("bst_", "bay_"),
            format!("{body}.{}", "A".repeat(43)),
            format!("{token}{}", "A".repeat(MAX_LEN)),
            other,
        ] {
            assert_eq!(key.open(&bad, 0), None, "{bad}");
        }
    }
}
