//! `filesystem`: what each route does with its request.

use std::sync::Arc;

use bay_ship_api::http::{DeleteFileRequest, ListDirRequest, ReadFileRequest, WriteFileRequest};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use crate::agent::Ship;
use crate::agent::body::{Body, FileRange};
use crate::agent::error::{Code, Failure};
use crate::agent::handlers::archive;
use crate::agent::http::{Answer, Query, body, ok, percent_encode, quoted};
use crate::agent::range::Range;

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

pub(in crate::agent) async fn delete(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: DeleteFileRequest = body(request).await?;
    let files = ship.files.clone();
    ship.pool.run(move || files.delete_file(&request)).await?;
    ok(&json!({"status": "ok"}))
}

pub(in crate::agent) async fn list(ship: &Ship, request: Request<Incoming>) -> Answer {
    let request: ListDirRequest = body(request).await?;
    let files = ship.files.clone();
    ok(&ship.pool.run(move || files.list_dir(&request)).await?)
}

pub(in crate::agent) async fn download(ship: &Arc<Ship>, request: Request<Incoming>) -> Answer {
    let path = Query::of(&request)?.required("path")?.to_owned();
    let files = ship.files.clone();
    let file = match ship
        .pool
        .run({
            let path = path.clone();
            move || files.open_download(&path)
        })
        .await
    {
        Err(failure) if failure.code == Code::IsADirectory => {
            return archive::download_directory(ship, path).await;
        }
        opened => Arc::new(opened?),
    };
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    // A range of an older version would not fit what was read of it.
    let fresh = request.headers().get(header::IF_RANGE).is_none_or(|tag| *tag == quoted(&file.etag));
    let part = range.filter(|_| fresh).map(|range| Range::parse(range, file.size));
    let (status, offset, length) = match part {
        None | Some(Range::Whole) => (StatusCode::OK, 0, file.size),
        Some(Range::Part(offset, length)) => (StatusCode::PARTIAL_CONTENT, offset, length),
        Some(Range::Outside) => {
            let mut failure = Failure::new(Code::RangeNotSatisfiable, "the range lies outside the file");
            failure.details = json!({"size": file.size});
            return Err(failure);
        }
    };
    let mut response =
        Response::new(Body::File(FileRange::new(Arc::clone(&file), ship.pool.clone(), offset, length)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ETAG, quoted(&file.etag));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {offset}-{}/{}", offset + length - 1, file.size);
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (header::CONTENT_RANGE, value)));
    }
    let disposition = format!("attachment; filename*=UTF-8''{}", percent_encode(&file.name));
    headers
        .extend(HeaderValue::from_str(&disposition).ok().map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(response)
}
