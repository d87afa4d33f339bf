//! The answer to an execution that is over, in words for a person where it did not end by itself.

use std::time::Duration;

use bay_ship_api::http::{PythonData, PythonExecResponse, PythonOutput};
use serde_json::Value;

use super::control::Wish;
use super::kernel::Ending;
use super::output::Gathered;
use crate::execution::Execution;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is known when an execution is over.
pub(super) struct Report {
    pub(super) ending: Ending,
    /// Somebody asked for it to stop.
    pub(super) cancelled: bool,
    /// The same in words.
    pub(super) cause: String,
    /// The kernel that the next call meets.
    pub(super) next_kernel: u64,
    pub(super) timeout: u32,
    pub(super) last_words: String,
    pub(super) gathered: Gathered,
    pub(super) queued: Duration,
    pub(super) took: Duration,
}

impl Report {
    /// The answer, in the contract's shape.
    pub(super) fn answer(self, execution: &Execution, code: Option<String>) -> Value {
        let Gathered { output, images, results, error: detail, execution_count, truncated } = self.gathered;
        let (seconds, next) = (self.timeout, self.next_kernel);
        let lost = format!("a new kernel takes its place (kernel_seq {next}), and variables are lost");
        let error = match &self.ending {
            Ending::Complete => detail.as_ref().map(|detail| {
                if detail.traceback.is_empty() {
                    format!("{}: {}", detail.name, detail.value)
                } else {
                    detail.traceback.join("\n")
                }
            }),
            Ending::Interrupted if self.cancelled => {
                Some("cancelled: the code was interrupted; the kernel keeps its state".to_owned())
            }
            Ending::Interrupted => Some(format!(
                "the code ran longer than its timeout of {seconds} s and was interrupted; the kernel keeps its state"
            )),
            Ending::Stuck if self.cancelled => Some(format!(
                "cancelled: the code ignored the interrupt for 5 s, so the kernel was stopped: {lost}"
            )),
            Ending::Stuck => Some(format!(
                "the code ran longer than its timeout of {seconds} s and ignored the interrupt for 5 s, so the \
                 kernel was stopped: {lost}"
            )),
            Ending::Died(_) => {
                let words = &self.cause;
                let said = if self.last_words.is_empty() { "" } else { "\n" };
                Some(format!("the kernel died while the code ran ({words}): {lost}{said}{}", self.last_words))
            }
            Ending::Broken(why) => Some(format!("the kernel could not be used any more ({why}): {lost}")),
            Ending::Left => Some(format!("the code ended its kernel: {lost}")),
            Ending::Replaced(Wish::Restart) => {
                Some(format!("the kernel was restarted on request while the code ran: {lost}"))
            }
            Ending::Replaced(Wish::Stop) => Some(format!(
                "the kernel was stopped on request while the code ran: variables are lost, and the next call \
                 starts a new kernel (kernel_seq {next})"
            )),
        };
        let answer = PythonExecResponse {
            success: error.is_none(),
            data: PythonData {
                execution_count,
                output: PythonOutput { text: output.clone(), images, results },
            },
            output,
            error,
            error_detail: detail,
            execution_id: execution.context().id.clone(),
            execution_time_ms: millis(self.took),
            queued_ms: millis(self.queued),
            session_seq: execution.context().session_seq,
            kernel_seq: next,
            timed_out: !self.cancelled && matches!(self.ending, Ending::Interrupted | Ending::Stuck),
            truncated,
            code,
        };
        // Our own type always serialises.
        serde_json::to_value(answer).unwrap_or_default()
    }
}
