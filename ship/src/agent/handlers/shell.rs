//! `shell`: what each route does with its request.

use bay_ship_api::http::ShellExecRequest;
use hyper::Request;
use hyper::body::Incoming;

use super::executions::Wanted;
use crate::agent::Ship;
use crate::agent::http::{Answer, body};
use crate::agent::routes::unsupported;

pub(in crate::agent) async fn exec(ship: &Ship, request: Request<Incoming>) -> Answer {
    let shell = ship.shell.as_ref().ok_or_else(|| unsupported("shell"))?;
    let wanted = Wanted::of(request.headers())?;
    let request: ShellExecRequest = body(request).await?;
    let wanted = wanted.waiting(&request.waiting)?;
    if let Some(cwd) = request.cwd.clone() {
        let files = ship.files.clone();
        ship.pool.run(move || files.check_directory("cwd", &cwd)).await?;
    }
    wanted.run(ship, "shell", &request.clone(), |execution| shell.exec(request, execution)).await
}
