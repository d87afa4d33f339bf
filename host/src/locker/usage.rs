//! How much lockers hold: the last bounded walk, and what Bay itself wrote since. A locker with a limit takes no more
//! through Bay once it is full; user code writes past Bay, and is seen by the next walk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::auth::Tenant;
use crate::error::{ApiError, ApiResult, Code};
use crate::profile::FILESYSTEM;
use crate::session::{SessionEnv, Sessions};
use crate::store::LockerRow;
use crate::time::now_ms;

/// How old a walk may be before a GET has another one made, in milliseconds.
const STALE_MS: i64 = 60_000;
/// How old a walk may be by which a write is refused, in milliseconds: who has just made room is not told otherwise
/// for long, and a full locker does not cost a walk a write.
const FRESH_MS: i64 = 1_000;
/// Walks side by side: each reads a whole tree.
const SIDE_BY_SIDE: usize = 2;
/// Walks that may wait; more are left out, and made when somebody looks again.
const WAITING: usize = 256;
/// Longest walk; the drivers' own bounds are shorter.
const WALK_TIMEOUT: Duration = Duration::from_secs(30);
/// Lockers of which is known what Bay wrote since their last walk.
const MAX_WRITTEN: usize = 65_536;

/// Of one Bay.
#[derive(Debug)]
pub struct LockerUsage {
    /// Lockers whose walk is under way or waits.
    walking: Mutex<HashSet<String>>,
    /// Bytes that Bay wrote since the last walk began, by locker with a limit.
    written: Mutex<HashMap<String, u64>>,
    places: Semaphore,
}

impl Default for LockerUsage {
    fn default() -> Self {
        Self { walking: Mutex::default(), written: Mutex::default(), places: Semaphore::new(SIDE_BY_SIDE) }
    }
}

impl LockerUsage {
    /// Has a locker walked soon, unless that is under way already.
    pub fn walk_later(self: &Arc<Self>, env: &Arc<SessionEnv>, tenant: &Tenant, locker_id: &str) {
        {
            let mut walking = lock(&self.walking);
            if walking.len() >= WAITING || !walking.insert(locker_id.to_owned()) {
                return;
            }
        }
        let (this, env, tenant, id) =
            (Arc::clone(self), Arc::clone(env), tenant.clone(), locker_id.to_owned());
        tokio::spawn(async move {
            if let Ok(_place) = this.places.acquire().await {
                this.walk(&env, &tenant, &id).await;
            }
            lock(&this.walking).remove(&id);
        });
    }

    /// As [`LockerUsage::walk_later`], where the last walk is more than a minute old.
    pub fn refresh(self: &Arc<Self>, env: &Arc<SessionEnv>, locker: &LockerRow) {
        if locker.backend_ref.is_some() && age(locker) > STALE_MS {
            self.walk_later(env, &locker.tenant, &locker.id);
        }
    }

    /// Walks and writes down what was found. What cannot be found out now is looked for again another time.
    async fn walk(&self, env: &SessionEnv, tenant: &Tenant, id: &str) {
        let Ok(locker) = env.store.get_locker(tenant, id).await else { return };
        let Some(volume) = locker.backend_ref else { return };
        // What is written during the walk counts twice rather than not at all.
        let before = self.written(id);
        let walked = match tokio::time::timeout(WALK_TIMEOUT, env.driver.volume_usage(&volume)).await {
            Ok(Ok(used)) => used,
            Ok(Err(error)) => return tracing::debug!(%error, locker = id, "a locker could not be measured"),
            Err(_) => None,
        };
        // One that cannot be measured keeps its last figure, and what was written since: a limit must not go with it.
        let known = walked.or(locker.used_bytes);
        if let Err(error) = env.store.set_locker_usage(tenant, id, known, now_ms()).await {
            return tracing::debug!(%error, locker = id, "a locker's size could not be written down");
        }
        if walked.is_some() {
            let mut written = lock(&self.written);
            if let Some(since) = written.get_mut(id) {
                *since = since.saturating_sub(before);
                if *since == 0 {
                    written.remove(id);
                }
            }
        }
    }

    /// The locker is gone.
    pub fn forget(&self, id: &str) {
        lock(&self.written).remove(id);
    }

    fn written(&self, id: &str) -> u64 {
        lock(&self.written).get(id).copied().unwrap_or(0)
    }

    fn wrote(&self, id: &str, bytes: u64) {
        let mut written = lock(&self.written);
        if written.len() < MAX_WRITTEN || written.contains_key(id) {
            let sum = written.entry(id.to_owned()).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Held for a look or an insertion only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn age(locker: &LockerRow) -> i64 {
    locker.used_bytes_at.map_or(i64::MAX, |at| now_ms().saturating_sub(at))
}

/// Bytes that an input is about to write, as far as it says; `announced` is what the request's head says of a body
/// that streams.
pub(crate) fn incoming(input: &Value, announced: Option<u64>) -> u64 {
    let content = input["content"].as_str().or_else(|| input["new_string"].as_str());
    let Some(content) = content else { return announced.unwrap_or(0) };
    let bytes = if input["encoding"] == "base64" { content.len() / 4 * 3 } else { content.len() };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Whether an operation puts something into the locker.
pub(crate) fn writes(capability: &str, operation: &str, safe: bool) -> bool {
    capability == FILESYSTEM && !safe && operation != "delete_file"
}

/// 507 where these bytes do not fit into the locker any more; else they count as written.
pub(crate) async fn make_room(sessions: &Sessions, tenant: &Tenant, id: &str, bytes: u64) -> ApiResult<()> {
    let (env, usage) = (sessions.env(), sessions.usage());
    let locker = env.store.get_locker(tenant, id).await?;
    let Some(limit) = locker.size_limit_mb.map(|mb| mb.saturating_mul(1 << 20)) else { return Ok(()) };
    let held = |locker: &LockerRow| {
        let used = locker.used_bytes.unwrap_or(0).saturating_add(usage.written(id));
        (used.saturating_add(bytes) > limit).then_some(used)
    };
    let unknown = locker.backend_ref.is_some() && locker.used_bytes_at.is_none();
    let mut full = held(&locker);
    if unknown || (full.is_some() && age(&locker) > FRESH_MS) {
        let _place = usage.places.acquire().await.map_err(ApiError::internal)?;
        // Whoever had the place before may have measured it.
        if age(&env.store.get_locker(tenant, id).await?) > FRESH_MS {
            usage.walk(env, tenant, id).await;
        }
        full = held(&env.store.get_locker(tenant, id).await?);
    }
    match full {
        None => {
            usage.wrote(id, bytes);
            Ok(())
        }
        Some(used) => Err(ApiError::new(
            Code::StorageFull,
            format!(
                "the locker may hold {limit} bytes and has {used}: {bytes} more do not fit; delete something first"
            ),
        )
        .with(json!({ "locker_id": id, "size_limit_bytes": limit, "used_bytes": used }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_input_is_about_to_write() {
        assert_eq!(incoming(&json!({ "content": "hello" }), None), 5);
        assert_eq!(incoming(&json!({ "content": "aGVsbG8=", "encoding": "base64" }), Some(1)), 6);
        assert_eq!(incoming(&json!({ "path": "a" }), Some(7)), 7);
        assert_eq!(incoming(&json!({}), None), 0);
    }

    #[test]
    fn reading_and_deleting_are_no_writes() {
        assert!(writes("filesystem", "write_file", false));
        assert!(!writes("filesystem", "delete_file", false));
        assert!(!writes("filesystem", "read_file", true));
        assert!(!writes("shell", "exec", false));
    }
}
