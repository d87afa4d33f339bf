//! The smallest adapter: `demo_echo.echo` answers with its input, and asks the runtime nothing.

use std::cell::Cell;

use serde_json::{Value, json};

use exports::bay::plugin::adapter::{
    Action, Call, CapabilitySpec, Event, Guest, GuestOperation, Manifest, OperationSpec,
};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "adapter-plugin" });

struct Echo;

struct Operation(Cell<Option<Call>>);

impl Guest for Echo {
    type Operation = Operation;

    fn describe(_config: String) -> Result<Manifest, String> {
        let object = json!({ "type": "object" }).to_string();
        let echo = OperationSpec {
            name: "echo".into(),
            summary: "Answers with its input.".into(),
            input_schema: object.clone(),
            output_schema: object,
            traits: vec!["safe".into()],
        };
        let capability = CapabilitySpec {
            name: "demo_echo".into(),
            summary: "Shows what an adapter is.".into(),
            operations: vec![echo],
        };
        Ok(Manifest { capabilities: vec![capability], wants: Vec::new() })
    }
}

impl GuestOperation for Operation {
    fn new(call: Call) -> Self {
        Self(Cell::new(Some(call)))
    }

    fn start(&self) -> Action {
        let Some(call) = self.0.take() else { return Action::Reply("{}".into()) };
        let input: Value = serde_json::from_str(&call.input).unwrap_or_default();
        Action::Reply(json!({ "echo": input, "request_id": call.context.request_id }).to_string())
    }

    fn resume(&self, _event: Event) -> Action {
        Action::Reply("{}".into())
    }
}

export!(Echo);
