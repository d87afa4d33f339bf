//! A kernel's sockets. The kernel is a process of the user: it may send anything, with a right signature, too.

use bay_ship::fuzz;

/// Between the parts of a message in an input of [`message`].
const PART: u8 = 0x1E;

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let contents: [(&str, &str); 9] = [
        ("stream", r#"{"name":"stdout","text":"hello é\n"}"#),
        ("stream", "{\"name\":\"stderr\",\"text\":\"\\u001b[31mred\\ud83d\\ude00\"}"),
        (
            "execute_result",
            r#"{"data":{"text/plain":"42","image/png":"iVBO"},"metadata":{},"execution_count":7}"#,
        ),
        ("display_data", r#"{"data":{"text/html":"<b>"},"transient":{"display_id":"d"}}"#),
        ("update_display_data", r#"{"data":{"text/html":"<i>"},"transient":{"display_id":"d"}}"#),
        ("clear_output", r#"{"wait":true}"#),
        ("error", r#"{"ename":"E","evalue":"v","traceback":["\u001b[0;31ma","b"]}"#),
        ("status", r#"{"execution_state":"idle"}"#),
        (
            "execute_reply",
            r#"{"status":"error","ename":"E","evalue":"v","traceback":[],"execution_count":3}"#,
        ),
    ];
    let seed = |(kind, content): &(&str, &str)| {
        let header = format!(r#"{{"msg_id":"k1","msg_type":"{kind}"}}"#);
        [header.as_bytes(), br#"{"msg_id":"r1"}"#, b"{}", content.as_bytes()].join(&PART)
    };
    contents.iter().map(seed).collect()
}

pub(crate) fn stream_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = message_seeds().iter().map(|seed| signed(seed)).collect();
    seeds.push(seeds.concat());
    // A command, then a frame of absurd size.
    seeds.push(b"\x04\x06\x05READY\x02\x7f\xff\xff\xff\xff\xff\xff\xffabc".to_vec());
    seeds
}

fn signed(input: &[u8]) -> Vec<u8> {
    let mut parts = input.splitn(4, |byte| *byte == PART);
    let mut next = || parts.next().unwrap_or_default();
    fuzz::signed([next(), next(), next(), next()])
}

/// Frames are the same however the stream is cut, and hold no more than came.
pub(crate) fn frames(bytes: &[u8]) {
    let whole = fuzz::frames(bytes, bytes.len());
    assert_eq!(fuzz::frames(bytes, 1), whole);
    assert_eq!(fuzz::frames(bytes, 7), whole);
    if let Some((frames, held)) = whole {
        assert!(held + 2 * frames <= bytes.len() as u64, "{frames} frames of {held} bytes");
    }
}

/// What is heard is the same however the stream is cut.
pub(crate) fn stream(bytes: &[u8]) {
    let whole = fuzz::kernel_stream(bytes, bytes.len());
    assert_eq!(fuzz::kernel_stream(bytes, 1), whole);
    assert_eq!(fuzz::kernel_stream(bytes, 13), whole);
}

/// A message with a right signature is read, whatever its parts say; and with a wrong one it is dropped.
pub(crate) fn message(bytes: &[u8]) {
    let mut wire = signed(bytes);
    let heard = fuzz::kernel_stream(&wire, wire.len());
    assert!(heard.messages <= 1 && !heard.broken, "{heard:?}");
    // The signature's first digit stands after the delimiter (two bytes and nine) and its own two bytes.
    if let Some(digit) = wire.get_mut(2 + 9 + 2) {
        *digit = if *digit == b'0' { b'1' } else { b'0' };
    }
    assert_eq!(fuzz::kernel_stream(&wire, wire.len()).messages, 0);
}
