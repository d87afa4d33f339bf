//! `GET …/terminal/ws`: a WebSocket that is carried to the runtime as it is.
//!
//! What can be refused is refused before the switch of protocols, as any call is: with a status and an error. What ends
//! a terminal afterwards is said by the code of its close frame:
//!
//! | code | why |
//! |---|---|
//! | 1000 | the shell has ended |
//! | 1001 | Bay is ending; the sandbox stays |
//! | 1011 | the runtime went away |
//! | 4401 | the key or token that opened it has been revoked or has run out |
//! | 4404 | the sandbox has been deleted |
//! | 4408 | nothing was heard of the client for 75 s, not even the answer to a ping |
//! | 4409 | the sandbox has been stopped, or has expired |

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};

use super::{Ids, capability, files};
use crate::app::App;
use crate::auth::OpContext;
use crate::edge::caller::Guest;
use crate::edge::credential::LetInBy;
use crate::edge::openapi::refusals;
use crate::edge::server::Ending;
use crate::edge::websocket::Handshake;
use crate::error::{ApiError, Code};
use crate::runtime::{CallerRequest, ClientUpgrade, Close, Endings};
use crate::session::Phase;
use crate::store::SandboxStatus;
use crate::time::now_ms;

const CAPABILITY: &str = "terminal";

refusals!(Terminal: ValidationError, CapabilityNotSupported, DeniedByRule, NotFound, SandboxExpired, QuotaExceeded, Busy, RuntimeError, PluginError, SessionNotReady, Timeout);

/// Opens a terminal: a WebSocket with a login shell
///
/// Subprotocol `bay.terminal.v1`: binary frames are data both ways; text frames are JSON, `{"type":"resize","cols",
/// "rows"}` from the client, `{"type":"exit","code"}` from the server. A browser offers `bay.terminal.v1,
/// bearer.<sandbox token>`. Without the subprotocol, text from the client is input, except a resize.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/terminal/ws", tag = "terminal", params(("id" = String, Path, description = "`sbx_…`"), ("cols" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "default: 80"), ("rows" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "default: 24"), ("term" = Option<String>, Query, description = "default: `xterm-256color`")), responses((status = 101, description = "a WebSocket from here on"), Terminal))]
pub async fn ws(
    State(app): State<Arc<App>>,
    Guest(context): Guest,
    Ids(id): Ids<String>,
    RawQuery(raw): RawQuery,
    mut request: Request,
) -> Response {
    let credential = request.extensions().get::<LetInBy>().cloned().unwrap_or_default();
    let ending = request.extensions().get::<Ending>().cloned();
    let asked = async {
        let input = files::typed_input(&app, &context, &id, raw.as_deref(), CAPABILITY, "ws").await?;
        Ok((input, Handshake::of(&mut request)?))
    };
    let (input, handshake) = match asked.await {
        Ok(asked) => asked,
        Err(error) => return ApiError::into_response(error),
    };
    let endings =
        Terminated { app: Arc::clone(&app), context: context.clone(), id: id.clone(), credential, ending };
    let upgrade = ClientUpgrade {
        connection: handshake.connection,
        key: handshake.key,
        protocols: handshake.protocols,
        endings: Box::new(endings),
    };
    let caller = CallerRequest { upgrade: Some(upgrade), ..CallerRequest::default() };
    capability::run_with(&app, &context, id, CAPABILITY, "ws", input, caller).await
}

/// What Bay knows of a terminal's end.
struct Terminated {
    app: Arc<App>,
    context: OpContext,
    id: String,
    credential: LetInBy,
    ending: Option<Ending>,
}

#[async_trait]
impl Endings for Terminated {
    async fn must_end(&self) -> Close {
        let ending = async {
            match &self.ending {
                Some(Ending(token)) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.credential.is_over(&self.app) => {
                Close { code: 4401, reason: "the credential is good no longer" }
            }
            () = ending => Close { code: 1001, reason: "Bay is ending" },
        }
    }

    async fn why_gone(&self) -> Option<Close> {
        let row = self.app.store.get_sandbox(&self.context.tenant, &self.id).await;
        match row.map_err(ApiError::from) {
            Err(error) if error.code == Code::NotFound => {
                return Some(Close { code: 4404, reason: "the sandbox has been deleted" });
            }
            Ok(row) if row.status(now_ms()) == SandboxStatus::Expired => {
                return Some(Close { code: 4409, reason: "the sandbox has expired" });
            }
            Ok(_) | Err(_) => {}
        }
        match self.app.sessions.view(&self.id).phase {
            Phase::Idle | Phase::Stopping | Phase::Starting => {
                Some(Close { code: 4409, reason: "the sandbox has been stopped" })
            }
            Phase::Ready | Phase::Failed | Phase::Lost => None,
        }
    }
}
