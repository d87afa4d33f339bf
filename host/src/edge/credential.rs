//! What a request was let in by. What it opens goes on for as long as that is good, and no longer: a revoked key must
//! not keep a shell, nor a token that has run out a stream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt as _;
use http::header;

use crate::app::App;
use crate::credentials::Holder;
use crate::error::{ApiResult, Code};

/// How often it is asked whether a credential is still good.
const RECHECK: Duration = Duration::from_secs(5);

/// A credential as it came. In memory only, and never shown.
#[derive(PartialEq, Eq)]
pub enum Credential {
    /// An API key.
    Key(String),
    /// A sandbox token.
    Token(String),
}

impl Credential {
    /// Whose it is, if it is good now.
    pub async fn holder(&self, app: &App) -> ApiResult<Holder> {
        match self {
            Self::Key(text) => app.authenticate_key(text).await,
            Self::Token(text) => app.authenticate_token(text).await,
        }
    }
}

/// What this request was let in by; nothing, where anybody is.
#[derive(Clone, Default)]
pub struct LetInBy(Option<Arc<Credential>>);

impl LetInBy {
    /// By this.
    pub fn new(credential: Option<Credential>) -> Self {
        Self(credential.map(Arc::new))
    }

    /// Waits until it is good no longer. A store that cannot be asked ends nothing.
    pub async fn is_over(&self, app: &App) {
        let Some(credential) = &self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(RECHECK).await;
            if credential.holder(app).await.is_err_and(|error| error.code == Code::Unauthorized) {
                return;
            }
        }
    }

    /// The same answer, but a stream of events ends with the credential: without an event that says so, as when Bay
    /// itself ends.
    pub fn bound(self, app: Arc<App>, response: Response) -> Response {
        let kind = response.headers().get(header::CONTENT_TYPE);
        if self.0.is_none() || !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return response;
        }
        response.map(|body| {
            let over = async move { self.is_over(&app).await };
            Body::from_stream(body.into_data_stream().take_until(Box::pin(over)))
        })
    }
}
