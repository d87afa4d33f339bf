use proptest::prelude::*;

use super::*;

fn wire(signer: &Signer, parts: [&[u8]; 4], before: &[&[u8]], after: &[&[u8]]) -> Vec<u8> {
    let signature = signer.sign(parts);
    let mut all: Vec<&[u8]> = before.to_vec();
    all.extend([DELIMITER, signature.as_bytes()]);
    all.extend(parts);
    all.extend(after);
    let mut out = Vec::new();
    zmtp::put_message(&mut out, &all);
    out
}

fn read(signer: &Signer, stream: &[u8], step: usize) -> Vec<Incoming> {
    let mut reader = Reader::new(signer.clone());
    let mut found = Vec::new();
    for chunk in stream.chunks(step) {
        if reader.feed(chunk, |message| found.push(message)).is_err() {
            break;
        }
    }
    found
}

const HEAD: &[u8] = br#"{"msg_id":"k1","msg_type":"stream"}"#;
const FROM: &[u8] = br#"{"msg_id":"r1"}"#;

#[test]
fn our_own_messages_are_read_back() {
    let signer = Signer::new("key");
    let content = json!({"code": "1+1"});
    let out = Outgoing { id: "r1", session: "s", kind: "execute_request", content: &content };
    let found = read(&signer, &out.encode(&signer), 7);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, "execute_request");
    assert_eq!(found[0].content::<Value>(), Some(content));
}

#[test]
fn topics_before_and_buffers_after_do_not_matter() {
    let signer = Signer::new("key");
    let stream = wire(&signer, [HEAD, FROM, b"{}", b"{}"], &[b"kernel.stream"], &[b"buffer", b""]);
    let found = read(&signer, &[stream.clone(), stream].concat(), 5);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].kind.as_str(), found[0].parent.as_str()), ("stream", "r1"));
}

#[test]
fn a_message_signed_with_another_key_is_dropped() {
    let stream = wire(&Signer::new("other"), [HEAD, FROM, b"{}", b"{}"], &[], &[]);
    assert_eq!(read(&Signer::new("key"), &stream, 64), []);
}

#[test]
fn a_message_with_a_part_missing_is_dropped_and_the_next_is_read() {
    let signer = Signer::new("key");
    let mut stream = Vec::new();
    zmtp::put_message(&mut stream, &[DELIMITER, b"00", HEAD]);
    zmtp::put_message(&mut stream, &[b"welcome"]);
    stream.extend(wire(&signer, [HEAD, FROM, b"{}", b"{}"], &[], &[]));
    assert_eq!(read(&signer, &stream, 3).len(), 1);
}

#[test]
fn an_endless_text_is_kept_to_its_bound_and_still_authentic() {
    let signer = Signer::new("key");
    let mut content = br#"{"name": "stdout", "text": ""#.to_vec();
    content.resize(MAX_CONTENT * 2, b'x');
    content.extend(br#""}"#);
    let found = read(&signer, &wire(&signer, [HEAD, FROM, b"{}", &content], &[], &[]), 4096);
    assert!(found[0].cut);
    assert_eq!(found[0].content::<Value>(), None);
    let (name, text) = found[0].cut_stream().unwrap();
    assert_eq!(name, "stdout");
    assert!(text.len() > MAX_CONTENT - 64 && text.bytes().all(|b| b == b'x'));
}

proptest! {
    #[test]
    fn a_cut_stream_shows_a_prefix_of_its_text(text: String, cut in 0usize..400) {
        let whole = json!({"text": text}).to_string();
        let content = format!(r#"{{"name": "stderr", {}"#, &whole[1..]).into_bytes();
        let first = br#"{"name": "stderr", "text":""#.len();
        let content = content[..(first + cut).min(content.len() - 2)].to_vec();
        let message = Incoming { kind: "stream".into(), parent: String::new(), content, cut: true };
        let (name, shown) = message.cut_stream().unwrap();
        prop_assert_eq!(name, "stderr");
        prop_assert!(text.starts_with(&shown), "{shown:?} of {text:?}");
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>, step in 1usize..9) {
        read(&Signer::new("key"), &bytes, step);
    }

    #[test]
    fn any_parts_are_read_without_harm(parts: [Vec<u8>; 4], extra: Vec<u8>) {
        let signer = Signer::new("key");
        let stream = wire(&signer, parts.each_ref().map(Vec::as_slice), &[&extra], &[&extra]);
        read(&signer, &stream, 16);
    }
}
