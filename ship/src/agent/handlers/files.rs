//! `filesystem`: what each route does with its request.

use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::{
    DeleteFileRequest, EditFileRequest, ListDirRequest, MakeDirRequest, MoveRequest, MoveResponse,
    ReadFileRequest, StatRequest, WriteFileRequest,
};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::agent::Ship;
use crate::agent::body::{Body, FileRange};
use crate::agent::error::{Code, Failure};
use crate::agent::handlers::archive;
use crate::agent::http::{Answer, Query, body, json_response, ok, percent_encode, quoted};
use crate::agent::range::Range;
use crate::files::pool::Disposed;
use crate::files::{Removal, Walk};

/// Listings and deletions at once, each with up to 64 directories open and a page of entries in memory.
static WALKS: Semaphore = Semaphore::const_new(6);
/// How long others wait.
const WALK_PATIENCE: Duration = Duration::from_secs(60);

pub(in crate::agent) async fn read(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: ReadFileRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.read_file(&request)).await?)
}

pub(in crate::agent) async fn write(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: WriteFileRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.write_file(&request)).await?)
}

pub(in crate::agent) async fn create(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: WriteFileRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.create_file(&request)).await?)
}

pub(in crate::agent) async fn edit(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: EditFileRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.edit_file(&request)).await?)
}

pub(in crate::agent) async fn make_dir(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: MakeDirRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.make_dir(&request)).await?)
}

pub(in crate::agent) async fn rename(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: MoveRequest = body(request).await?;
    let files = ship.files.clone();
    let MoveRequest { from, to, .. } = request.clone();
    ship.pool.run(move || files.move_file(&request)).await?;
    ok(&MoveResponse { status: "ok".to_owned(), from, to })
}

pub(in crate::agent) async fn stat(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: StatRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.stat(&request)).await?)
}

pub(in crate::agent) async fn delete(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: DeleteFileRequest = body(request).await?;
    let files = ship.files.clone();
    let _place = place_to_walk().await?;
    let removal = ship.pool.run(move || files.delete_file(&request)).await?;
    ship.pool.slices(removal, Removal::slice).await?;
    ok(&json!({"status": "ok"}))
}

pub(in crate::agent) async fn list(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: ListDirRequest = body(request).await?;
    let files = ship.files.clone();
    let _place = place_to_walk().await?;
    let walk = ship.pool.run(move || files.list_dir(&request)).await?;
    ok(&ship.pool.slices(walk, Walk::slice).await?)
}

/// A place among [`WALKS`].
async fn place_to_walk() -> Result<SemaphorePermit<'static>, Failure> {
    match timeout(WALK_PATIENCE, WALKS.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(Failure::new(Code::Busy, "too many directories are being listed or deleted")),
    }
}

pub(in crate::agent) async fn download(ship: &Arc<Ship>, request: Request<Incoming>) -> Answer {
    let path = Query::of(&request)?.required("path")?.to_owned();
    let files = ship.files.clone();
    let opened = ship.pool.run({
        let path = path.clone();
        move || files.open_download(&path)
    });
    let file = match opened.await {
        Err(failure) if failure.code == Code::IsADirectory => {
            return archive::download_directory(ship, path).await;
        }
        opened => opened?,
    };
    let (size, etag, name) = (file.size, quoted(&file.etag), percent_encode(&file.name));
    let file = Arc::new(Disposed::new(file, ship.pool.clone()));
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    // A range of an older version would not fit what was read of it.
    let fresh = request.headers().get(header::IF_RANGE).is_none_or(|tag| *tag == etag);
    let part = range.filter(|_| fresh).map(|range| Range::parse(range, size));
    let (status, offset, length) = match part {
        None | Some(Range::Whole) => (StatusCode::OK, 0, size),
        Some(Range::Part(offset, length)) => (StatusCode::PARTIAL_CONTENT, offset, length),
        Some(Range::Outside) => {
            let mut failure = Failure::new(Code::RangeNotSatisfiable, "the range lies outside the file");
            failure.details = json!({"size": size});
            let (status, body) = failure.body();
            let mut response = json_response(status, &body);
            let value = HeaderValue::from_str(&format!("bytes */{size}")).ok();
            response.headers_mut().extend(value.map(|value| (header::CONTENT_RANGE, value)));
            return Ok(response);
        }
    };
    let mut response = Response::new(Body::File(FileRange::new(file, ship.pool.clone(), offset, length)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ETAG, etag);
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {offset}-{}/{}", offset + length - 1, size);
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    headers
        .extend(HeaderValue::from_str(&disposition).ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(response)
}
