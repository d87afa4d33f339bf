//! What a container is given, and making it.

use std::collections::HashMap;
use std::sync::Arc;

use bay_ship_api::{SPOOL_DIR, WORKSPACE};
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, ResourcesUlimits,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use tokio::sync::watch;

use super::dial::{self, SOCKET_DIR};
use super::engine::{Contact, Failure};
use super::network::{self, Attached};
use super::ship_volume::{self, mount};
use super::{Backend, Inner, Reach, failed, names};
use crate::config::Connect;
use crate::driver::{ContainerRef, ContainerSpec, DriverError, Network};

/// The only variable that a container has; images add none of theirs.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What init needs: to become others, to end them, to give them their folders.
const CAPABILITIES: [&str; 4] = ["SETUID", "SETGID", "KILL", "CHOWN"];
/// Size of `/dev/shm`.
const SHM: i64 = 64 << 20;
/// Least size of `/tmp`: zero would mean no bound.
const MIN_TMP: u64 = 1 << 20;
/// The log of a container: what its runtime prints, at most this much in each of so many files.
const LOG: [(&str, &str); 2] = [("max-size", "1m"), ("max-file", "2")];

/// What became of a container that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// There is none of ours any more.
    Gone,
    /// Somebody else's has the name, and keeps it.
    Strangers,
}

/// All that decides what a container is.
struct Plan<'a> {
    spec: &'a ContainerSpec,
    connect: Connect,
    network: Option<&'a str>,
    socket: Option<String>,
    ship: &'a str,
    /// Where the runtime is started from: see [`secret_place`].
    place: String,
    instance: &'a str,
    variables: &'a [String],
    cores: f64,
}

fn body(plan: &Plan<'_>) -> ContainerCreateBody {
    let port = format!("{}/tcp", plan.spec.port);
    let listen = match plan.connect {
        Connect::Socket | Connect::Auto => format!("unix:{SOCKET_DIR}/{}", dial::SOCKET),
        Connect::HostPort | Connect::ContainerNetwork => format!("tcp:{}", plan.spec.port),
    };
    // A name without a value takes the image's variable away.
    let unset = plan.variables.iter().filter(|name| *name != "PATH").cloned();
    let mut labels: HashMap<String, String> = plan.spec.labels.clone().into_iter().collect();
    labels.insert("bay.role".to_owned(), plan.spec.role.clone());
    let strings = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    let networking =
        plan.network.map(|name| NetworkingConfig { endpoints_config: Some(network::endpoints(name)) });
    ContainerCreateBody {
        image: plan.spec.image.clone(),
        entrypoint: strings(&[&format!("{}/ship", plan.place)]),
        cmd: strings(&["init", "--listen", &listen]),
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        env: Some(std::iter::once(PATH.to_owned()).chain(unset).collect()),
        healthcheck: Some(HealthConfig { test: strings(&["NONE"]), ..HealthConfig::default() }),
        stop_signal: Some("SIGTERM".to_owned()),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        tty: Some(false),
        exposed_ports: is_published(plan.spec.network, plan.connect).then(|| vec![port.clone()]),
        labels: Some(labels),
        host_config: Some(host_config(plan, port)),
        networking_config: networking,
        ..ContainerCreateBody::default()
    }
}

/// A path that no image can know. At the usual one an image may have a link, or through a link a volume of its own that
/// is mounted later (*tried*), and so a program of its own that would be started as root in the runtime's place.
fn secret_place() -> std::io::Result<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(format!("{}-{}", ship_volume::AT, hex::encode(random)))
}

/// Published ports do not work on internal networks: there the address is dialled in every mode.
pub(super) fn is_published(policy: Network, connect: Connect) -> bool {
    connect == Connect::HostPort && !network::is_internal(policy)
}

fn host_config(plan: &Plan<'_>, port: String) -> HostConfig {
    let spec = plan.spec;
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut add: Vec<String> = CAPABILITIES.map(str::to_owned).to_vec();
    if plan.network.is_some() {
        // Until init has set the routes.
        add.push("NET_ADMIN".to_owned());
    }
    let mut spool = mount(&names::spool(&spec.name), SPOOL_DIR, false);
    spool.volume_options = Some(MountVolumeOptions {
        labels: Some(names::own(plan.instance)),
        ..spool.volume_options.unwrap_or_default()
    });
    let mut mounts = vec![
        mount(plan.ship, ship_volume::AT, true),
        mount(plan.ship, &plan.place, true),
        spool,
        mount(&spec.volume, WORKSPACE, false),
    ];
    mounts.extend(plan.socket.clone().map(|source| Mount {
        typ: Some(MountType::BIND),
        source: Some(source),
        target: Some(SOCKET_DIR.to_owned()),
        read_only: Some(false),
        ..Mount::default()
    }));
    let tmp = format!("rw,exec,nosuid,nodev,mode=1777,size={}", spec.docker.tmp.max(MIN_TMP));
    let tmpfs = [("/tmp", tmp), ("/run", "rw,noexec,nosuid,nodev,mode=755,size=16m".to_owned())];
    let no_core = ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) };
    let published = is_published(spec.network, plan.connect).then(|| {
        let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
        HashMap::from([(port, Some(vec![binding]))])
    });
    // The resolver of a network without a way out has nobody to ask: this address is for documents only.
    let dns =
        (plan.network.is_some() && network::is_internal(spec.network)).then(|| vec!["192.0.2.1".to_owned()]);
    #[expect(clippy::cast_possible_truncation, reason = "cores are from 0.01 to 1024")]
    let nano_cpus = (spec.cpus.min(plan.cores) * 1e9) as i64;
    HostConfig {
        mounts: Some(mounts),
        tmpfs: Some(tmpfs.map(|(at, options)| (at.to_owned(), options)).into()),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(add),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        memory: Some(int(spec.memory)),
        // Memory and swap together: no swap.
        memory_swap: Some(int(spec.memory)),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(int(spec.pids)),
        // Open files are bounded by init: the daemon cannot raise its own bound everywhere.
        ulimits: Some(vec![no_core]),
        shm_size: Some(SHM),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some(plan.network.unwrap_or("none").to_owned()),
        dns,
        port_bindings: published,
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(LOG.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        }),
        runtime: spec.docker.runtime.clone(),
        ..HostConfig::default()
    }
}

impl Inner {
    /// Makes everything but the volume. What the caller does not wait for to its end is made none the less, so that
    /// [`Inner::destroy`] finds it.
    pub(super) async fn create(self: &Arc<Self>, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        names::checked(&spec.name)?;
        let image = spec.image.as_deref().ok_or_else(|| DriverError::Image {
            image: "(none)".to_owned(),
            reason: "the Docker driver needs one: set `image` in the profile".to_owned(),
        })?;
        let contact = self.engine.contact().await?;
        self.check_runtime(&contact, spec.docker.runtime.as_deref()).await?;
        let variables = self.image(&contact, image, spec.docker.pull).await?;
        self.ship_volume(&contact, image).await?;
        let done = self.begin(&spec.name);
        let (inner, spec) = (Arc::clone(self), spec.clone());
        let made = tokio::spawn(async move {
            let made = Box::pin(inner.make(&contact, &spec, &variables)).await;
            if made.is_err()
                && let Err(error) = inner.remove(&contact, &spec.name, &spec.name).await
            {
                tracing::warn!(container = %spec.name, %error, "could not undo a failed creation");
            }
            inner.end(&spec.name, done);
            made
        });
        made.await.unwrap_or_else(|error| {
            Err(DriverError::Io {
                what: "make the container".to_owned(),
                source: std::io::Error::other(error),
            })
        })
    }

    async fn make(
        &self,
        contact: &Contact,
        spec: &ContainerSpec,
        variables: &[String],
    ) -> Result<ContainerRef, DriverError> {
        let connect = contact.facts.connect;
        let socket = match connect {
            Connect::Socket => Some(self.sockets.make(&spec.name, contact.facts.root)?),
            _ => None,
        };
        let name =
            network::is_networked(spec.network, connect).then(|| names::network(&spec.name, spec.network));
        let plan = Plan {
            spec,
            connect,
            network: name.as_deref(),
            socket,
            ship: self.ship.name(),
            place: secret_place().map_err(failed("make a random name"))?,
            instance: &self.instance,
            variables,
            cores: contact.facts.cores,
        };
        // Beside each other: the container needs its network only when it starts.
        let attach = async {
            match &name {
                Some(_) => self.network_create(contact, &spec.name, spec.network).await.map(Some),
                None => Ok(None),
            }
        };
        let (network, id) = tokio::join!(attach, self.make_container(contact, spec, body(&plan)));
        let (network, id): (Option<Attached>, String) = (network?, id?);
        let reach = match connect {
            Connect::Socket | Connect::Auto => Reach::Socket,
            _ if is_published(spec.network, connect) => Reach::Port { port: None },
            _ => Reach::Address { address: None },
        };
        let backend = Backend { id, reach, network };
        Ok(ContainerRef { name: spec.name.clone(), backend: backend.to_value()? })
    }

    async fn make_container(
        &self,
        contact: &Contact,
        spec: &ContainerSpec,
        body: ContainerCreateBody,
    ) -> Result<String, DriverError> {
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        let make = || contact.docker.create_container(Some(options.clone()), body.clone());
        let mut made = self.engine.call(make()).await;
        if made.as_ref().is_err_and(|failure| failure.is(409)) {
            // Left by an earlier try; a stranger's is not touched.
            if self.remove_container(contact, &spec.name, &spec.name).await? == Removed::Strangers {
                return Err(DriverError::Start {
                    name: spec.name.clone(),
                    reason: "another container, which is not Bay's, has this name".to_owned(),
                });
            }
            made = self.engine.call(make()).await;
        }
        match made {
            Ok(made) => {
                for warning in made.warnings {
                    tracing::debug!(container = %spec.name, warning, "the Docker daemon warns");
                }
                Ok(made.id)
            }
            Err(failure) => Err(refused(failure, spec)),
        }
    }

    /// A runtime that the daemon lacks is told before anything is made.
    async fn check_runtime(&self, contact: &Contact, wanted: Option<&str>) -> Result<(), DriverError> {
        let Some(wanted) = wanted else { return Ok(()) };
        if contact.facts.runtimes.iter().any(|name| name == wanted) {
            return Ok(());
        }
        // The operator may have added it since.
        let info = self.engine.call(contact.docker.info()).await;
        let info = info.map_err(|failure| failure.into_error("ask for OCI runtimes"))?;
        let mut known: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        known.sort();
        if known.iter().any(|name| name == wanted) {
            return Ok(());
        }
        Err(DriverError::Unavailable {
            message: format!("the Docker daemon has no OCI runtime `{wanted}`: it has {}", known.join(", ")),
            remedy: "add it to the daemon's configuration, or change `docker.runtime` in the profile"
                .to_owned(),
        })
    }

    /// Removes a container that is ours, with its anonymous volumes. Idempotent.
    pub(super) async fn remove_container(
        &self,
        contact: &Contact,
        key: &str,
        name: &str,
    ) -> Result<Removed, DriverError> {
        let error = |failure: Failure| failure.into_error(&format!("remove {name}"));
        match self.engine.call(contact.docker.inspect_container(key, None)).await {
            Ok(found) if self.owns(found.config.as_ref().and_then(|c| c.labels.as_ref())) => {}
            Ok(_) => return Ok(Removed::Strangers),
            Err(failure) if failure.is(404) => return Ok(Removed::Gone),
            Err(failure) => return Err(error(failure)),
        }
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.engine.call(contact.docker.remove_container(key, Some(options))).await {
            Ok(()) => Ok(Removed::Gone),
            Err(failure) if failure.is(404) => Ok(Removed::Gone),
            // Somebody else removes it at this moment.
            Err(failure) if failure.is(409) => {
                self.until_gone(contact, key, name).await.map(|()| Removed::Gone)
            }
            Err(failure) => Err(error(failure)),
        }
    }

    /// Says that a container of this name is being made.
    pub(super) fn begin(&self, name: &str) -> watch::Sender<()> {
        let (sender, receiver) = watch::channel(());
        self.making().insert(name.to_owned(), receiver);
        sender
    }

    pub(super) fn end(&self, name: &str, done: watch::Sender<()>) {
        let mut making = self.making();
        // A second one of the same name may have begun meanwhile.
        if making.get(name).is_some_and(|receiver| receiver.same_channel(&done.subscribe())) {
            making.remove(name);
        }
    }
}

/// Why the daemon would not make a container.
fn refused(failure: Failure, spec: &ContainerSpec) -> DriverError {
    let image = spec.image.clone().unwrap_or_default();
    match failure {
        Failure::Refused { code: 404, message } => DriverError::Image { image, reason: message },
        Failure::Refused { message, .. } if message.contains("bind source path does not exist") => {
            DriverError::Unavailable {
                message: "the Docker daemon does not see Bay's data directory".to_owned(),
                remedy: "put data_dir where both see it, or set docker.connect = \"host_port\"".to_owned(),
            }
        }
        Failure::Refused { message, .. } => DriverError::Start { name: spec.name.clone(), reason: message },
        other => other.into_error(&format!("make {}", spec.name)),
    }
}
