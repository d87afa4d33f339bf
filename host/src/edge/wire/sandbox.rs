//! The sandbox object of the contract. Its owner is not in it.

use serde_json::{Value, json};

use crate::driver::Progress;
use crate::session::View;
use crate::store::{SandboxRow, SandboxStatus};
use crate::time::{now_ms, rfc3339, rfc3339_or_null};

/// The object; `idle_expires_at` comes from the running session, `containers` only where asked for, `fetching` from
/// the driver of one whose image is not there yet.
pub fn sandbox_object(
    row: &SandboxRow,
    idle_expires_at: Option<i64>,
    fetching: Option<Progress>,
    containers: Value,
) -> Value {
    let status = row.status(now_ms());
    let reason = match status {
        SandboxStatus::Failed => row
            .failure
            .as_ref()
            .map(|f| json!({ "code": f.code, "message": f.message, "since": rfc3339(f.since) })),
        SandboxStatus::Starting => fetching
            .map(|p| json!({ "code": "pulling_image", "message": p.message, "since": rfc3339(p.since) })),
        _ => None,
    };
    json!({
        "id": row.id,
        "status": status.as_str(),
        "status_reason": reason,
        "profile": row.profile,
        "locker_id": row.locker_id,
        "name": row.name,
        "labels": row.labels,
        "capabilities": row.capabilities,
        "session_seq": row.session_seq,
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339_or_null(row.expires_at),
        "idle_expires_at": rfc3339_or_null(idle_expires_at.filter(|_| status == SandboxStatus::Ready)),
        "containers": containers,
    })
}

/// `containers` of a running sandbox, null of any other. What was not asked, or did not answer, is null.
pub fn container_objects(view: &View) -> Value {
    let Some(live) = &view.live else { return Value::Null };
    let checked = view.checked;
    let container = |c: &crate::session::LiveContainer| {
        json!({
            "name": c.name,
            "runtime": c.meta.runtime.name,
            "status": "running",
            "version": c.meta.runtime.version,
            "capabilities": c.capabilities,
            "healthy": checked.map(|c| c.healthy),
            "checked_at": rfc3339_or_null(checked.map(|c| c.at)),
        })
    };
    live.containers.iter().map(container).collect()
}
