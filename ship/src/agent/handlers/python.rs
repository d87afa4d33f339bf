//! `python`: what each route does with its request.

use bay_ship_api::http::PythonExecRequest;
use hyper::Request;
use hyper::body::Incoming;

use super::executions::Wanted;
use crate::agent::Ship;
use crate::agent::http::{Answer, body, ok};
use crate::agent::routes::unsupported;

pub(in crate::agent) async fn exec(ship: &Ship, request: Request<Incoming>) -> Answer {
    let python = ship.python.as_ref().ok_or_else(|| unsupported("python"))?;
    let wanted = Wanted::of(request.headers())?;
    let request: PythonExecRequest = body(request).await?;
    let wanted = wanted.waiting(&request.waiting)?;
    wanted.run(ship, "python", &request.clone(), |execution| python.exec(request, execution)).await
}

pub(in crate::agent) async fn status(ship: &Ship) -> Answer {
    ok(&ship.python.as_ref().ok_or_else(|| unsupported("python"))?.kernel_status())
}

pub(in crate::agent) async fn restart(ship: &Ship) -> Answer {
    ok(&ship.python.as_ref().ok_or_else(|| unsupported("python"))?.restart().await?)
}

pub(in crate::agent) async fn stop(ship: &Ship) -> Answer {
    ok(&ship.python.as_ref().ok_or_else(|| unsupported("python"))?.stop().await?)
}
