//! Both sides of the handshake, each against a peer that knows everything but the token.

use bay_ship_api::handshake::{
    BaySide, CHALLENGE_LEN, Credentials, HELLO_LEN, NONCE_LEN, PROOF_LEN, ShipSide,
};

fn credentials() -> Credentials {
    Credentials::new([0x5A; 32], "ses_fuzz", 3)
}

/// What a peer without the token may know, or guess: another session's credentials.
fn other() -> Credentials {
    Credentials::new([0x5A; 32], "ses_other", 3)
}

const BAY_NONCE: [u8; NONCE_LEN] = [1; NONCE_LEN];
const SHIP_NONCE: [u8; NONCE_LEN] = [2; NONCE_LEN];

/// Hello and proof of a whole exchange between two who hold these.
fn said(credentials: &Credentials) -> Option<(Vec<u8>, Vec<u8>)> {
    let bay = BaySide::new(credentials, BAY_NONCE);
    let ship = ShipSide::new(credentials, &bay.hello(), SHIP_NONCE).ok()?;
    let proof = bay.verify(ship.answer()).ok()?;
    Some(([&bay.hello()[..], &proof].concat(), ship.answer().to_vec()))
}

pub(crate) fn ship_seeds() -> Vec<Vec<u8>> {
    [credentials(), other()].iter().filter_map(said).map(|(from_bay, _)| from_bay).collect()
}

pub(crate) fn bay_seeds() -> Vec<Vec<u8>> {
    [credentials(), other()].iter().filter_map(said).map(|(_, from_ship)| from_ship).collect()
}

/// Ship accepts exactly the proof of whoever holds the token.
pub(crate) fn ship(bytes: &[u8]) {
    let Some((hello, rest)) = bytes.split_first_chunk::<HELLO_LEN>() else { return };
    let Some(proof) = rest.first_chunk::<PROOF_LEN>() else { return };
    let credentials = credentials();
    let Ok(side) = ShipSide::new(&credentials, hello, SHIP_NONCE) else {
        assert_ne!(hello.get(..4), Some(&b"BAY1"[..]));
        return;
    };
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(hello.get(4..).unwrap_or_default());
    let right = BaySide::new(&credentials, nonce).verify(side.answer());
    assert_eq!(side.verify(proof).is_ok(), right == Ok(*proof));
}

/// Bay proves itself only to whoever holds the token.
pub(crate) fn bay(bytes: &[u8]) {
    let Some(answer) = bytes.first_chunk::<CHALLENGE_LEN>() else { return };
    let credentials = credentials();
    let side = BaySide::new(&credentials, BAY_NONCE);
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(answer.get(4..HELLO_LEN).unwrap_or_default());
    let right = ShipSide::new(&credentials, &side.hello(), nonce).map(|ship| *ship.answer());
    assert_eq!(side.verify(answer).is_ok(), right == Ok(*answer));
}
