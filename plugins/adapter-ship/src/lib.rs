//! Speaks Ship's HTTP: `python`, `shell`, `filesystem`, `terminal`, and the `executions` behind Bay's own routes.
//!
//! Every operation is one request, or one forward whose bodies do not come in here: [`plan`] makes it from the input,
//! [`answer`] makes a reply or a fault of what came back. Only where an execution's events go to the caller a second
//! request asks for its end ([`executions`]). [`describe`] says all of this in JSON Schema. None of it trusts what the
//! runtime says.

mod answer;
mod describe;
mod executions;
mod files;
mod plan;
mod processes;
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
        match reader {
            answer::Reader::Streamed { execution_id, seconds } => {
                let asked = executions::after(&execution_id, seconds, event);
                self.expecting.set(matches!(asked, Action::Requests(_)).then_some(answer::Reader::Record));
                asked
            }
            reader => answer::read(reader, event),
        }
    }
}

export!(Ship);
