//! Mutual proof on every new connection between Bay and a runtime, before anything of a tenant is sent.
//!
//! Both sides hold a token for one (session, generation); the token never crosses the wire.
//!
//! ```text
//! Bay  → Ship   "BAY1" + 32-byte nonce B
//! Ship → Bay    "BAY1" + 32-byte nonce S + HMAC(token, "ship" ‖ context ‖ B ‖ S)
//! Bay  → Ship   HMAC(token, "bay" ‖ context ‖ B ‖ S)
//! Ship → Bay    one byte, 0x06
//! ```
//!
//! The role in the MAC stops one side's proof from being reflected as the other's. After the last byte the
//! connection speaks HTTP/1.1. A side that does not like what it reads closes the connection without a word.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// First bytes of each side's greeting; the digit is the version of this protocol.
pub const MAGIC: [u8; 4] = *b"BAY1";
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 32;
/// Length of a proof in bytes (HMAC-SHA-256).
pub const PROOF_LEN: usize = 32;
/// Length of Bay's greeting: magic and nonce.
pub const HELLO_LEN: usize = MAGIC.len() + NONCE_LEN;
/// Length of Ship's answer: magic, nonce and proof.
pub const CHALLENGE_LEN: usize = HELLO_LEN + PROOF_LEN;
/// What Ship sends when it accepts Bay's proof.
pub const ACCEPTED: u8 = 0x06;

type HmacSha256 = Hmac<Sha256>;

/// Why a handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The other side does not speak this protocol.
    Magic,
    /// The other side does not hold the token of this session and generation.
    Proof,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Magic => "the other side does not speak Bay's handshake",
            Self::Proof => "the other side could not prove that it belongs to this session",
        })
    }
}

impl std::error::Error for Refused {}

/// The secret of one (session, generation), and what it is bound to.
#[derive(Clone)]
pub struct Credentials {
    token: [u8; 32],
    session: String,
    generation: u64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("session", &self.session)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The credentials of one (session, generation) from its token.
    pub fn new(token: [u8; 32], session: impl Into<String>, generation: u64) -> Self {
        Self { token, session: session.into(), generation }
    }

    /// Derives the token of (session, generation) from a Bay instance's secret, so that none is ever stored.
    pub fn derive(instance_secret: &[u8], session: &str, generation: u64) -> Self {
        let mut mac = keyed(instance_secret);
        mac.update(b"bay-runtime-token\0");
        mac.update(session.as_bytes());
        mac.update(&[0]);
        mac.update(&generation.to_be_bytes());
        Self::new(mac.finalize().into_bytes().into(), session, generation)
    }

    /// The token itself: it goes into the start-up message and nowhere else.
    pub fn token(&self) -> &[u8; 32] {
        &self.token
    }

    fn proof(&self, role: &[u8], bay_nonce: &[u8], ship_nonce: &[u8]) -> HmacSha256 {
        let mut mac = keyed(&self.token);
        mac.update(role);
        mac.update(&[0]);
        mac.update(&(self.session.len() as u64).to_be_bytes());
        mac.update(self.session.as_bytes());
        mac.update(&self.generation.to_be_bytes());
        mac.update(bay_nonce);
        mac.update(ship_nonce);
        mac
    }
}

/// HMAC takes keys of any length, so this cannot fail; the empty key stands in for the impossible branch.
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| HmacSha256::new(&Default::default()))
}

/// Bay's side: it greets, checks Ship's answer, then proves itself.
#[derive(Debug)]
pub struct BaySide<'a> {
    credentials: &'a Credentials,
    nonce: [u8; NONCE_LEN],
}

impl<'a> BaySide<'a> {
    /// Starts with a fresh random nonce, which the caller must not use twice.
    pub fn new(credentials: &'a Credentials, nonce: [u8; NONCE_LEN]) -> Self {
        Self { credentials, nonce }
    }

    /// The bytes to send first.
    pub fn hello(&self) -> [u8; HELLO_LEN] {
        let mut out = [0; HELLO_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4..].copy_from_slice(&self.nonce);
        out
    }

    /// Checks Ship's answer; on success, the proof to send. One byte, [`ACCEPTED`], must follow.
    pub fn verify(&self, answer: &[u8; CHALLENGE_LEN]) -> Result<[u8; PROOF_LEN], Refused> {
        let (head, proof) = answer.split_at(HELLO_LEN);
        let (magic, ship_nonce) = head.split_at(4);
        if magic != MAGIC {
            return Err(Refused::Magic);
        }
        self.credentials
            .proof(b"ship", &self.nonce, ship_nonce)
            .verify_slice(proof)
            .map_err(|_| Refused::Proof)?;
        Ok(self.credentials.proof(b"bay", &self.nonce, ship_nonce).finalize().into_bytes().into())
    }
}

/// Ship's side: it answers a greeting with its own proof, then checks Bay's.
#[derive(Debug)]
pub struct ShipSide {
    expected: [u8; PROOF_LEN],
    answer: [u8; CHALLENGE_LEN],
}

impl ShipSide {
    /// Reads Bay's greeting. `nonce` must be fresh and random.
    pub fn new(
        credentials: &Credentials,
        hello: &[u8; HELLO_LEN],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Self, Refused> {
        let (magic, bay_nonce) = hello.split_at(4);
        if magic != MAGIC {
            return Err(Refused::Magic);
        }
        let mut answer = [0; CHALLENGE_LEN];
        answer[..4].copy_from_slice(&MAGIC);
        answer[4..HELLO_LEN].copy_from_slice(&nonce);
        let own = credentials.proof(b"ship", bay_nonce, &nonce).finalize().into_bytes();
        answer[HELLO_LEN..].copy_from_slice(&own);
        let expected = credentials.proof(b"bay", bay_nonce, &nonce).finalize().into_bytes().into();
        Ok(Self { expected, answer })
    }

    /// The bytes to send back.
    pub fn answer(&self) -> &[u8; CHALLENGE_LEN] {
        &self.answer
    }

    /// Checks Bay's proof in constant time; on success send [`ACCEPTED`] and speak HTTP.
    pub fn verify(&self, proof: &[u8; PROOF_LEN]) -> Result<(), Refused> {
        if bool::from(self.expected.ct_eq(proof)) { Ok(()) } else { Err(Refused::Proof) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bay: &Credentials, ship: &Credentials) -> Result<(), Refused> {
        let b = BaySide::new(bay, [1; 32]);
        let s = ShipSide::new(ship, &b.hello(), [2; 32])?;
        s.verify(&b.verify(s.answer())?)
    }

    #[test]
    fn both_sides_with_one_token_agree() {
        let c = Credentials::derive(b"secret", "ses_1", 4);
        assert_eq!(run(&c, &c), Ok(()));
    }

    #[test]
    fn another_session_generation_or_secret_is_refused() {
        let c = Credentials::derive(b"secret", "ses_1", 4);
        for other in [
            Credentials::derive(b"secret", "ses_2", 4),
            Credentials::derive(b"secret", "ses_1", 5),
            Credentials::derive(b"other", "ses_1", 4),
            Credentials::new(*c.token(), "ses_2", 4),
            Credentials::new(*c.token(), "ses_1", 5),
        ] {
            assert_eq!(run(&c, &other), Err(Refused::Proof));
        }
    }

    #[test]
    fn ships_own_proof_cannot_be_reflected_as_bays() {
        let c = Credentials::derive(b"secret", "ses_1", 4);
        let b = BaySide::new(&c, [1; 32]);
        let s = ShipSide::new(&c, &b.hello(), [1; 32]).unwrap();
        let mut reflected = [0; PROOF_LEN];
        reflected.copy_from_slice(&s.answer()[HELLO_LEN..]);
        assert_eq!(s.verify(&reflected), Err(Refused::Proof));
    }

    #[test]
    fn the_token_never_shows_in_debug() {
        let c = Credentials::new([0xAB; 32], "ses_1", 1);
        assert!(!format!("{c:?}").contains("171"), "{c:?}");
    }
}
