//! The sandbox object of the contract. Its owner is not in it.

use serde_json::{Value, json};

use crate::session::View;
use crate::store::{SandboxRow, SandboxStatus};
use crate::time::{now_ms, rfc3339, rfc3339_or_null};

/// The object; `idle_expires_at` comes from the running session, `containers` only where asked for.
pub fn sandbox_object(row: &SandboxRow, idle_expires_at: Option<i64>, containers: Value) -> Value {
    let status = row.status(now_ms());
    let reason = row
        .failure
        .as_ref()
        .filter(|_| status == SandboxStatus::Failed)
        .map(|f| json!({ "code": f.code, "message": f.message, "since": rfc3339(f.since) }));
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
