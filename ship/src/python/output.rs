//! Gathers what one execution says on iopub into an answer, within bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bay_ship_api::http::{MAX_INLINE_OUTPUT, PythonErrorDetail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::message::Incoming;
use crate::execution::{Execution, MAX_INLINE_JSON, Stream};
use crate::text::{BoundedText, cut_to_json, without_escapes};

/// Bytes of all results and images together.
const MAX_RESULTS: usize = 4 << 20;
/// Number of them.
const MAX_RESULT_COUNT: usize = 256;
/// Bytes of an exception's words, and of its traceback.
const MAX_ERROR: usize = 64 << 10;

/// A display or a result.
struct Shown {
    display_id: Option<String>,
    bundle: Map<String, Value>,
}

/// The answer under construction.
pub(crate) struct Collector {
    stdout: usize,
    stderr: usize,
    text: BoundedText,
    shown: Vec<Shown>,
    shown_bytes: usize,
    truncated: bool,
    /// `clear_output(wait=True)`: clear when the next output comes.
    clear_next: bool,
    error: Option<PythonErrorDetail>,
    execution_count: Option<i64>,
    /// The code has begun: from here on an interrupt reaches it.
    pub(crate) begun: bool,
    /// The kernel said it is done with the request.
    pub(crate) idle: bool,
    /// Gets all of it as it comes; none where nobody asked for what is run.
    execution: Option<Arc<Execution>>,
    /// The code asked its kernel to end (`quit()`): it does so a moment after its answer.
    pub(crate) leaving: bool,
}

/// What a [`Collector`] has gathered, in the shape of the answer.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) output: String,
    pub(crate) images: Vec<BTreeMap<String, Value>>,
    pub(crate) results: Vec<Value>,
    pub(crate) error: Option<PythonErrorDetail>,
    pub(crate) execution_count: Option<i64>,
    pub(crate) truncated: bool,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    name: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Display {
    #[serde(default)]
    data: Map<String, Value>,
    #[serde(default)]
    transient: Value,
    execution_count: Option<i64>,
}

#[derive(Deserialize)]
struct Raised {
    #[serde(default)]
    ename: String,
    #[serde(default)]
    evalue: String,
    #[serde(default)]
    traceback: Vec<String>,
}

impl Collector {
    pub(crate) fn new(execution: Option<Arc<Execution>>) -> Self {
        Self {
            stdout: 0,
            stderr: 0,
            text: BoundedText::new(2 * MAX_INLINE_OUTPUT),
            shown: Vec::new(),
            shown_bytes: 0,
            truncated: false,
            clear_next: false,
            error: None,
            execution_count: None,
            begun: false,
            idle: false,
            execution,
            leaving: false,
        }
    }

    /// Takes a message of iopub that belongs to this execution.
    pub(crate) fn iopub(&mut self, message: &Incoming) {
        match message.kind.as_str() {
            "stream" if message.cut => {
                let (name, text) = message.cut_stream().unwrap_or_default();
                self.stream(&name, &text);
                self.truncated = true;
                if let Some(execution) = &self.execution {
                    execution.lost(if name == "stderr" { Stream::Stderr } else { Stream::Stdout });
                }
            }
            "stream" => {
                if let Some(Said { name, text }) = message.content() {
                    self.stream(&name, &text);
                }
            }
            // The one of IPython, the other of the loop.
            "execute_input" | "begun" => self.begun = true,
            "status" => {
                let state = message.content::<Value>().unwrap_or_default();
                self.idle |= state.get("execution_state").and_then(Value::as_str) == Some("idle");
            }
            "error" if message.cut => {
                self.truncated = true;
                self.error = Some(unspeakable());
            }
            _ if message.cut => self.truncated = true,
            "display_data" | "execute_result" => {
                if let Some(display) = message.content() {
                    self.show(display);
                }
            }
            "update_display_data" => {
                if let Some(display) = message.content() {
                    self.update(display);
                }
            }
            "clear_output" => {
                let wait = message.content::<Value>().unwrap_or_default();
                if wait.get("wait").and_then(Value::as_bool) == Some(true) {
                    self.clear_next = true;
                } else {
                    self.clear();
                }
            }
            "error" => {
                if let Some(raised) = message.content() {
                    self.error = Some(detail(raised));
                }
            }
            _ => {}
        }
    }

    /// Takes the shell channel's reply.
    pub(crate) fn reply(&mut self, message: &Incoming) {
        if message.cut {
            self.truncated = true;
            if !message.cut_reply_is_ok() && self.error.is_none() {
                self.error = Some(unspeakable());
            }
            return;
        }
        let Some(content) = message.content::<Value>() else {
            self.error.get_or_insert_with(unspeakable);
            return;
        };
        self.execution_count = content.get("execution_count").and_then(Value::as_i64);
        let payload = content.get("payload").and_then(Value::as_array);
        self.leaving = payload.is_some_and(|all| all.iter().any(|one| one["source"] == "ask_exit"));
        let failed = content.get("status").and_then(Value::as_str) != Some("ok");
        if failed && self.error.is_none() {
            // Some failures (a request the kernel aborted) come only here.
            self.error = serde_json::from_value(content).ok().map(detail);
        }
    }

    /// Something of the output did not arrive.
    pub(crate) fn lost(&mut self) {
        self.truncated = true;
    }

    /// Lets the execution write what does not stay in memory.
    pub(crate) async fn settle(&self) {
        // The kernel is not held up for readers: it would drop what it cannot send.
        if let Some(execution) = &self.execution {
            execution.write_out().await;
        }
    }

    /// Returns once somebody has asked for it to stop.
    pub(crate) async fn cancellation(&self) {
        match &self.execution {
            Some(execution) => execution.cancellation().await,
            None => std::future::pending().await,
        }
    }

    /// Takes text of `stdout` or `stderr`.
    pub(super) fn stream(&mut self, name: &str, text: &str) {
        self.clear_if_due();
        if let Some(execution) = &self.execution {
            let stream = if name == "stderr" { Stream::Stderr } else { Stream::Stdout };
            execution.output(stream, text.as_bytes());
        }
        let used = if name == "stderr" { &mut self.stderr } else { &mut self.stdout };
        let room = MAX_INLINE_OUTPUT - *used;
        let kept = &text[..text.floor_char_boundary(room)];
        *used += kept.len();
        if kept.len() < text.len() {
            // What follows a gap would read as if it belonged to what came before.
            *used = MAX_INLINE_OUTPUT;
            self.truncated = true;
        }
        self.text.push(kept);
    }

    fn show(&mut self, display: Display) {
        self.clear_if_due();
        if display.execution_count.is_some() {
            self.execution_count = display.execution_count;
        }
        let bytes = size(&display.data);
        self.display(&display.data, bytes);
        if self.shown.len() >= MAX_RESULT_COUNT || self.shown_bytes + bytes > MAX_RESULTS {
            self.truncated = true;
            return;
        }
        self.shown_bytes += bytes;
        self.shown.push(Shown { display_id: display_id(&display), bundle: display.data });
    }

    fn update(&mut self, display: Display) {
        let (Some(id), bytes) = (display_id(&display), size(&display.data)) else { return };
        self.display(&display.data, bytes);
        for shown in self.shown.iter_mut().filter(|shown| shown.display_id.as_ref() == Some(&id)) {
            let total = self.shown_bytes - size(&shown.bundle) + bytes;
            if total > MAX_RESULTS {
                self.truncated = true;
                return;
            }
            self.shown_bytes = total;
            shown.bundle.clone_from(&display.data);
        }
    }

    fn display(&self, bundle: &Map<String, Value>, bytes: usize) {
        if let Some(execution) = self.execution.as_ref().filter(|_| bytes <= MAX_RESULTS) {
            execution.display(bundle);
        }
    }

    fn clear_if_due(&mut self) {
        if std::mem::take(&mut self.clear_next) {
            self.clear();
        }
    }

    fn clear(&mut self) {
        if let Some(execution) = &self.execution {
            execution.clear();
        }
        self.text.clear();
        self.shown.clear();
        (self.stdout, self.stderr, self.shown_bytes) = (0, 0, 0);
    }

    /// The end: streams as they came, then the text of results; images apart from the other bundles.
    pub(crate) fn finish(self) -> Gathered {
        let mut output = self.text.as_str().to_owned();
        let (mut images, mut results) = (Vec::new(), Vec::new());
        for Shown { mut bundle, .. } in self.shown {
            let kinds: Vec<String> =
                bundle.keys().filter(|kind| kind.starts_with("image/")).cloned().collect();
            let pictured = !kinds.is_empty();
            for kind in kinds {
                if let Some(image) = bundle.remove(&kind) {
                    images.push(BTreeMap::from([(kind, image)]));
                }
            }
            // "<Figure size 640x480>" says nothing beside the figure.
            if let Some(text) = bundle.get("text/plain").and_then(Value::as_str).filter(|_| !pictured) {
                if !output.is_empty() && !output.ends_with('\n') {
                    output.push('\n');
                }
                output.push_str(text);
            }
            if !bundle.is_empty() {
                results.push(Value::Object(bundle));
            }
        }
        let mut truncated = self.truncated || self.text.truncated();
        if output.len() > 2 * MAX_INLINE_OUTPUT {
            output.truncate(output.floor_char_boundary(2 * MAX_INLINE_OUTPUT));
            truncated = true;
        }
        truncated |= cut_to_json(&mut output, 2 * MAX_INLINE_JSON);
        Gathered {
            output,
            images,
            results,
            error: self.error,
            execution_count: self.execution_count,
            truncated,
        }
    }
}

/// The text of a stream's message; of any other, nothing.
pub(super) fn text_of(message: &Incoming) -> Option<String> {
    match message.kind.as_str() {
        "stream" if message.cut => message.cut_stream().map(|(_, text)| text),
        "stream" => message.content::<Said>().map(|said| said.text),
        _ => None,
    }
}

fn display_id(display: &Display) -> Option<String> {
    display.transient.get("display_id").and_then(Value::as_str).map(str::to_owned)
}

/// About as many bytes as the bundle takes.
fn size(bundle: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(of).sum::<usize>() + 8,
            Value::Object(fields) => size(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        }
    }
    bundle.iter().map(|(name, value)| name.len() + of(value) + 16).sum()
}

/// Stands for an exception whose words did not arrive.
fn unspeakable() -> PythonErrorDetail {
    PythonErrorDetail {
        name: "Exception".to_owned(),
        value: "an exception was raised, but its text is too large to be carried".to_owned(),
        traceback: Vec::new(),
    }
}

fn detail(raised: Raised) -> PythonErrorDetail {
    let bounded = |text: &str| {
        let mut out = BoundedText::new(MAX_ERROR);
        out.push(&without_escapes(text));
        out.as_str().to_owned()
    };
    let mut left = MAX_ERROR;
    let mut traceback = Vec::new();
    for line in raised.traceback {
        let line = without_escapes(&line);
        if line.len() > left {
            traceback.push("[the rest of the traceback is too long]".to_owned());
            break;
        }
        left -= line.len();
        traceback.push(line);
    }
    PythonErrorDetail { name: bounded(&raised.ename), value: bounded(&raised.evalue), traceback }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
