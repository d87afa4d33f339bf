//! `filesystem`: changes as server-sent events.

use std::future::ready;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::WatchEvent;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, interval_at, sleep, timeout};

use crate::agent::Ship;
use crate::agent::body::Cut;
use crate::agent::error::{Code, Failure};
use crate::agent::http::{Answer, Query};
use crate::agent::shared::Shared;
use crate::agent::sse;
use crate::files::watch::{Happened, Watcher, Watches};
use crate::sys;

/// Streams at once: one inotify instance each, of which the kernel gives an id 128.
const MAX_STREAMS: usize = 16;
/// Events that wait for a slow client; past it they are dropped and an `overflow` says so.
const QUEUE: usize = 256;
/// How long the second half of a move is waited for. The kernel writes both within one call.
const HALF: Duration = Duration::from_millis(20);
/// Before watches are set anew: user code that makes the kernel's queue overflow all the time must not have a whole
/// tree looked at without a pause.
const RESCAN: Duration = Duration::from_millis(250);

/// Places for streams, and the count of what they watch.
pub(in crate::agent) struct Watching {
    streams: Arc<Semaphore>,
    all: Arc<Watches>,
}

impl Watching {
    pub(in crate::agent) fn new() -> Self {
        Self { streams: Arc::new(Semaphore::new(MAX_STREAMS)), all: Arc::default() }
    }
}

/// `GET /fs/watch?path&recursive`.
pub(in crate::agent) async fn watch(ship: &Arc<Ship>, request: Request<Incoming>) -> Answer {
    let query = Query::of(&request)?;
    let path = query.text("path").unwrap_or(".").to_owned();
    let recursive = query.flag("recursive")?;
    let place = Arc::clone(&ship.watching.streams)
        .try_acquire_owned()
        .map_err(|_| Failure::new(Code::Busy, "too many watches are running"))?;
    let (files, all) = (ship.files.clone(), Arc::clone(&ship.watching.all));
    let start = move || files.watch(&path, recursive, &all);
    let watcher = ship.pool.run(start.clone()).await?;
    let ready = sys::watch(watcher.queue(), Interest::READABLE)?;
    let watcher = Shared::new(&ship.pool, watcher);
    let (events, body) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut stream = Stream { watcher, ready, events, next_id: 1, overflow: false, _place: place };
        let broken = stream.run(start).await.is_err();
        let Stream { watcher, ready, events, _place, .. } = stream;
        drop(ready);
        watcher.end().await;
        if broken {
            // The break shows that this was no end of what was watched. It waits for room, or for the client to go.
            let _ = events.send(Err(Cut)).await;
        }
    });
    Ok(sse::response(body))
}

/// One client's stream.
struct Stream {
    watcher: Shared<Watcher>,
    ready: AsyncFd<Arc<OwnedFd>>,
    events: Sender<Result<Bytes, Cut>>,
    next_id: u64,
    /// Something was missed that the client has not been told of.
    overflow: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Until the client goes or what is watched is gone.
    async fn run(
        &mut self,
        start: impl FnOnce() -> Result<Watcher, Failure> + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        let mut awake = interval_at(Instant::now() + sse::KEEP_AWAKE, sse::KEEP_AWAKE);
        let (mut half, mut more) = (false, false);
        loop {
            let flush = tokio::select! {
                () = self.events.closed() => return Ok(()),
                room = self.events.reserve(), if self.overflow => {
                    let Ok(room) = room else { return Ok(()) };
                    room.send(Ok(sse::event("overflow", Some(self.next_id), &json!({}))));
                    self.next_id += 1;
                    self.overflow = false;
                    continue;
                }
                _ = awake.tick() => {
                    // A full queue keeps the stream awake by itself.
                    let _ = self.events.try_send(Ok(sse::comment()));
                    continue;
                }
                () = ready(()), if more => false,
                () = sleep(HALF), if half && !more => true,
                guard = self.ready.readable(), if !more => {
                    guard?.clear_ready();
                    false
                }
            };
            let digest = self.watcher.run(move |watcher| watcher.digest(flush)).await?;
            (half, more) = (digest.half, digest.more);
            self.overflow |= digest.overflow;
            self.hand_on(digest.events);
            if let Some(end) = digest.end {
                return self.end(&end).await;
            }
            if digest.stale {
                (half, more) = (false, false);
                self.begin_anew(start.clone()).await?;
            }
        }
    }

    /// Sets all watches anew, after so much was missed that they may be wrong.
    async fn begin_anew(
        &mut self,
        start: impl FnOnce() -> Result<Watcher, Failure> + Clone + Send + 'static,
    ) -> Result<(), Failure> {
        if timeout(RESCAN, self.events.closed()).await.is_ok() {
            // Nobody is there any more: the caller will see that, too.
            return Ok(());
        }
        self.watcher.replace(start).await?;
        let queue = self.watcher.run(|watcher| Ok(watcher.queue())).await?;
        self.ready = sys::watch(queue, Interest::READABLE)?;
        Ok(())
    }

    /// Hands on what there is room for.
    fn hand_on(&mut self, events: Vec<(Happened, WatchEvent)>) {
        for (happened, event) in events {
            // What was missed is told before anything that came after it.
            if self.overflow {
                return;
            }
            match self.events.try_reserve() {
                Ok(room) => {
                    room.send(Ok(sse::event(happened.name(), Some(self.next_id), &event)));
                    self.next_id += 1;
                }
                Err(_) => self.overflow = true,
            }
        }
    }

    /// The last event, which is never dropped.
    async fn end(&mut self, event: &WatchEvent) -> Result<(), Failure> {
        let missed = self.overflow.then(|| sse::event("overflow", Some(self.next_id), &json!({})));
        self.next_id += u64::from(missed.is_some());
        let last = sse::event(Happened::Removed.name(), Some(self.next_id), event);
        for text in missed.into_iter().chain([last]) {
            if self.events.send(Ok(text)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
