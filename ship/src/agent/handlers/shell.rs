//! `shell`: what each route does with its request.

use std::time::Duration;

use bay_ship_api::http::{ProcessList, ShellExecRequest, StdinRequest};
use hyper::Request;
use hyper::body::Incoming;

use super::executions::Wanted;
use crate::agent::Ship;
use crate::agent::error::Failure;
use crate::agent::http::{Answer, Query, body, ok};
use crate::agent::routes::unsupported;
use crate::execution::Stream;
use crate::shell::{DEFAULT_READ, MAX_READ, MAX_WAIT, MIN_READ, ReadRequest, Shell};

fn shell(ship: &Ship) -> Result<&Shell, Failure> {
    ship.shell.as_ref().ok_or_else(|| unsupported("shell"))
}

pub(in crate::agent) async fn exec(ship: &Ship, request: Request<Incoming>) -> Answer {
    let shell = shell(ship)?;
    let wanted = Wanted::of(request.headers())?;
    let request: ShellExecRequest = body(request).await?;
    let wanted = wanted.waiting(&request.waiting)?;
    if let Some(cwd) = request.cwd.clone().filter(|_| !wanted.is_repeated(ship)) {
        let files = ship.files.clone();
        ship.pool.run(move || files.check_directory("cwd", &cwd)).await?;
    }
    wanted.run(ship, "shell", &request.clone(), |execution| shell.exec(request, execution)).await
}

pub(in crate::agent) async fn processes(ship: &Ship) -> Answer {
    ok(&ProcessList { processes: shell(ship)?.processes() })
}

pub(in crate::agent) async fn output(ship: &Ship, request: Request<Incoming>, id: &str) -> Answer {
    let query = Query::of(&request)?;
    let limit = query.number::<usize>("limit")?.unwrap_or(DEFAULT_READ);
    if !(MIN_READ..=MAX_READ).contains(&limit) {
        return Err(Failure::field("limit", format!("must be from {MIN_READ} to {MAX_READ} bytes")));
    }
    let wait = query.number::<u64>("wait")?.unwrap_or(0);
    if wait > MAX_WAIT {
        return Err(Failure::field("wait", format!("must be from 0 to {MAX_WAIT} seconds")));
    }
    let read = ReadRequest {
        stream: Stream::parse(query.text("stream").unwrap_or("stdout"))?,
        offset: query.number("offset")?.unwrap_or(0),
        limit,
        base64: match query.text("encoding") {
            None | Some("utf-8") => false,
            Some("base64") => true,
            Some(_) => return Err(Failure::field("encoding", "must be utf-8 or base64")),
        },
        wait: Duration::from_secs(wait),
    };
    ok(&shell(ship)?.read(id, &read).await?)
}

pub(in crate::agent) async fn stdin(ship: &Ship, request: Request<Incoming>, id: &str) -> Answer {
    let request: StdinRequest = body(request).await?;
    ok(&shell(ship)?.write(id, &request).await?)
}

pub(in crate::agent) async fn stop(ship: &Ship, id: &str) -> Answer {
    ok(&shell(ship)?.stop(id).await?)
}
