//! What a daemon is, asked at each first contact: an engine that was away may come back as another.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bay_ship_api::init::Isolation;
use bollard::Docker;
use bollard::models::SystemInfo;

use super::engine::Address;
use crate::config::Connect;
use crate::driver::{DriverError, Features, Network, local};

/// How long the daemon may take to know Bay's own container.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// What the configuration asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) connect: Connect,
}

/// What is known of a daemon.
pub(super) struct Facts {
    pub(super) features: std::sync::Arc<Features>,
    pub(super) version: String,
    /// How runtimes are reached: never `auto`.
    pub(super) connect: Connect,
    /// Bay's own container, when Bay runs in one of this daemon.
    pub(super) own_container: Option<String>,
    /// Uid and gid on the host that are 0 in containers, where the daemon remaps.
    pub(super) root: Option<(u32, u32)>,
    /// Names of OCI runtimes.
    pub(super) runtimes: Vec<String>,
    /// Cores of the machine: the daemon refuses a container that asks for more.
    pub(super) cores: f64,
    /// Whether cgroups bound memory and processes.
    pub(super) enforces: bool,
    /// Addresses of this machine, which no sandbox may reach.
    pub(super) own_addresses: Vec<IpAddr>,
    /// The daemon's clock when it was asked, in seconds.
    pub(super) since: i64,
}

/// Looks at what the daemon said of itself, and at where Bay runs.
pub(super) async fn facts(
    docker: &Docker,
    info: SystemInfo,
    address: &Address,
    wanted: &Wanted,
) -> Result<Facts, DriverError> {
    let options = info.security_options.clone().unwrap_or_default();
    let has = |name: &str| options.iter().any(|o| o.split(',').any(|part| part == format!("name={name}")));
    let rootless = has("rootless");
    let root = has("userns").then(|| remapped(info.docker_root_dir.as_deref())).flatten();
    let own_container = own_container(docker).await;
    let here = Here {
        unix: matches!(address, Address::Unix(_)),
        remote: address.is_remote(),
        contained: own_container.is_some(),
        root: rustix::process::geteuid().is_root(),
        rootless,
    };
    let connect = choose(wanted.connect, here)?;
    let own_addresses = tokio::task::spawn_blocking(local::own_addresses).await.ok().and_then(Result::ok);
    let enforces = info.memory_limit == Some(true) && info.pids_limit == Some(true);

    let mut notes = Vec::new();
    if !enforces {
        notes.push("the Docker daemon cannot bound memory or processes: rlimits do, less well".to_owned());
    }
    if !has("seccomp") {
        notes.push(
            "the Docker daemon has no seccomp: enable it, it keeps user code from much of the kernel"
                .to_owned(),
        );
    }
    if own_addresses.is_none() || here.contained || here.remote {
        notes.push(
            "the public addresses of the Docker host are not known here: a sandbox with egress can reach them"
                .to_owned(),
        );
    }
    let mut networks = vec![Network::None, Network::Egress, Network::Internal];
    if connect == Connect::HostPort && rootless {
        // Published ports do not work on internal networks, and a rootless daemon's networks have no address here.
        networks = vec![Network::Egress];
        notes.push("network none and internal need connect = \"socket\" with a rootless daemon".to_owned());
    }
    let bounded: Vec<&str> =
        [("memory", info.memory_limit), ("pids", info.pids_limit), ("cpu", info.cpu_cfs_quota)]
            .into_iter()
            .filter_map(|(name, given)| (given == Some(true)).then_some(name))
            .collect();
    let cgroup = info.cgroup_version.map_or_else(|| "1".to_owned(), |version| version.to_string());
    let limits = format!("docker, cgroup v{cgroup} ({})", bounded.join(", "));
    let features = Features { isolation: Isolation::TwoUid, networks, limits, notes };
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();
    let now = jiff::Timestamp::now();
    let since = info.system_time.and_then(|t| t.parse::<jiff::Timestamp>().ok()).unwrap_or(now).as_second();
    Ok(Facts {
        features: features.into(),
        version: info.server_version.unwrap_or_default(),
        connect,
        own_container,
        root,
        runtimes,
        cores: info.ncpu.and_then(|n| u32::try_from(n).ok()).map_or(f64::MAX, f64::from),
        enforces,
        own_addresses: own_addresses.unwrap_or_default(),
        since,
    })
}

/// Where Bay runs, as seen from the daemon.
#[derive(Debug, Clone, Copy)]
struct Here {
    unix: bool,
    remote: bool,
    contained: bool,
    root: bool,
    rootless: bool,
}

/// The mode that is asked for, if it can work; `auto` takes the first that can.
fn choose(wanted: Connect, here: Here) -> Result<Connect, DriverError> {
    let refuse = |message: &str, remedy: &str| {
        Err(DriverError::Unavailable { message: message.to_owned(), remedy: remedy.to_owned() })
    };
    // The socket's directory belongs to the container's root, and Bay has to enter it too.
    let socket = here.unix && (here.root != here.rootless);
    match wanted {
        Connect::Auto if here.contained => Ok(Connect::ContainerNetwork),
        Connect::Auto if socket => Ok(Connect::Socket),
        Connect::Auto | Connect::HostPort if here.remote => refuse(
            "the Docker daemon is on another machine, whose 127.0.0.1 cannot be reached from here",
            "run Bay there, or set docker.connect = \"container_network\" where its containers have a route from here",
        ),
        Connect::Auto => Ok(Connect::HostPort),
        Connect::Socket if !socket => refuse(
            "docker.connect = \"socket\" needs a unix socket, and Bay and daemon run by the same user",
            "set docker.connect = \"auto\"",
        ),
        Connect::ContainerNetwork if here.rootless && !here.contained => refuse(
            "a rootless daemon's networks cannot be reached from outside",
            "set docker.connect = \"auto\"",
        ),
        given => Ok(given),
    }
}

/// `/var/lib/docker/100000.100000` says whom root is.
fn remapped(root_dir: Option<&str>) -> Option<(u32, u32)> {
    let last = Path::new(root_dir?).file_name()?.to_str()?;
    let (uid, gid) = last.split_once('.')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// The container in which Bay itself runs, if the daemon knows it.
async fn own_container(docker: &Docker) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let id = id_in_mounts(&mounts)
        .or_else(|| (host.len() == 12 && host.bytes().all(|b| b.is_ascii_hexdigit())).then_some(host))?;
    let found = tokio::time::timeout(ASK_LIMIT, docker.inspect_container(&id, None)).await.ok()?.ok()?;
    found.id.filter(|full| full.starts_with(&id))
}

/// Docker mounts `/etc/hostname` from the container's own directory.
fn id_in_mounts(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let (_, rest) = root.split_once("/containers/")?;
        let id = rest.strip_suffix("/hostname").filter(|_| at == "/etc/hostname")?;
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Here = Here { unix: true, remote: false, contained: false, root: true, rootless: false };

    #[test]
    fn auto_takes_what_can_work() {
        assert_eq!(choose(Connect::Auto, HOST).unwrap(), Connect::Socket);
        assert_eq!(choose(Connect::Auto, Here { root: false, ..HOST }).unwrap(), Connect::HostPort);
        assert_eq!(
            choose(Connect::Auto, Here { root: false, rootless: true, ..HOST }).unwrap(),
            Connect::Socket
        );
        assert_eq!(
            choose(Connect::Auto, Here { contained: true, ..HOST }).unwrap(),
            Connect::ContainerNetwork
        );
        assert!(choose(Connect::Auto, Here { unix: false, remote: true, ..HOST }).is_err());
    }

    #[test]
    fn what_is_asked_for_and_cannot_work_is_refused() {
        assert!(choose(Connect::Socket, Here { root: false, ..HOST }).is_err());
        assert!(choose(Connect::HostPort, Here { unix: false, remote: true, ..HOST }).is_err());
        assert!(choose(Connect::ContainerNetwork, Here { root: false, rootless: true, ..HOST }).is_err());
        assert_eq!(choose(Connect::HostPort, HOST).unwrap(), Connect::HostPort);
    }

    #[test]
    fn the_container_around_bay_is_found_by_its_mounts() {
        let id = "0123456789abcdef".repeat(4);
        let line =
            format!("612 598 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 x rw");
        assert_eq!(id_in_mounts(&line), Some(id.clone()));
        assert_eq!(id_in_mounts(&line.replace("/etc/hostname", "/mnt/hostname")), None);
        assert_eq!(id_in_mounts("36 35 98:0 / / rw - ext4 x rw"), None);
    }

    #[test]
    fn a_remapped_root_is_read_from_the_daemons_directory() {
        assert_eq!(remapped(Some("/var/lib/docker/100000.100001")), Some((100_000, 100_001)));
        assert_eq!(remapped(Some("/var/lib/docker")), None);
    }
}
