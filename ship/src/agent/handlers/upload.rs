//! `POST /fs/upload`: a raw body that goes to the disk as it arrives.
//!
//! Two pieces exist at once: while one is written the next is collected, and no more is read from the connection
//! before both are done.

use std::time::Duration;

use bay_ship_api::http::MAX_UPLOAD;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::agent::Ship;
use crate::agent::error::{Code, Failure};
use crate::agent::http::{Answer, Query, ok};
use crate::files::pool::{Disposed, Pool};
use crate::files::upload::{Upload, UploadRequest, too_large};

/// Written at once: a thread is asked for once a piece.
const PIECE: usize = 256 << 10;
/// Longest wait for more of a body: a sender that stalls must not keep its place, and its file, for ever.
const IDLE: Duration = Duration::from_secs(60);
/// Uploads at once, each with two pieces in memory; others wait with their bodies unread.
static PLACES: Semaphore = Semaphore::const_new(8);
/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what is left of a refused body is read and thrown away, so that its sender gets to the answer: closing
/// a TCP connection with unread bytes would take the answer along.
const LINGER: Duration = Duration::from_secs(10);

pub(in crate::agent) async fn upload(ship: &Ship, request: Request<Incoming>) -> Answer {
    let (parts, mut body) = request.into_parts();
    // Who waits to be asked for the body has not sent any.
    let sends = !parts.headers.contains_key(header::EXPECT);
    let answer = take(ship, &Request::from_parts(parts, ()), &mut body).await;
    if answer.is_err() && sends {
        tokio::spawn(timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
    answer
}

async fn take(ship: &Ship, request: &Request<()>, body: &mut Incoming) -> Answer {
    let query = Query::of(request)?;
    let wanted = UploadRequest {
        path: query.required("path")?.to_owned(),
        mode: query.number("mode")?,
        if_match: query.text("if_match").map(str::to_owned),
    };
    let head = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if head(header::CONTENT_TYPE).is_some_and(|kind| kind != "application/octet-stream") {
        let message = "an upload is the bytes of the file, as application/octet-stream";
        return Err(Failure::new(Code::UnsupportedMediaType, message));
    }
    let length = head(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_UPLOAD) {
        return Err(too_large());
    }
    let _place = match timeout(PATIENCE, PLACES.acquire()).await {
        Ok(Ok(place)) => place,
        _ => return Err(Failure::new(Code::Busy, "too many uploads at once")),
    };
    let files = ship.files.clone();
    let upload = ship.pool.run(move || files.begin_upload(wanted)).await?;
    let upload = Disposed::new(upload, ship.pool.clone());
    let upload = receive(&ship.pool, upload, body).await?;
    ok(&ship.pool.go_on(move || upload.into_inner()?.finish()).await?)
}

/// Writes the whole body. A failure drops the upload, and with it what was written.
async fn receive(
    pool: &Pool,
    mut upload: Disposed<Upload>,
    body: &mut Incoming,
) -> Result<Disposed<Upload>, Failure> {
    let mut piece = collect(body, Vec::with_capacity(PIECE)).await?;
    let mut spare = Vec::with_capacity(PIECE);
    while !piece.is_empty() {
        let write = pool.go_on(move || {
            upload.get_mut()?.write(&piece)?;
            piece.clear();
            Ok((upload, piece))
        });
        // What fails first is told at once: a full disk does not wait for a slow sender.
        let ((back, written), next) = tokio::try_join!(write, collect(body, spare))?;
        (upload, spare, piece) = (back, written, next);
    }
    Ok(upload)
}

/// Fills a piece; one that is empty is the end. The bytes are copied, because what hyper hands out may be a few
/// bytes that keep a large buffer alive.
async fn collect(body: &mut Incoming, mut piece: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let broken = || Failure::new(Code::ValidationError, "the body did not arrive whole");
    while piece.len() < PIECE {
        match timeout(IDLE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => piece.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(_))) | Err(_) => return Err(broken()),
        }
    }
    Ok(piece)
}
