//! What this machine can do, found by doing it: before Bay serves, a sandbox that runs nothing is run for real.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bay_ship_api::init::{DEFAULT_OUTPUT_LIMIT, InitConfig, Isolation, Limits, NetworkSetup};
use rustix::fs::Mode;

use super::cgroup::Cgroups;
use super::etc::Template;
use super::network::{self, Attached, Veths};
use super::start::{self, Request, Source, Sources};
use super::state::{RunDir, State, directory_at};
use super::volumes::Volumes;
use super::{BASE_ID, Egress, Inner, Launcher, command, identity, pasta, python};
use crate::driver::{DriverError, Features, LocalOptions, Network};

/// Something that ends at once and does nothing, in place of the runtime.
const NOTHING: &str = "/usr/bin/true";
/// How long a sandbox that does nothing may take.
const TRIAL_LIMIT: Duration = Duration::from_secs(20);
/// The oldest bubblewrap with every option used here.
const OLDEST_BWRAP: (u32, u32) = (0, 6);

fn unavailable(message: impl Into<String>, remedy: impl Into<String>) -> DriverError {
    DriverError::Unavailable { message: message.into(), remedy: remedy.into() }
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    move |source| DriverError::Io { what: what.into(), source }
}

/// Builds the driver's inside, or says what is missing and what to do about it. Blocks for some 50 ms.
pub(super) fn probe(options: &LocalOptions, launcher: Launcher) -> Result<Inner, DriverError> {
    let bwrap = find_bwrap()?;
    let privileged = rustix::process::geteuid().is_root();
    let data_dir = data_directory(&options.data_dir)?;
    let data = File::open(&data_dir).map_err(io_error(format!("open {}", data_dir.display())))?;
    let run = RunDir::open(&data).map_err(io_error("make the run directory"))?;
    let owner = privileged.then_some((BASE_ID + bay_ship_api::USER_ID, BASE_ID + bay_ship_api::USER_ID));
    let volumes = Volumes::open(&data, owner).map_err(io_error("make the lockers directory"))?;
    let ship = fs::canonicalize(&options.ship).map_err(|error| {
        unavailable(
            format!("no runtime at {}: {error}", options.ship.display()),
            "build it, or set ship.path",
        )
    })?;
    let run_path = data_dir.join("run");
    let etc = Template::read(Path::new("/etc"));

    let trial =
        Trial { bwrap: &bwrap, launcher: &launcher, run: &run, run_path: &run_path, etc: &etc, privileged };
    sweep(&run, &run_path).map_err(io_error("tidy the run directory"))?;
    trial.run(None)?;

    let cgroups = Cgroups::probe(&options.instance_id);
    let mut notes = Vec::new();
    if !cgroups.enforces() {
        notes.push(
            "no cgroup of ours can bound memory and processes here: rlimits of each process have to do"
                .to_owned(),
        );
    }
    let egress = egress(options, &trial, &mut notes);
    if !matches!(egress, Egress::None(_)) {
        // Ahead of the first start that has the resolvers in it.
        etc.materialise(&run_path, &network::resolvers()).map_err(io_error("generate /etc"))?;
    }
    let system_has_kernel = python::system_has_kernel();
    if python::automatic(&data_dir, system_has_kernel) == python::Choice::None {
        notes.push(
            "no Python environment with ipykernel: `bay quickstart` or `cargo xtask quickstart` makes one"
                .to_owned(),
        );
    }
    let networks = if matches!(egress, Egress::None(_)) {
        vec![Network::None]
    } else {
        vec![Network::None, Network::Egress]
    };
    let features = Features { isolation: isolation(privileged), networks, limits: cgroups.describe(), notes };
    let boot_id = identity::boot_id().map_err(io_error("read the boot id"))?;
    Ok(Inner {
        data_dir,
        run,
        run_path,
        volumes,
        ship,
        bwrap,
        launcher,
        privileged,
        cgroups,
        egress,
        etc,
        system_has_kernel,
        features: Arc::new(features),
        boot_id,
        starting: Mutex::default(),
    })
}

pub(super) fn isolation(privileged: bool) -> Isolation {
    if privileged { Isolation::TwoUid } else { Isolation::NestedPid }
}

fn data_directory(path: &Path) -> Result<PathBuf, DriverError> {
    if !path.exists() {
        let (parent, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(unavailable(
                format!("{} cannot be a data directory", path.display()),
                "set data_dir",
            ));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::create_dir_all(parent).map_err(io_error(format!("make {}", parent.display())))?;
        let parent_fd = File::open(parent).map_err(io_error(format!("open {}", parent.display())))?;
        directory_at(&parent_fd, name, Mode::RWXU).map_err(io_error(format!("make {}", path.display())))?;
    }
    let path = fs::canonicalize(path).map_err(io_error(format!("find {}", path.display())))?;
    // It goes to the launcher as text.
    if path.to_str().is_none() {
        return Err(unavailable(format!("{} is not UTF-8", path.display()), "choose another data_dir"));
    }
    Ok(path)
}

fn find_bwrap() -> Result<PathBuf, DriverError> {
    let remedy = "install it: apt install bubblewrap";
    let path =
        command::find("bwrap").ok_or_else(|| unavailable("bubblewrap (bwrap) is not installed", remedy))?;
    let text = command::run("bwrap", &["--version"], None, TRIAL_LIMIT)
        .map_err(|error| unavailable(format!("bubblewrap does not work: {error}"), remedy))?;
    match version(&text) {
        Some(found) if found >= OLDEST_BWRAP => Ok(path),
        _ => Err(unavailable(
            format!("{} is too old", text.trim()),
            format!("bubblewrap {}.{} or newer is needed: upgrade it", OLDEST_BWRAP.0, OLDEST_BWRAP.1),
        )),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn egress(options: &LocalOptions, trial: &Trial<'_>, notes: &mut Vec<String>) -> Egress {
    let found = if trial.privileged {
        Veths::new(&options.instance_id, trial.run_path, &attached(trial.run)).map(Egress::Veths)
    } else {
        let tried =
            || trial.run(Some(Attached::Pasta)).map_err(|error| format!("pasta does not work here: {error}"));
        pasta::available().and_then(|()| tried()).map(|()| Egress::Pasta)
    };
    match found {
        Ok(egress) => {
            if network::resolvers().is_empty() {
                notes.push("no resolver that a sandbox could reach: egress without DNS".to_owned());
            }
            egress
        }
        Err(reason) => {
            notes.push(format!("no egress network: {reason}; profiles with network = \"none\" work"));
            Egress::None(reason)
        }
    }
}

/// Networks of containers that an earlier Bay left running.
fn attached(run: &RunDir) -> Vec<Attached> {
    let names = run.names().unwrap_or_default();
    let state = |name: String| run.entry(&name).ok().flatten()?.state().ok()?.network;
    names.into_iter().filter_map(state).collect()
}

/// Removes what a Bay that was killed left half made, and generated directories that no container can be using.
fn sweep(run: &RunDir, run_path: &Path) -> io::Result<()> {
    let containers = run.names()?;
    for entry in fs::read_dir(run_path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let generated = name.starts_with("etc-");
        let unused = if generated { containers.is_empty() } else { !containers.contains(&name) };
        if unused && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

struct Trial<'a> {
    bwrap: &'a Path,
    launcher: &'a Launcher,
    run: &'a RunDir,
    run_path: &'a Path,
    etc: &'a Template,
    privileged: bool,
}

impl Trial<'_> {
    /// Runs a sandbox that ends at once.
    fn run(&self, network: Option<Attached>) -> Result<(), DriverError> {
        // Two Bays cannot share a data directory, so a constant name is enough; no container can be called so.
        let name = ".trial";
        let _ = self.run.remove(name);
        let outcome = self.attempt(name, network);
        let log = (self.run.entry(name).ok().flatten())
            .and_then(|entry| entry.log_tail(2000).ok())
            .unwrap_or_default();
        let _ = self.run.remove(name);
        outcome.map_err(|error| explain(&error, &String::from_utf8_lossy(&log), self.privileged))
    }

    fn attempt(&self, name: &str, network: Option<Attached>) -> io::Result<()> {
        let entry = self.run.create(name)?;
        let etc = self.etc.materialise(self.run_path, &[])?;
        let workspace = tempfile::tempdir_in(self.run_path)?;
        let source = |path: PathBuf| Source { path, beneath: Vec::new() };
        let request = Request {
            launcher: self.launcher,
            bwrap: self.bwrap,
            entry: &entry,
            directory: &self.run_path.join(name),
            privileged: self.privileged,
            net_admin: false,
            memory: 64 << 20,
            parts: Sources {
                etc: source(self.run_path.join(etc)),
                workspace: source(workspace.path().to_owned()),
                ship: source(fs::canonicalize(NOTHING)?),
                spool: None,
                python: None,
                rootfs: source("/".into()),
            },
            resolvers: Vec::new(),
        };
        let state = State {
            boot_id: String::new(),
            role: "trial".to_owned(),
            groups: Vec::new(),
            network,
            started: None,
        };
        let config = InitConfig {
            session: String::new(),
            generation: 0,
            token: String::new(),
            isolation: isolation(self.privileged),
            env: std::collections::BTreeMap::new(),
            python: None,
            capabilities: Vec::new(),
            network: NetworkSetup::None,
            limits: Limits { pids: 1, memory: 1 << 20, nofile: 64, enforce: false },
            output_limit: DEFAULT_OUTPUT_LIMIT,
        };
        match start::start(&request, &state, &config) {
            Ok(state) => {
                if let Some(helper) = state.started.and_then(|started| started.helper) {
                    pasta::end(helper)?;
                }
                let monitor =
                    state.started.and_then(|started| started.monitor.open().transpose()).transpose()?;
                if let Some(monitor) = monitor
                    && !identity::wait_ended(&monitor, TRIAL_LIMIT)?
                {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "a sandbox that does nothing does not end",
                    ));
                }
            }
            // It ended before anyone could look at it; how is written down all the same.
            Err(error) if entry.exit_code()?.is_none() => return Err(error),
            Err(_) => {}
        }
        match entry.exit_code()? {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::other(format!("a sandbox that does nothing ended with {code}"))),
            None => Err(io::Error::other("bubblewrap did not say how the sandbox ended")),
        }
    }
}

/// Turns the failure of a first sandbox into what to do about it.
fn explain(error: &io::Error, log: &str, privileged: bool) -> DriverError {
    let log = log.trim();
    let message = if log.is_empty() {
        format!("no sandbox can be started: {error}")
    } else {
        format!("no sandbox can be started: {error}: {log}")
    };
    let setting = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if setting("/proc/sys/user/max_user_namespaces") == "0" {
        return unavailable(message, "allow user namespaces: sysctl -w user.max_user_namespaces=15000");
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" && !privileged {
        return unavailable(
            message,
            "allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1, or run Bay as root",
        );
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && !privileged {
        return unavailable(message, APPARMOR_REMEDY);
    }
    if log.contains("/proc") || log.contains("Can't mount proc") {
        return unavailable(
            message,
            "inside a container, /proc must not be masked: run it with --security-opt systempaths=unconfined, or run Bay on the host",
        );
    }
    unavailable(
        message,
        "user namespaces, mounts and new /proc must be allowed: inside a container they usually are not; run Bay on the host",
    )
}

/// Ubuntu from 23.10 on lets only programs with an AppArmor profile that says so make user namespaces.
pub(super) const APPARMOR_REMEDY: &str = "AppArmor forbids user namespaces to bwrap. Either allow them to it alone:\n\
    printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile bwrap /usr/bin/bwrap flags=(unconfined) {\\n  userns,\\n}\\n' \
    | sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap\n\
    or to every program: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n\
    or run Bay as root";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert_eq!(version("bubblewrap 0.11.0"), Some((0, 11)));
        assert!(version("bubblewrap 0.10.0") > Some(OLDEST_BWRAP));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_failure_names_the_log_and_a_remedy() {
        let error = explain(
            &io::Error::other("x"),
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted\n",
            true,
        );
        let text = error.to_string();
        assert!(text.contains("Can't mount proc") && text.contains("systempaths=unconfined"), "{text}");
    }
}
