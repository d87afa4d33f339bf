//! Server-sent events as the tests read them.

use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `id`, where it has one.
    pub id: Option<u64>,
    /// `event`.
    pub name: String,
    /// `data`, which is one JSON object.
    pub data: Value,
}

/// Every event of a body, comments left out. What is not one fails the test.
#[track_caller]
pub fn events(body: &str) -> Vec<Event> {
    let blocks = body.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    blocks.map(one).collect()
}

#[track_caller]
fn one(block: &str) -> Event {
    let mut event = Event { id: None, name: String::new(), data: Value::Null };
    for line in block.split('\n') {
        let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a field: {line}"));
        match field {
            "id" => event.id = Some(value.parse().expect("an id is a number")),
            "event" => event.name = value.to_owned(),
            "data" => event.data = serde_json::from_str(value).expect("data is JSON"),
            other => panic!("an unknown field `{other}`"),
        }
    }
    assert!(event.data.is_object(), "{block}");
    event
}

/// The names of some events, each run of equal ones once.
pub fn names(events: &[Event]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|e| e.name.as_str()).collect();
    names.dedup();
    names
}

/// All text of one stream.
pub fn text(events: &[Event], stream: &str) -> String {
    events.iter().filter(|e| e.name == stream).filter_map(|e| e.data["text"].as_str()).collect()
}
