//! The one way from an intent in the store to a ready session, and back when it does not work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bay_ship_api::http::Meta;
use bay_ship_api::init::{InitConfig, Limits, NetworkSetup};
use tokio_util::sync::CancellationToken;

use super::broken::{Broken, undo, unless_cancelled};
use super::env::{SessionEnv, failure};
use super::live::{Live, LiveContainer};
use super::registry::Sessions;
use super::task::stopped_meanwhile;
use super::unfinished::not_settled;
use crate::driver::{ContainerRef, ContainerSpec, ContainerStatus, DockerSpec, DriverError};
use crate::error::{ApiError, ApiResult, Code};
use crate::profile::{Container, Profile};
use crate::runtime::{RuntimeClient, RuntimeError};
use crate::store::{ContainerRow, NewContainer, SandboxRow, SessionRow, Transition};
use crate::time::now_ms;

/// How long a runtime that has proven itself may take to say what it is.
const META_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a dead container's log goes into Bay's.
const LOG_TAIL: usize = 2048;
/// The version of the runtime's API that Bay speaks.
const RUNTIME_API: &str = "v1";
/// What Bay's own runtime calls itself.
const RUNTIME_OF_BAY: &str = "ship";
/// Longest name and version of a runtime together, in bytes.
const MAX_NAMES: usize = 128;
/// Open files of one process of user code.
const NOFILE: u64 = 65_536;

/// Starts a session: intent, volume, containers, proof. What fails is undone before this returns, or, when the
/// driver is still at it, soon after.
pub(super) async fn start(
    sessions: &Sessions,
    sandbox: &SandboxRow,
    cancel: &CancellationToken,
) -> ApiResult<Live> {
    let env = sessions.env();
    if sessions.unfinished().is_unsettled(&sandbox.id) {
        return Err(not_settled());
    }
    let planned = async {
        let profile = env.profile(sandbox).ok_or_else(|| {
            ApiError::new(Code::Unavailable, format!("profile {} is no longer there", sandbox.profile))
                .with(serde_json::json!({ "part": "profile" }))
        })?;
        // Known now, a driver that is away costs neither a session nor its removal.
        env.driver.health().await?;
        check_network(env, &profile)?;
        let planned = profile.containers.iter().map(intent).collect();
        let session = env.store.begin_session(&sandbox.tenant, &sandbox.id, planned, now_ms()).await?;
        Ok::<_, ApiError>((profile, session))
    };
    let (profile, session) = match planned.await {
        Ok(planned) => planned,
        Err(error) => {
            // Nothing was begun, but the client who looks later should see why.
            if let Err(unsaid) = env.store.set_failure(&sandbox.tenant, &sandbox.id, failure(&error)).await {
                tracing::debug!(%unsaid, "a failed start could not be recorded");
            }
            return Err(error);
        }
    };
    match bring_up(env, sandbox, &profile, &session, cancel).await {
        Ok(live) => Ok(live),
        Err(Broken { error, late }) => {
            undo(sessions, sandbox, &session, &error, late, cancel.is_cancelled()).await;
            Err(error)
        }
    }
}

/// A policy that this host cannot give is known before anything is made.
fn check_network(env: &SessionEnv, profile: &Profile) -> ApiResult<()> {
    let given = &env.driver.features().networks;
    match profile.containers.iter().find(|c| !given.contains(&c.network)) {
        None => Ok(()),
        Some(c) => Err(ApiError::from(DriverError::Network {
            policy: c.network,
            reason: format!("the {} driver offers {given:?} on this host; see /ready", env.driver.name()),
        })),
    }
}

async fn volume(
    env: &SessionEnv,
    sandbox: &SandboxRow,
    cancel: &CancellationToken,
) -> Result<String, Broken> {
    let locker = env.store.get_locker(&sandbox.tenant, &sandbox.locker_id).await?;
    let (driver, id) = (Arc::clone(&env.driver), locker.id.clone());
    let volume = unless_cancelled(cancel, async move { driver.volume_create(&id).await }).await?;
    if locker.backend_ref.as_ref() != Some(&volume) {
        env.store.set_locker_volume(&sandbox.tenant, &locker.id, &volume, now_ms()).await?;
    }
    Ok(volume)
}

fn intent(c: &Container) -> NewContainer {
    NewContainer {
        role: c.name.clone(),
        adapter: c.adapter.clone(),
        port: c.port,
        capabilities: c.capabilities.clone(),
        primary_for: c.primary_for.clone(),
    }
}

async fn bring_up(
    env: &SessionEnv,
    sandbox: &SandboxRow,
    profile: &Profile,
    session: &SessionRow,
    cancel: &CancellationToken,
) -> Result<Live, Broken> {
    // After the intent: while a session lives, nothing removes its locker behind the volume's back.
    let volume = volume(env, sandbox, cancel).await?;
    let mut rows = session.containers.clone();
    let mut containers = Vec::with_capacity(rows.len());
    for (index, wanted) in profile.containers.iter().enumerate() {
        let Some(row) = rows.get(index) else { break };
        let spec = spec(env, sandbox, session, wanted, row, &volume);
        let init = init(env, sandbox, session, profile, wanted);
        let (driver, to_create) = (Arc::clone(&env.driver), spec.clone());
        let created = unless_cancelled(cancel, async move { driver.create(&to_create).await }).await?;
        remember(env, sandbox, session, &mut rows, index, &created).await?;
        let driver = Arc::clone(&env.driver);
        let started =
            unless_cancelled(cancel, async move { driver.start(&created, &spec, &init).await }).await?;
        remember(env, sandbox, session, &mut rows, index, &started).await?;
        let credentials = env.credentials(&session.key());
        let client = RuntimeClient::new(Arc::clone(&env.driver), started.clone(), wanted.port, credentials);
        containers.push((wanted, started, client));
    }
    // Side by side: each has its own kernel to start.
    let proofs = containers.into_iter().map(|(wanted, reference, client)| async move {
        let meta = prove(env, &reference, &client).await?;
        check_capabilities(wanted, &meta)?;
        Ok::<_, ApiError>(LiveContainer {
            name: wanted.name.clone(),
            adapter: wanted.adapter.clone(),
            capabilities: wanted.capabilities.clone(),
            primary_for: wanted.primary_for.clone(),
            reference,
            client: Arc::new(client),
            meta,
        })
    });
    let containers = tokio::select! {
        proven = futures::future::try_join_all(proofs) => proven?,
        () = cancel.cancelled() => return Err(stopped_meanwhile().into()),
    };
    // Strict: a session that was marked `stopping` meanwhile must not be called ready.
    env.store.transition_session(&sandbox.tenant, &session.key(), Transition::Ready, now_ms()).await?;
    Ok(Live { key: session.key(), seq: session.seq, containers })
}

/// Waits for the runtime to prove itself and to say what it is, unless it dies first.
pub(super) async fn prove(
    env: &SessionEnv,
    reference: &ContainerRef,
    client: &RuntimeClient,
) -> ApiResult<Meta> {
    let proven = async {
        client.wait_ready(env.start_timeout).await?;
        client.meta(META_TIMEOUT).await
    };
    let why = tokio::select! {
        meta = proven => match meta {
            // Name and version are kept and shown with every GET: a runtime does not get to choose how much.
            Ok(meta) if meta.runtime.name.len() + meta.runtime.version.len() > MAX_NAMES => {
                "its name and version are too long".to_owned()
            }
            Ok(meta) if meta.runtime.api_version == RUNTIME_API => return Ok(meta),
            Ok(meta) => format!("it speaks API {:?}", meta.runtime.api_version),
            Err(RuntimeError::Dial(error)) if error.is_away() => return Err(error.into()),
            Err(error) => error.to_string(),
        },
        ended = env.driver.wait(reference) => match ended {
            Ok(ContainerStatus::Exited { reason }) => reason,
            Ok(ContainerStatus::Missing | ContainerStatus::Running) => "gone".to_owned(),
            Err(error) if error.is_away() => return Err(error.into()),
            Err(error) => error.to_string(),
        },
    };
    let log = env.driver.logs(reference, LOG_TAIL).await.unwrap_or_default();
    tracing::warn!(
        container = %reference.name, why, said = %String::from_utf8_lossy(&log), "runtime did not come up",
    );
    Err(ApiError::new(Code::RuntimeError, "the sandbox's runtime did not start; see Bay's log"))
}

/// What Ship serves by itself, and what that needs in the image.
const SERVED_BY_SHIP: [(&str, &str); 3] =
    [("python", "python3 on its path"), ("shell", "/bin/sh or bash"), ("terminal", "/bin/sh or bash")];

/// What a profile declares must be there: found out now, not by the first call that needs it.
fn check_capabilities(wanted: &Container, meta: &Meta) -> ApiResult<()> {
    let lacks =
        |name: &str| wanted.capabilities.iter().any(|c| c == name) && !meta.capabilities.contains_key(name);
    match SERVED_BY_SHIP.iter().find(|(name, _)| meta.runtime.name == RUNTIME_OF_BAY && lacks(name)) {
        None => Ok(()),
        Some((name, needed)) => Err(DriverError::Image {
            image: wanted.image.clone().unwrap_or_else(|| wanted.name.clone()),
            reason: format!(
                "it cannot serve `{name}`, which the profile declares: that needs {needed}; use another image, or \
                 a profile without `{name}`"
            ),
        }
        .into()),
    }
}

/// Saves where a container is, so that a Bay that comes after this one finds it.
async fn remember(
    env: &SessionEnv,
    sandbox: &SandboxRow,
    session: &SessionRow,
    rows: &mut [ContainerRow],
    index: usize,
    reference: &ContainerRef,
) -> ApiResult<()> {
    if let Some(row) = rows.get_mut(index) {
        row.container_ref = Some(reference.backend.clone());
    }
    Ok(env.store.set_session_containers(&sandbox.tenant, &session.key(), rows.to_vec()).await?)
}

/// How the driver finds a session's containers, created or not.
pub(super) fn references(session: &SessionRow) -> Vec<ContainerRef> {
    let reference = |row: &ContainerRow| ContainerRef {
        name: row.name.clone(),
        backend: row.container_ref.clone().unwrap_or_default(),
    };
    session.containers.iter().map(reference).collect()
}

fn spec(
    env: &SessionEnv,
    sandbox: &SandboxRow,
    session: &SessionRow,
    wanted: &Container,
    row: &ContainerRow,
    volume: &str,
) -> ContainerSpec {
    let labels = [
        ("bay.instance", env.instance_id.clone()),
        ("bay.sandbox", sandbox.id.clone()),
        ("bay.session", session.id.clone()),
        ("bay.generation", session.generation.to_string()),
    ];
    ContainerSpec {
        name: row.name.clone(),
        role: wanted.name.clone(),
        image: wanted.image.clone(),
        cpus: wanted.resources.cpus,
        memory: wanted.resources.memory.bytes(),
        pids: wanted.resources.pids,
        network: wanted.network,
        volume: volume.to_owned(),
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
        rootfs: wanted.local.rootfs.clone(),
        python: wanted.local.python.clone(),
        port: wanted.port,
        output: wanted.resources.output.bytes(),
        docker: DockerSpec {
            pull: wanted.docker.pull,
            runtime: wanted.docker.runtime.clone(),
            tmp: wanted.docker.tmp.bytes(),
        },
    }
}

/// The start-up message. The driver fills in what only it knows: interpreter, network, who enforces limits.
fn init(
    env: &SessionEnv,
    sandbox: &SandboxRow,
    session: &SessionRow,
    profile: &Profile,
    wanted: &Container,
) -> InitConfig {
    let mut user_env: BTreeMap<String, String> = profile.env.clone();
    user_env.extend(wanted.env.clone());
    user_env.extend(sandbox.env.0.clone());
    InitConfig {
        session: session.id.clone(),
        generation: session.generation,
        token: hex::encode(env.credentials(&session.key()).token()),
        isolation: env.driver.features().isolation,
        env: user_env,
        python: None,
        capabilities: wanted.capabilities.clone(),
        network: NetworkSetup::None,
        limits: Limits {
            pids: wanted.resources.pids,
            memory: wanted.resources.memory.bytes(),
            nofile: NOFILE,
            enforce: false,
        },
        output_limit: wanted.resources.output.bytes(),
    }
}
