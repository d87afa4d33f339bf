//! An execution's events as a body that is sent while they come.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::live::{Execution, gap};
use crate::agent::body::Cut;
use crate::agent::sse;

/// Bytes of events handed over at once.
const BATCH: usize = 64 << 10;
/// Batches between us and the connection.
const WAITING: usize = 2;

/// Sends every event after number `seen`. `held` is dropped when the last one is sent or the client is gone.
pub(crate) fn stream(
    execution: &Arc<Execution>,
    seen: u64,
    held: impl Send + 'static,
) -> mpsc::Receiver<Result<Bytes, Cut>> {
    let (send, receive) = mpsc::channel(WAITING);
    let mut reader = execution.reader(seen);
    tokio::spawn(async move {
        let _held = held;
        let mut seen = seen;
        loop {
            let (page, over) = reader.next(seen, BATCH);
            // Also for one who has seen what is yet to come: from there on nothing is missing.
            seen = page.last;
            if page.events.is_empty() && page.gap.is_none() {
                if over {
                    return;
                }
                let silent = tokio::select! {
                    quiet = timeout(sse::KEEP_AWAKE, reader.changed()) => quiet.is_err(),
                    () = send.closed() => return,
                };
                if silent && send.send(Ok(sse::comment())).await.is_err() {
                    return;
                }
                continue;
            }
            let mut batch = Vec::new();
            if let Some((first, last)) = page.gap {
                batch.extend_from_slice(&gap(first, last));
            }
            page.events.iter().for_each(|event| batch.extend_from_slice(event));
            if send.send(Ok(batch.into())).await.is_err() {
                return;
            }
            if over {
                return;
            }
            reader.progressed(seen);
        }
    });
    receive
}
