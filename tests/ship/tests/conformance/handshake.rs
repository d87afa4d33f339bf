//! Who is spoken to: the holder of this session's token, and nobody else.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bay_ship_api::handshake::{
    ACCEPTED, BaySide, CHALLENGE_LEN, Credentials, HELLO_LEN, NONCE_LEN, PROOF_LEN,
};
use bay_ship_tests::{Client, Place, Stream, wait_for};

crate::cases! {
    only_the_holder_of_the_token_is_spoken_to,
    without_a_handshake_nothing_is_said,
    a_proof_is_good_for_one_connection,
    ships_own_proof_sent_back_is_refused,
    a_handshake_may_come_byte_by_byte,
    mute_connections_keep_nobody_out,
}

/// A mute connection is let go after five seconds; this leaves room.
const LET_GO: Duration = Duration::from_secs(30);

fn dial(place: &dyn Place) -> Box<dyn Stream> {
    let stream = wait_for(|| place.dial().ok(), "a connection");
    stream.set_read_timeout(Some(LET_GO)).unwrap();
    stream
}

/// Everything that is said until the connection closes, which it must.
fn until_closed(mut stream: Box<dyn Stream>) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(error) => panic!("not let go: {error}"),
    }
}

/// Greets with this nonce; Ship's answer.
fn greet(stream: &mut dyn Stream, side: &BaySide<'_>) -> [u8; CHALLENGE_LEN] {
    stream.write_all(&side.hello()).unwrap();
    let mut answer = [0; CHALLENGE_LEN];
    stream.read_exact(&mut answer).unwrap();
    answer
}

pub(crate) fn only_the_holder_of_the_token_is_spoken_to(place: &dyn Place) {
    place.client();
    let right = place.credentials();
    let wrong = [
        Credentials::new([1; 32], "ses_test", 3),
        Credentials::new(*right.token(), "ses_other", 3),
        Credentials::new(*right.token(), "ses_test", 4),
    ];
    for wrong in &wrong {
        assert!(Client::prove(dial(place), wrong).is_err(), "Ship proved itself to {wrong:?}");
        // Whoever goes on in spite of Ship's wrong proof is not accepted either.
        let mut stream = dial(place);
        greet(&mut *stream, &BaySide::new(wrong, [7; NONCE_LEN]));
        stream.write_all(&[0; PROOF_LEN]).unwrap();
        assert!(until_closed(stream).is_empty());
    }
    place.client().shell_ok("true");
}

pub(crate) fn without_a_handshake_nothing_is_said(place: &dyn Place) {
    place.client();
    for words in [
        &b"GET /health HTTP/1.1\r\nhost: ship\r\n\r\nand more than a greeting would have"[..],
        b"BAY2 and thirty-two bytes that could be a nonce of some later version",
        b"BAY1",
        b"",
    ] {
        let mut stream = dial(place);
        stream.write_all(words).unwrap();
        let began = Instant::now();
        let said = until_closed(stream);
        assert!(said.is_empty() && began.elapsed() < LET_GO, "{said:?}");
    }
    place.client().shell_ok("true");
}

pub(crate) fn a_proof_is_good_for_one_connection(place: &dyn Place) {
    place.client();
    let side = BaySide::new(place.credentials(), [9; NONCE_LEN]);
    let mut first = dial(place);
    let proof = side.verify(&greet(&mut *first, &side)).unwrap();
    first.write_all(&proof).unwrap();
    let mut accepted = [0];
    first.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted[0], ACCEPTED);
    // The same words once more, as whoever overheard them would say them: Ship's nonce is another.
    let mut second = dial(place);
    greet(&mut *second, &side);
    second.write_all(&proof).unwrap();
    assert!(until_closed(second).is_empty());
    assert_eq!(Client::over(first).get("/health").status, 200);
}

pub(crate) fn ships_own_proof_sent_back_is_refused(place: &dyn Place) {
    place.client();
    let mut stream = dial(place);
    let answer = greet(&mut *stream, &BaySide::new(place.credentials(), [9; NONCE_LEN]));
    stream.write_all(&answer[HELLO_LEN..]).unwrap();
    assert!(until_closed(stream).is_empty());
}

pub(crate) fn a_handshake_may_come_byte_by_byte(place: &dyn Place) {
    place.client();
    let side = BaySide::new(place.credentials(), [3; NONCE_LEN]);
    let mut stream = dial(place);
    for byte in side.hello() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = [0; CHALLENGE_LEN];
    stream.read_exact(&mut answer).unwrap();
    for byte in side.verify(&answer).unwrap() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut accepted = [0];
    stream.read_exact(&mut accepted).unwrap();
    assert_eq!(Client::over(stream).get("/health").status, 200);
}

pub(crate) fn mute_connections_keep_nobody_out(place: &dyn Place) {
    place.client();
    // Past Ship's own bound on connections: the ones that say nothing make room within the handshake's time.
    let mute: Vec<_> = (0..150).map(|_| place.dial().unwrap()).collect();
    let began = Instant::now();
    place.client().shell_ok("true");
    assert!(began.elapsed() < LET_GO, "{:?}", began.elapsed());
    drop(mute);
}
