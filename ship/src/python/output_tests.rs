use super::super::message::{Outgoing, Reader, Signer};
use super::*;
use serde_json::json;

/// A message as it comes off the wire.
fn message(kind: &str, content: Value) -> Incoming {
    let signer = Signer::new("k");
    let bytes = Outgoing { id: "m", session: "s", kind, content: &content }.encode(&signer);
    let mut found = None;
    Reader::new(signer).feed(&bytes, |message| found = Some(message)).unwrap();
    found.unwrap()
}

fn stream(name: &str, text: &str) -> Incoming {
    message("stream", json!({"name": name, "text": text}))
}

fn gather(messages: &[Incoming]) -> Gathered {
    let mut collector = Collector::new(None);
    messages.iter().for_each(|message| collector.iopub(message));
    collector.finish()
}

#[test]
fn text_is_what_a_person_would_see() {
    let got = gather(&[
        stream("stdout", "a"),
        stream("stderr", "b"),
        message("execute_result", json!({"data": {"text/plain": "42"}, "execution_count": 7})),
    ]);
    assert_eq!(got.output, "ab\n42");
    assert_eq!(got.results, [json!({"text/plain": "42"})]);
    assert_eq!(got.execution_count, Some(7));
    assert!(!got.truncated);
}

#[test]
fn images_stand_apart_from_results() {
    let got = gather(&[message(
        "display_data",
        json!({"data": {"image/png": "aGk=", "text/plain": "<Figure>"}, "transient": {}}),
    )]);
    assert_eq!(got.images, [BTreeMap::from([("image/png".to_owned(), json!("aGk="))])]);
    assert_eq!(got.results, [json!({"text/plain": "<Figure>"})]);
    assert_eq!(got.output, "");
}

#[test]
fn each_stream_is_bounded_without_starving_the_other() {
    let got = gather(&[
        stream("stdout", &"x".repeat(MAX_INLINE_OUTPUT - 1)),
        stream("stdout", "é and more"),
        stream("stdout", "late"),
        stream("stderr", "warning"),
    ]);
    assert!(got.truncated);
    assert_eq!(got.output.len(), MAX_INLINE_OUTPUT - 1 + "warning".len());
    assert!(got.output.ends_with("xwarning"));
}

#[test]
fn an_update_replaces_its_display_and_a_clear_empties_all() {
    let show = |kind: &str, text: &str| {
        message(kind, json!({"data": {"text/plain": text}, "transient": {"display_id": "d"}}))
    };
    let got = gather(&[show("display_data", "10%"), show("update_display_data", "100%")]);
    assert_eq!(got.output, "100%");
    let got = gather(&[
        stream("stdout", "old"),
        message("clear_output", json!({"wait": true})),
        stream("stdout", "new"),
    ]);
    assert_eq!(got.output, "new");
}

#[test]
fn results_are_bounded_in_number_and_size() {
    let many: Vec<_> = (0..MAX_RESULT_COUNT + 5)
        .map(|i| message("display_data", json!({"data": {"text/plain": i.to_string()}})))
        .collect();
    let got = gather(&many);
    assert_eq!((got.results.len(), got.truncated), (MAX_RESULT_COUNT, true));
    let big = message("display_data", json!({"data": {"text/html": "x".repeat(MAX_RESULTS)}}));
    let got = gather(&[big]);
    assert_eq!((got.results.len(), got.truncated), (0, true));
}

#[test]
fn exceptions_lose_their_colours() {
    let raised =
        json!({"ename": "ValueError", "evalue": "no", "traceback": ["\u{1b}[31mValueError\u{1b}[39m: no"]});
    let got = gather(&[message("error", raised)]);
    let error = got.error.unwrap();
    assert_eq!((error.name.as_str(), error.traceback[0].as_str()), ("ValueError", "ValueError: no"));
}

#[test]
fn nonsense_is_ignored() {
    let got = gather(&[
        message("stream", json!([1])),
        message("display_data", json!("x")),
        message("status", json!({})),
        message("error", json!(null)),
        message("mystery", json!({"a": 1})),
    ]);
    assert_eq!((got.output.as_str(), got.truncated), ("", false));
}
