//! Bytes both ways between a client's WebSocket and a runtime's, each direction at the pace of its reader.
//!
//! ```text
//! client ── at most 16 KiB ──▶ runtime
//!        ◀── at most 16 KiB ── runtime     frames are walked, so that Bay's own close stands between two
//! ```

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frames::{self, Frames};
use super::upgrade::{Close, Endings};

/// Kept of each direction.
const PIECE: usize = 16 << 10;
/// A client that sends nothing for so long has gone without a word: the runtime pings every 20 s, and a pong is
/// something.
const SILENCE: Duration = Duration::from_secs(75);
/// How long the last words may take on their way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why it is over.
enum Over {
    /// The runtime closes in due form; its close frame has not been passed on.
    Closed,
    ClientGone,
    RuntimeGone,
    /// Bay ends it.
    Ended(Close),
}

/// From the runtime to the client.
struct Down {
    /// Read, and not yet written.
    pending: BytesMut,
    /// Of what has been written.
    frames: Frames,
    bytes: u64,
}

/// Carries until one side, or Bay, ends it. Returns the bytes that went to the client and how it ended, in the words of
/// a `forward-end`.
pub(super) async fn relay<C, R>(client: C, runtime: R, endings: &dyn Endings) -> (u64, &'static str)
where
    C: AsyncRead + AsyncWrite + Send,
    R: AsyncRead + AsyncWrite + Send,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_runtime, mut to_runtime) = tokio::io::split(runtime);
    let mut down = Down { pending: BytesMut::with_capacity(PIECE), frames: Frames::default(), bytes: 0 };
    let over = tokio::select! {
        over = up(&mut from_client, &mut to_runtime) => over,
        over = down.run(&mut from_runtime, &mut to_client) => over,
        close = endings.must_end() => Over::Ended(close),
    };
    let (last, end) = match over {
        Over::ClientGone => return (down.bytes, "client_gone"),
        Over::Ended(close) => (frames::close(close.code, close.reason), "complete"),
        Over::Closed => {
            // The session's end looks to the runtime like its shell's.
            let own = endings.why_gone().await.map(|close| frames::close(close.code, close.reason));
            let theirs = timeout(LAST_WORDS, down.close_frame(&mut from_runtime)).await.ok().flatten();
            (own.or(theirs).unwrap_or_else(|| frames::close(1011, "the runtime went away")), "complete")
        }
        Over::RuntimeGone => {
            let close = endings.why_gone().await;
            let close = close.unwrap_or(Close { code: 1011, reason: "the runtime went away" });
            (frames::close(close.code, close.reason), "runtime_gone")
        }
    };
    // The runtime's side goes first: what runs there is over.
    drop((from_runtime, to_runtime));
    let said = async {
        down.finish(&mut to_client, &last).await?;
        // Closing with something unread would take the last words along.
        let mut rest = [0; 1 << 10];
        while from_client.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that does not listen has gone.
    let _best_effort = timeout(LAST_WORDS, said).await;
    (down.bytes, end)
}

/// From the client to the runtime, whatever it is: the runtime knows the frames.
async fn up(client: &mut (impl AsyncRead + Unpin), runtime: &mut (impl AsyncWrite + Unpin)) -> Over {
    let mut piece = vec![0; PIECE];
    loop {
        let count = match timeout(SILENCE, client.read(&mut piece)).await {
            Err(_) => return Over::Ended(Close { code: 4408, reason: "nothing was heard for too long" }),
            Ok(Ok(0) | Err(_)) => return Over::ClientGone,
            Ok(Ok(count)) => count,
        };
        let written = async {
            runtime.write_all(piece.get(..count).unwrap_or_default()).await?;
            runtime.flush().await
        };
        if written.await.is_err() {
            // The other direction reads what the runtime had to say, and then its end.
            return std::future::pending().await;
        }
    }
}

impl Down {
    /// May be dropped at any point: what was written is known.
    async fn run(
        &mut self,
        runtime: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Over {
        loop {
            if self.pending.is_empty() {
                self.pending.reserve(PIECE);
                match runtime.read_buf(&mut self.pending).await {
                    Ok(0) | Err(_) => return Over::RuntimeGone,
                    Ok(_) => {}
                }
            }
            match self.frames.before_close(&self.pending) {
                0 => return Over::Closed,
                some => match self.write(client, some).await {
                    Ok(()) => {}
                    Err(_) => return Over::ClientGone,
                },
            }
        }
    }

    /// Some of the first `most` pending bytes.
    async fn write(&mut self, client: &mut (impl AsyncWrite + Unpin), most: usize) -> std::io::Result<()> {
        let written = client.write(self.pending.get(..most).unwrap_or_default()).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.frames.pass(self.pending.get(..written).unwrap_or_default());
        self.pending.advance(written);
        self.bytes += written as u64;
        client.flush().await
    }

    /// The runtime's close frame, which comes next; none where it is not whole or not as a server sends it.
    async fn close_frame(&mut self, runtime: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
        loop {
            if let [_, length, ..] = *self.pending {
                let whole = 2 + usize::from(length);
                if length > 125 {
                    return None;
                }
                if let Some(frame) = self.pending.get(..whole) {
                    return Some(frame.to_vec());
                }
            }
            if runtime.read_buf(&mut self.pending).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// What is left of the frame under way, then `last`. Where that frame cannot be had whole, nothing can be said.
    async fn finish(&mut self, client: &mut (impl AsyncWrite + Unpin), last: &[u8]) -> std::io::Result<()> {
        while !self.frames.between() {
            let rest = self.frames.rest(&self.pending);
            if rest == 0 {
                return client.shutdown().await;
            }
            self.write(client, rest).await?;
        }
        client.write_all(last).await?;
        client.flush().await?;
        client.shutdown().await
    }
}
