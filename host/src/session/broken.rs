//! How a start ends that does not come to its end: calls to the driver that a cancelled start does not wait for, and the
//! removal of what was made.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::env::failure;
use super::registry::Sessions;
use super::start::references;
use super::task::stopped_meanwhile;
use super::unfinished::Call;
use crate::driver::DriverError;
use crate::error::ApiError;
use crate::store::{SandboxRow, SessionRow, Transition};
use crate::time::now_ms;

/// How long a cancelled start waits for what the driver is at: longer than making a container takes, and short
/// enough for a deletion to be done within a second.
const CANCEL_GRACE: Duration = Duration::from_millis(400);

/// A start that did not come to its end.
pub(super) struct Broken {
    pub(super) error: ApiError,
    /// A call to the driver that still runs, since the start was cancelled during it.
    pub(super) late: Option<Call<()>>,
}

impl<E: Into<ApiError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self { error: error.into(), late: None }
    }
}

/// A call to the driver within a start. One that is cancelled gets a moment to end by itself; then it is left to
/// itself rather than dropped, because what an engine was asked to make it goes on to make.
pub(super) async fn unless_cancelled<T: Send + 'static>(
    cancel: &CancellationToken,
    call: impl Future<Output = Result<T, DriverError>> + Send + 'static,
) -> Result<T, Broken> {
    if cancel.is_cancelled() {
        return Err(stopped_meanwhile().into());
    }
    let (send, result) = oneshot::channel();
    let mut call = Call::spawn(async move {
        // Nobody listens any more where the start was cancelled.
        let _late = send.send(call.await);
    });
    let patience = async {
        cancel.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    };
    tokio::select! {
        result = result => match result {
            Ok(result) => Ok(result?),
            // It ended without a word, which only a panic does.
            Err(_) => match (&mut call).await {
                Ok(()) => Err(ApiError::internal("a call to the driver ended without an answer").into()),
                Err(error) => Err(ApiError::internal(error).into()),
            },
        },
        () = patience => Err(Broken { error: stopped_meanwhile(), late: Some(call) }),
    }
}

/// Removes what a failed or cancelled start made, and says how it ended.
pub(super) async fn undo(
    sessions: &Sessions,
    sandbox: &SandboxRow,
    session: &SessionRow,
    error: &ApiError,
    late: Option<Call<()>>,
    cancelled: bool,
) {
    let (env, key) = (sessions.env(), session.key());
    if let Some(late) = late {
        match sessions.unfinished().leave(&session.id, late) {
            Ok(()) => {
                // Over for clients, but not cleaned: what the driver is making is removed when it is made. A
                // deletion has marked it `stopping`, which says the same.
                let step = Transition::Failed(failure(error));
                if let Err(error) = env.transition(sandbox, &key, step).await {
                    tracing::error!(sandbox = %sandbox.id, error = %error.message, "could not end a start");
                }
                return;
            }
            // What came of it is found by its name.
            Err(call) => drop(call.await),
        }
    }
    let undone = async {
        let step = if cancelled {
            Transition::Stopping { reason: "stopped while starting".to_owned() }
        } else {
            Transition::Failed(failure(error))
        };
        env.transition(sandbox, &key, step).await?;
        let current = env.store.get_session(&sandbox.tenant, &session.id).await?;
        // No user code ran yet that would need time to end.
        env.remove(&references(&current), Duration::ZERO).await?;
        if current.state.is_live() {
            env.transition(sandbox, &key, Transition::Ended).await
        } else {
            Ok(env.store.session_cleaned(&sandbox.tenant, &key, now_ms()).await?)
        }
    };
    if let Err(error) = undone.await {
        // The row still says what is left; the recovery finishes it.
        tracing::error!(sandbox = %sandbox.id, error = %error.message, "could not undo a start");
        sessions.unfinished().unsettle(&sandbox.id);
        sessions.unfinished().wake();
    }
}
