//! A runtime's body on its way to the client, at the client's pace.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// How long a client may take nothing of a forwarded body before it counts as gone.
const STALL: Duration = Duration::from_secs(60);

/// Streams a body; the client's pace is the runtime's. Returns bytes passed on and how it ended.
pub(super) async fn pump<B>(
    mut body: B,
    chunks: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> (u64, &'static str)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut bytes = 0u64;
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(STALL, body.frame()) => frame,
            // Noticed also while nothing comes: the runtime may have to stop what nobody waits for.
            () = chunks.closed() => return (bytes, "client_gone"),
        };
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return (bytes, "complete"),
            Ok(Some(Err(_))) | Err(_) => {
                let broke = std::io::Error::other("the runtime went away mid-answer");
                // The client learns by the broken connection; when it is gone too, nobody is left to tell.
                let _gone = chunks.send_timeout(Err(broke), STALL).await;
                return (bytes, "runtime_gone");
            }
        };
        let Some(data) = Frame::into_data(frame).ok() else { continue };
        let len = data.len() as u64;
        if chunks.send_timeout(Ok(data), STALL).await.is_err() {
            return (bytes, "client_gone");
        }
        bytes += len;
    }
}
