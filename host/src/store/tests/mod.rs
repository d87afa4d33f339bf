//! What the store promises, as tests.

mod bounds;
mod crash;
mod files;
mod idempotency;
mod keys;
mod lockers;
mod model;
mod quotas;
mod rows;
mod workers;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;

use crate::auth::{SystemContext, Tenant};
use crate::id::Kind;

use super::*;

/// A store in a directory of its own.
struct Fixture {
    dir: tempfile::TempDir,
    store: Option<Store>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(Store::open(dir.path()).unwrap());
        Self { dir, store }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it again.
    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(self.dir.path()).unwrap());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn system() -> SystemContext {
    SystemContext::for_background()
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

fn new_sandbox(at: Millis) -> NewSandbox {
    NewSandbox {
        id: Kind::Sandbox.mint(),
        profile: "python-default".to_owned(),
        name: None,
        labels: BTreeMap::new(),
        env: Env::default(),
        capabilities: vec!["shell".to_owned(), "python".to_owned()],
        created_at: at,
        expires_at: None,
        claim: None,
    }
}

fn new_locker(at: Millis) -> NewLocker {
    NewLocker {
        id: Kind::Locker.mint(),
        name: None,
        backend: "directory".to_owned(),
        labels: BTreeMap::new(),
        size_limit_mb: None,
        created_at: at,
    }
}

fn managed(at: Millis) -> LockerChoice {
    LockerChoice::Managed(new_locker(at))
}

fn ship() -> Vec<NewContainer> {
    vec![NewContainer {
        role: "ship".to_owned(),
        adapter: "adapter-ship".to_owned(),
        port: 8123,
        capabilities: vec!["python".to_owned()],
        primary_for: vec![],
    }]
}

fn new_execution(sandbox_id: &str, at: Millis) -> NewExecution {
    NewExecution {
        id: Kind::Execution.mint(),
        sandbox_id: sandbox_id.to_owned(),
        session_seq: None,
        capability: "python".to_owned(),
        operation: "exec".to_owned(),
        code: Some("print(1)".to_owned()),
        description: None,
        tags: None,
        container: "ship".to_owned(),
        listed: true,
        claim: None,
        plugin: "adapter-ship".to_owned(),
        plugin_digest: "d".repeat(64),
        created_at: at,
    }
}

fn end(status: ExecutionStatus, at: Millis) -> FinishExecution {
    FinishExecution {
        status,
        session_seq: Some(1),
        kernel_seq: Some(1),
        output: Some("1\n".to_owned()),
        error: None,
        result: Some(serde_json::json!({ "success": true })),
        success: status == ExecutionStatus::Succeeded,
        execution_time_ms: Some(3),
        ended_at: at,
        idle_expires_at: None,
        frees_key: false,
    }
}

fn failure(at: Millis) -> Failure {
    Failure { code: "start_failed".to_owned(), message: "no image".to_owned(), since: at }
}

fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Conflict {
    match result {
        Err(StoreError::Conflict(conflict)) => conflict,
        other => panic!("not a conflict: {other:?}"),
    }
}

fn is_missing<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound { .. }))
}
