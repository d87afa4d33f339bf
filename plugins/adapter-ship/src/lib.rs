//! Speaks Ship's HTTP: `python`, `shell`, `filesystem` and `terminal`.
//!
//! Every operation is one request, or one forward whose bodies do not come in here: [`plan`] makes it from the input, [`answer`] makes a reply or a fault of what
//! came back. [`describe`] says all of this in JSON Schema. None of it trusts what the runtime says.

mod answer;
mod describe;
mod files;
mod plan;
mod terminal;

use std::cell::Cell;

use exports::bay::plugin::adapter::{Action, Call, Event, Guest, GuestOperation, Manifest};
use plan::Plan;

wit_bindgen::generate!({ path: "../../wit/since-v0.1.0", world: "adapter-plugin" });

struct Ship;

/// One call. `expecting` is what its response will be read as; none once it has been.
struct Operation {
    call: Cell<Option<Call>>,
    expecting: Cell<Option<answer::Reader>>,
}

impl Guest for Ship {
    type Operation = Operation;

    fn describe(config: String) -> Result<Manifest, String> {
        describe::manifest(&config)
    }
}

impl GuestOperation for Operation {
    fn new(call: Call) -> Self {
        Self { call: Cell::new(Some(call)), expecting: Cell::new(None) }
    }

    fn start(&self) -> Action {
        let Some(call) = self.call.take() else { return answer::confused("started twice") };
        match plan::plan(&call) {
            Ok(Plan { action, reader }) => {
                self.expecting.set(Some(reader));
                action
            }
            Err(fault) => Action::Fail(fault),
        }
    }

    fn resume(&self, event: Event) -> Action {
        let Some(reader) = self.expecting.take() else { return answer::confused("resumed before its start") };
        answer::read(reader, event)
    }
}

export!(Ship);
