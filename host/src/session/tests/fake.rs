//! A driver whose containers are entries of a map, and whose runtimes prove themselves and say that they are well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::routing::get;
use bay_ship_api::handshake::{ACCEPTED, Credentials, HELLO_LEN, PROOF_LEN, ShipSide};
use bay_ship_api::init::{InitConfig, Isolation};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;

use crate::auth::{SystemContext, Tenant};
use crate::driver::{
    ContainerRef, ContainerSpec, ContainerStatus, Driver, DriverError, Features, Network, Stream,
};
use crate::id::Kind;
use crate::profile::{KnownPlugins, ProfileSet, Profiles};
use crate::session::{AdoptReport, SessionEnv, Sessions, adopt};
use crate::store::{Env, LockerChoice, NewLocker, NewSandbox, SandboxRow, SessionKey, Store};
use crate::time::now_ms;

/// What the fake runs. Outlives a Bay, as an engine does.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) away: AtomicBool,
    /// While true, no container can be removed.
    pub(super) stuck: AtomicBool,
    /// While true, a removal leaves something behind.
    pub(super) littered: AtomicBool,
    /// While true, a container that is being made is not finished.
    pub(super) slow: watch::Sender<bool>,
    pub(super) creating: watch::Sender<usize>,
    pub(super) containers: Mutex<BTreeMap<String, Option<Credentials>>>,
    pub(super) volumes: Mutex<BTreeSet<String>>,
    pub(super) inspected: AtomicUsize,
    changed: watch::Sender<()>,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            away: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            littered: AtomicBool::new(false),
            slow: watch::Sender::new(false),
            creating: watch::Sender::new(0),
            containers: Mutex::default(),
            volumes: Mutex::default(),
            inspected: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        self.changed.send_replace(());
    }

    /// Ends a container behind everybody's back.
    pub(super) fn kill_all(&self) {
        self.containers.lock().unwrap().clear();
        self.changed.send_replace(());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.containers.lock().unwrap().is_empty() && self.volumes.lock().unwrap().is_empty()
    }

    fn here(&self) -> Result<(), DriverError> {
        if self.away.load(Ordering::SeqCst) {
            let (message, remedy) = ("the engine does not answer".to_owned(), "start it".to_owned());
            return Err(DriverError::Unavailable { message, remedy });
        }
        Ok(())
    }
}

/// A local name for a foreign type: the trait cannot be implemented for `Arc<Fake>` elsewhere.
pub(super) struct FakeDriver(pub(super) Arc<Fake>);

#[async_trait]
impl Driver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn backend(&self) -> &'static str {
        "fake_volume"
    }

    fn features(&self) -> Arc<Features> {
        Arc::new(Features {
            isolation: Isolation::TwoUid,
            networks: vec![Network::None, Network::Egress, Network::Internal],
            limits: String::new(),
            notes: Vec::new(),
        })
    }

    async fn health(&self) -> Result<(), DriverError> {
        self.0.here()
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        self.0.here()?;
        self.0.creating.send_modify(|n| *n += 1);
        let fake = Arc::clone(&self.0);
        let (name, volume) = (spec.name.clone(), spec.volume.clone());
        // As an engine does: what was asked for is made, whether who asked still listens or not.
        let made = tokio::spawn(async move {
            fake.slow.subscribe().wait_for(|slow| !slow).await.unwrap();
            fake.volumes.lock().unwrap().insert(volume);
            fake.containers.lock().unwrap().insert(name.clone(), None);
            ContainerRef { name, backend: json!({}) }
        });
        Ok(made.await.unwrap())
    }

    async fn start(
        &self,
        container: &ContainerRef,
        _: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        self.0.here()?;
        let token = hex::decode(&init.token).unwrap().try_into().unwrap();
        let credentials = Credentials::new(token, init.session.clone(), init.generation);
        self.0.containers.lock().unwrap().insert(container.name.clone(), Some(credentials));
        Ok(container.clone())
    }

    async fn stop(&self, _: &ContainerRef, _: Duration) -> Result<(), DriverError> {
        self.0.here()
    }

    async fn destroy(&self, container: &ContainerRef) -> Result<(), DriverError> {
        self.0.here()?;
        if self.0.stuck.load(Ordering::SeqCst) {
            // Still there, and running.
            self.0.containers.lock().unwrap().entry(container.name.clone()).or_insert(None);
            return Err(DriverError::Timeout { what: "the removal".to_owned(), limit: Duration::ZERO });
        }
        self.0.containers.lock().unwrap().remove(&container.name);
        self.0.changed.send_replace(());
        if self.0.littered.load(Ordering::SeqCst) {
            return Err(DriverError::Timeout { what: "its network".to_owned(), limit: Duration::ZERO });
        }
        Ok(())
    }

    async fn inspect(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        self.0.here()?;
        self.0.inspected.fetch_add(1, Ordering::SeqCst);
        let there = self.0.containers.lock().unwrap().contains_key(&container.name);
        Ok(if there { ContainerStatus::Running } else { ContainerStatus::Missing })
    }

    async fn wait(&self, container: &ContainerRef) -> Result<ContainerStatus, DriverError> {
        let mut changed = self.0.changed.subscribe();
        loop {
            self.0.here()?;
            if !self.0.containers.lock().unwrap().contains_key(&container.name) {
                return Ok(ContainerStatus::Missing);
            }
            changed.changed().await.unwrap();
        }
    }

    async fn dial(&self, container: &ContainerRef, _: u16) -> Result<Stream, DriverError> {
        let credentials = self.0.containers.lock().unwrap().get(&container.name).cloned().flatten();
        let credentials = credentials.ok_or_else(|| DriverError::Missing(container.name.clone()))?;
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(runtime(theirs, credentials));
        Ok(Box::new(ours))
    }

    async fn logs(&self, _: &ContainerRef, _: usize) -> Result<Vec<u8>, DriverError> {
        Ok(Vec::new())
    }

    async fn list(&self) -> Result<Vec<ContainerRef>, DriverError> {
        self.0.here()?;
        let containers = self.0.containers.lock().unwrap();
        Ok(containers.keys().map(|n| ContainerRef { name: n.clone(), backend: json!({}) }).collect())
    }

    async fn volume_create(&self, id: &str) -> Result<String, DriverError> {
        self.0.here()?;
        self.0.volumes.lock().unwrap().insert(format!("volume-{id}"));
        Ok(format!("volume-{id}"))
    }

    async fn volume_remove(&self, backend_ref: &str) -> Result<(), DriverError> {
        self.0.here()?;
        self.0.volumes.lock().unwrap().remove(backend_ref);
        Ok(())
    }

    async fn volume_usage(&self, _: &str) -> Result<Option<u64>, DriverError> {
        Ok(None)
    }
}

/// What Ship does on a connection, as far as a start needs it.
async fn runtime(mut stream: DuplexStream, credentials: Credentials) {
    let mut hello = [0; HELLO_LEN];
    stream.read_exact(&mut hello).await.unwrap();
    let side = ShipSide::new(&credentials, &hello, [7; 32]).unwrap();
    stream.write_all(side.answer()).await.unwrap();
    let mut proof = [0; PROOF_LEN];
    if stream.read_exact(&mut proof).await.is_err() || side.verify(&proof).is_err() {
        return;
    }
    stream.write_u8(ACCEPTED).await.unwrap();
    let meta = json!({
        "runtime": { "name": "ship", "version": "0", "api_version": "v1", "build": null },
        "workspace": { "mount_path": "/workspace" }, "isolation": "two_uid",
        "capabilities": { "python": {}, "shell": {}, "filesystem": {}, "terminal": {} },
    });
    let app = axum::Router::new()
        .route("/meta", get(async || Json(meta)))
        .route("/health", get(async || Json(json!({ "status": "healthy" }))));
    let service = hyper_util::service::TowerToHyperService::new(app);
    let io = hyper_util::rt::TokioIo::new(stream);
    let _ended = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
}

/// A Bay as far as sessions go, on a data directory that a later one can use.
pub(super) struct House {
    pub(super) sessions: Arc<Sessions>,
    pub(super) sandbox: SandboxRow,
}

pub(super) fn system() -> SystemContext {
    SystemContext::for_background()
}

pub(super) fn tenant() -> Tenant {
    Tenant::default_tenant()
}

/// With one sandbox that nothing was done with.
async fn house(store: &Store, fake: &Arc<Fake>) -> House {
    let locker = NewLocker {
        id: Kind::Locker.mint(),
        name: None,
        backend: "fake_volume".to_owned(),
        labels: BTreeMap::new(),
        size_limit_mb: None,
        created_at: now_ms(),
    };
    let new = NewSandbox {
        id: Kind::Sandbox.mint(),
        profile: "python-default".to_owned(),
        name: None,
        labels: BTreeMap::new(),
        env: Env::default(),
        capabilities: vec!["python".to_owned()],
        created_at: now_ms(),
        expires_at: None,
        claim: None,
    };
    let (sandbox, _) = store.create_sandbox(&tenant(), new, LockerChoice::Managed(locker)).await.unwrap();
    House { sessions: sessions(store, fake), sandbox }
}

/// How long calls wait for a session.
pub(super) const BUDGET: Duration = Duration::from_secs(5);

/// A store, an engine, and a Bay with a sandbox.
pub(super) struct Scene {
    _dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) fake: Arc<Fake>,
    pub(super) house: House,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let fake = Fake::new();
        let house = house(&store, &fake).await;
        Self { _dir: dir, store, fake, house }
    }

    /// The same with a session that runs, and its key.
    pub(super) async fn running() -> (Self, SessionKey) {
        let scene = Self::new().await;
        let lease = scene.house.sessions.ensure_running(&scene.house.sandbox, BUDGET).await.unwrap();
        let key = lease.live.key.clone();
        (scene, key)
    }

    /// The engine goes away, and another Bay starts: the task of the one before does not find out what happens next.
    pub(super) async fn next_bay_without_engine(&self) -> (Arc<Sessions>, AdoptReport) {
        self.fake.set_away(true);
        let next = sessions(&self.store, &self.fake);
        let report = adopt(&next, &system()).await.unwrap();
        (next, report)
    }
}

/// What a Bay that starts has: no task for anything.
fn sessions(store: &Store, fake: &Arc<Fake>) -> Arc<Sessions> {
    let capability = |name: &str| name.to_owned();
    let covered = ["python", "shell", "filesystem", "terminal"].map(capability).into();
    let known = KnownPlugins {
        needs_image: false,
        rules: ["rules-default".to_owned()].into(),
        routers: ["router-default".to_owned()].into(),
        adapters: [("adapter-ship".to_owned(), covered)].into(),
    };
    Sessions::new(Arc::new(SessionEnv {
        driver: Arc::new(FakeDriver(Arc::clone(fake))),
        store: store.clone(),
        profiles: Arc::new(Profiles::new(ProfileSet::load(None, &known).unwrap())),
        secret: b"secret".to_vec(),
        instance_id: "test".to_owned(),
        start_timeout: Duration::from_secs(5),
        stop_grace: Duration::from_secs(1),
        probe_interval: Duration::from_secs(5),
    }))
}

/// Looks until it is so, or fails after a while.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        looks.tick().await;
    }
}
