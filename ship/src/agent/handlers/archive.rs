//! `filesystem`: archives in, directories out.

use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::{ArchiveResponse, MAX_ARCHIVE};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::agent::Ship;
use crate::agent::body;
use crate::agent::error::{Code, Failure};
use crate::agent::http::{Answer, Query, ok, percent_encode};
use crate::agent::shared::Shared;
use crate::files::archive::{Incoming, too_large};
use crate::files::pool::Disposed;

/// Archives on their way in at once: descriptors, and disk for what is not yet merged.
const MAX_IN: usize = 4;
/// Of these, unpacked at once: the pool's other threads stay free for others' files.
const MAX_UNPACKING: usize = 1;
/// Directories on their way out at once: up to 64 descriptors each.
const MAX_OUT: usize = 4;
/// The longest pause within a body. A sender that stops would hold its place for ever.
const STALL: Duration = Duration::from_secs(60);
/// The whole body. One that trickles would, too.
const MAX_SENDING: Duration = Duration::from_secs(3600);
/// Taken of a body that is refused already: bytes, and time.
const MAX_DRAINED: usize = 16 << 20;
const DRAINING: Duration = Duration::from_secs(5);
/// Collected of the body before a thread writes it.
const PIECE: usize = 256 << 10;
/// Pieces made ahead of a slow reader.
const AHEAD: usize = 1;

/// Places for archives.
pub(in crate::agent) struct Archives {
    incoming: Arc<Semaphore>,
    unpacking: Arc<Semaphore>,
    outgoing: Arc<Semaphore>,
}

impl Archives {
    pub(in crate::agent) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { incoming: places(MAX_IN), unpacking: places(MAX_UNPACKING), outgoing: places(MAX_OUT) }
    }
}

/// `POST /fs/archive?path`.
pub(in crate::agent) async fn upload(ship: &Arc<Ship>, request: Request<Body>) -> Answer {
    let wanted = wanted(ship, &request);
    let mut body = request.into_body();
    let (path, gzip, place) = match wanted {
        Ok(wanted) => wanted,
        Err(failure) => {
            drain(&mut body).await;
            return Err(failure);
        }
    };
    let ship = Arc::clone(ship);
    // A task of its own: when the client goes, what was begun is still brought to an end and cleaned up.
    let work = tokio::spawn(async move {
        let _place = place;
        let done = take_in(&ship, path, gzip, &mut body).await;
        if done.is_err() {
            drain(&mut body).await;
        }
        done
    });
    ok(&work.await.map_err(|_| Failure::new(Code::RuntimeError, "the archive was lost"))??)
}

/// What the head asks for, and a place for it.
fn wanted(ship: &Ship, request: &Request<Body>) -> Result<(String, bool, OwnedSemaphorePermit), Failure> {
    let path = Query::of(request)?.required("path")?.to_owned();
    let gzip = announced_gzip(request)?;
    if request.body().size_hint().lower() > MAX_ARCHIVE {
        return Err(too_large());
    }
    let place = Arc::clone(&ship.archives.incoming).try_acquire_owned();
    let place = place.map_err(|_| Failure::new(Code::Busy, "too many archives are being taken in"))?;
    Ok((path, gzip, place))
}

/// Takes what is still coming of a refused body, within reason: a sender that is cut off while it sends may never see
/// the answer.
async fn drain(body: &mut Body) {
    let mut taken = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > MAX_DRAINED {
                break;
            }
        }
    };
    // Either way it has been given its chance.
    let _ = timeout(DRAINING, all).await;
}

/// Whether the body is said to be compressed.
fn announced_gzip(request: &Request<Body>) -> Result<bool, Failure> {
    let given = request.headers().get(header::CONTENT_TYPE);
    let given = given.map(|value| value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim());
    match given.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "application/x-tar" | "application/tar" | "application/octet-stream") => Ok(false),
        Some("application/gzip" | "application/x-gzip" | "application/x-gtar-compressed") => Ok(true),
        Some(_) => Err(Failure::new(
            Code::UnsupportedMediaType,
            "an archive comes as application/x-tar, application/gzip or application/octet-stream",
        )),
    }
}

async fn take_in(ship: &Ship, path: String, gzip: bool, body: &mut Body) -> Result<ArchiveResponse, Failure> {
    let files = ship.files.clone();
    let incoming = ship.pool.run(move || files.take_archive(&path)).await?;
    let incoming = Shared::new(&ship.pool, incoming);
    let done = match timeout(MAX_SENDING, spool(&incoming, body)).await {
        Ok(Ok(())) => unpack(ship, &incoming, gzip).await,
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::new(Code::ValidationError, "the body took too long")),
    };
    incoming.end().await;
    done
}

/// Writes the body to its spool.
async fn spool(incoming: &Shared<Incoming>, body: &mut Body) -> Result<(), Failure> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        let frame = timeout(STALL, body.frame())
            .await
            .map_err(|_| Failure::new(Code::ValidationError, "the body stopped coming"))?;
        let last = frame.is_none();
        if let Some(frame) = frame {
            let frame =
                frame.map_err(|_| Failure::new(Code::ValidationError, "the body did not arrive whole"))?;
            if let Ok(data) = frame.into_data() {
                piece.extend_from_slice(&data);
            }
        }
        if piece.len() >= PIECE || (last && !piece.is_empty()) {
            let full = Bytes::from(std::mem::replace(&mut piece, Vec::with_capacity(PIECE)));
            incoming.run(move |incoming| incoming.spool(&full)).await?;
        }
        if last {
            return Ok(());
        }
    }
}

async fn unpack(ship: &Ship, incoming: &Shared<Incoming>, gzip: bool) -> Result<ArchiveResponse, Failure> {
    let turn = ship.archives.unpacking.acquire().await;
    let _turn = turn.map_err(|_| Failure::new(Code::RuntimeError, "the archive was lost"))?;
    incoming.run(move |incoming| incoming.received(gzip)).await?;
    while !incoming.run(Incoming::unpack).await? {}
    incoming.run(Incoming::merge).await
}

/// `GET /fs/download?path` of a directory.
pub(in crate::agent) async fn download_directory(ship: &Arc<Ship>, path: String) -> Answer {
    let place = Arc::clone(&ship.archives.outgoing)
        .try_acquire_owned()
        .map_err(|_| Failure::new(Code::Busy, "too many directories are being downloaded"))?;
    let files = ship.files.clone();
    let packing = ship.pool.run(move || files.pack(&path)).await?;
    let name = format!("{}.tar", packing.name);
    let pool = ship.pool.clone();
    let mut packing = Disposed::new(packing, pool.clone());
    let (pieces, body) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _place = place;
        // A thread is taken for one piece only: a slow reader holds none.
        while let Ok(room) = pieces.reserve().await {
            match pool.go_on(move || Ok((packing.get_mut()?.piece()?, packing))).await {
                Ok((Some(piece), rest)) => {
                    packing = rest;
                    if !piece.is_empty() {
                        room.send(Ok(Bytes::from(piece)));
                    }
                }
                Ok((None, _)) => return,
                Err(_) => {
                    room.send(Err(body::Cut));
                    return;
                }
            }
        }
    });
    let mut response = Response::new(body::Body::Stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let disposition = format!("attachment; filename*=UTF-8''{}", percent_encode(&name));
    headers
        .extend(HeaderValue::from_str(&disposition).ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(response)
}
