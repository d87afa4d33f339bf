//! What the driver does, call by call, on blocking threads: everything between the trait and the kernel.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bay_ship_api::AGENT_ID;
use bay_ship_api::init::{InitConfig, NetworkSetup};
use rustix::process::Signal;

use super::cgroup::{self, Bounds};
use super::etc::Template;
use super::netlink::Netlink;
use super::network::{self, Attached, SUBNET_BITS, denied_prefixes};
use super::start::{self, Request, Source, Sources};
use super::state::{Entry, SPOOL, Started, State, valid_name};
use super::{BASE_ID, CODE_LIMIT, Egress, GROUP_LIMIT, Inner, LOG_TAIL, failed, identity, pasta, python};
use crate::driver::{ContainerRef, ContainerSpec, ContainerStatus, DriverError, Network, end_words};

impl Inner {
    pub(super) fn entry(&self, name: &str) -> Result<Option<Entry>, DriverError> {
        if !valid_name(name) {
            return Err(DriverError::Missing(name.to_owned()));
        }
        self.run.entry(name).map_err(failed(format!("open the directory of {name}")))
    }

    pub(super) fn load(&self, name: &str) -> Result<Option<(Entry, State)>, DriverError> {
        let Some(entry) = self.entry(name)? else { return Ok(None) };
        match entry.state() {
            Ok(state) => Ok(Some((entry, state))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("read the state of {name}"))(error)),
        }
    }

    /// The processes, if they were started in this boot: of another, their pids are somebody else's.
    pub(super) fn of_this_boot(&self, state: &State) -> Option<Started> {
        state.started.filter(|_| state.boot_id == self.boot_id)
    }

    pub(super) fn reference(name: &str, state: &State) -> Result<ContainerRef, DriverError> {
        let backend = serde_json::to_value(state)
            .map_err(|error| failed("write the state")(io::Error::other(error)))?;
        Ok(ContainerRef { name: name.to_owned(), backend })
    }

    pub(super) fn create(&self, spec: &ContainerSpec) -> Result<ContainerRef, DriverError> {
        let name = &spec.name;
        if !valid_name(name) || !valid_name(&spec.volume) {
            return Err(DriverError::Start {
                name: name.clone(),
                reason: "names are lower-case letters, digits, - and _".to_owned(),
            });
        }
        let network = match (spec.network, &self.egress) {
            (Network::None, _) => None,
            (Network::Egress, Egress::Veths(veths)) => {
                let attached = veths.allocate(&network::resolvers());
                Some(attached.map_err(|error| no_network(Network::Egress, error.to_string()))?)
            }
            (Network::Egress, Egress::Pasta) => Some(Attached::Pasta),
            (Network::Egress, Egress::None(reason)) => {
                return Err(no_network(Network::Egress, reason.clone()));
            }
            (Network::Internal, _) => {
                return Err(no_network(
                    Network::Internal,
                    "the local driver runs one container a session".to_owned(),
                ));
            }
        };
        let state = State {
            boot_id: self.boot_id.clone(),
            role: spec.role.clone(),
            groups: self.cgroups.plan(name),
            network,
            started: None,
        };
        let bounds = Bounds { memory: spec.memory, pids: spec.pids, cpus: spec.cpus };
        let entry = match self.run.create(name) {
            Ok(entry) => entry,
            Err(error) => {
                // Somebody else's directory, if it was there already: only what was taken here is given back.
                self.release(&state);
                return Err(failed(format!("make the directory of {name}"))(error));
            }
        };
        let made = entry.write_state(&state).and_then(|()| cgroup::create(&state.groups, bounds));
        if let Err(error) = made {
            self.release(&state);
            let _ = self.run.remove(name);
            return Err(failed(format!("create {name}"))(error));
        }
        Self::reference(name, &state)
    }

    pub(super) fn release(&self, state: &State) {
        if let (Some(attached), Egress::Veths(veths)) = (&state.network, &self.egress)
            && let Err(error) = veths.release(attached)
        {
            tracing::warn!(%error, "a network was not given back");
        }
    }

    pub(super) fn start(
        &self,
        name: &str,
        spec: &ContainerSpec,
        init: &InitConfig,
    ) -> Result<ContainerRef, DriverError> {
        let (entry, state) = self.load(name)?.ok_or_else(|| DriverError::Missing(name.to_owned()))?;
        let refuse = |reason: String| DriverError::Start { name: name.to_owned(), reason };
        let _claim =
            Claim::take(&self.starting, name).ok_or_else(|| refuse("it is being started".to_owned()))?;
        if let Some(started) = self.of_this_boot(&state)
            && started.init.open().map_err(failed("look for the sandbox"))?.is_some()
        {
            return Err(refuse("it runs already".to_owned()));
        }
        if !self.volumes.exists(&spec.volume).map_err(failed("look for the volume"))? {
            return Err(DriverError::Missing(spec.volume.clone()));
        }
        let resolvers = if state.network.is_some() { network::resolvers() } else { Vec::new() };
        let python = self.python(&spec.python).map_err(refuse)?;
        let agent = self.privileged.then_some(BASE_ID + AGENT_ID);
        entry.make_spool(agent).map_err(|error| refuse(error.to_string()))?;
        let parts =
            self.sources(name, spec, &python, &resolvers).map_err(|error| refuse(error.to_string()))?;
        let config = self.configuration(init, &state, &python, &resolvers)?;
        let request = Request {
            launcher: &self.launcher,
            bwrap: &self.bwrap,
            entry: &entry,
            directory: &self.run_path.join(name),
            privileged: self.privileged,
            net_admin: matches!(config.network, NetworkSetup::PolicyRoutes { .. }),
            memory: spec.memory,
            parts,
            resolvers,
        };
        let fresh = State { boot_id: self.boot_id.clone(), started: None, ..state };
        match start::start(&request, &fresh, &config) {
            Ok(state) => Self::reference(name, &state),
            Err(error) => {
                // What it had started is dead; the next start or a destroy finds it as after create.
                let _ = entry.write_state(&fresh);
                let log = entry.log_tail(LOG_TAIL).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                Err(refuse(format!("{error}: {}", log.trim()).trim_end_matches(": ").to_owned()))
            }
        }
    }

    pub(super) fn python(&self, wanted: &str) -> Result<python::Choice, String> {
        if wanted == "auto" || wanted.is_empty() {
            return Ok(python::automatic(&self.data_dir, self.system_has_kernel));
        }
        let venv =
            std::fs::canonicalize(wanted).map_err(|error| format!("python environment {wanted}: {error}"))?;
        python::check(&venv)?;
        Ok(python::Choice::Venv(venv))
    }

    pub(super) fn sources(
        &self,
        name: &str,
        spec: &ContainerSpec,
        python: &python::Choice,
        resolvers: &[Ipv4Addr],
    ) -> io::Result<Sources> {
        let source = |path: &Path, beneath: &[&str]| Source {
            path: path.to_owned(),
            beneath: beneath.iter().map(|name| (*name).to_owned()).collect(),
        };
        let (rootfs, etc) = if spec.rootfs == "host" || spec.rootfs.is_empty() {
            (PathBuf::from("/"), self.etc.materialise(&self.run_path, resolvers)?)
        } else {
            let rootfs = std::fs::canonicalize(&spec.rootfs)?;
            let etc = Template::read(&rootfs.join("etc")).materialise(&self.run_path, resolvers)?;
            (rootfs, etc)
        };
        Ok(Sources {
            etc: source(&self.run_path, &[&etc]),
            workspace: source(&self.data_dir, &["lockers", &spec.volume]),
            ship: source(&self.ship, &[]),
            spool: Some(source(&self.run_path, &[name, SPOOL])),
            python: match python {
                python::Choice::Venv(venv) => Some(source(venv, &[])),
                python::Choice::System | python::Choice::None => None,
            },
            rootfs: source(&rootfs, &[]),
        })
    }

    /// The caller's configuration with what only the driver knows.
    pub(super) fn configuration(
        &self,
        init: &InitConfig,
        state: &State,
        python: &python::Choice,
        resolvers: &[Ipv4Addr],
    ) -> Result<InitConfig, DriverError> {
        let network = match &state.network {
            None => NetworkSetup::None,
            Some(Attached::Pasta) => NetworkSetup::Enforced,
            Some(attached @ Attached::Veth { .. }) => {
                let own = Netlink::open().and_then(|mut netlink| netlink.addresses());
                let own = own.map_err(|error| no_network(Network::Egress, error.to_string()))?;
                let subnet = network::addresses(attached).map(|addresses| (addresses.gateway, SUBNET_BITS));
                NetworkSetup::PolicyRoutes {
                    deny: denied_prefixes(&own, subnet),
                    allow: resolvers.iter().map(ToString::to_string).collect(),
                }
            }
        };
        let mut config = init.clone();
        config.network = network;
        config.isolation = self.features.isolation;
        config.python = python.interpreter();
        config.limits.enforce = !self.cgroups.enforces();
        Ok(config)
    }

    /// After init has ended: whatever else there is.
    pub(super) fn end_leftovers(&self, name: &str) -> Result<(), DriverError> {
        let Some((_, state)) = self.load(name)? else { return Ok(()) };
        if let Some(started) = self.of_this_boot(&state) {
            if let Some(helper) = started.helper {
                pasta::end(helper).map_err(failed("end the network helper"))?;
            }
            if let Some(monitor) = started.monitor.open().map_err(failed("look for bubblewrap"))?
                && !identity::wait_ended(&monitor, CODE_LIMIT).map_err(failed("wait for bubblewrap"))?
            {
                identity::signal(&monitor, Signal::KILL).map_err(failed("end bubblewrap"))?;
            }
        }
        if cgroup::kill(&state.groups, GROUP_LIMIT).map_err(failed("end what is left in the cgroup"))? {
            Ok(())
        } else {
            Err(DriverError::Timeout {
                what: format!("the end of every process of {name}"),
                limit: GROUP_LIMIT,
            })
        }
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), DriverError> {
        if let Some((_, state)) = self.load(name)? {
            if let (Some(attached), Egress::Veths(veths)) = (&state.network, &self.egress) {
                veths.release(attached).map_err(failed("remove the network"))?;
            }
            cgroup::remove(&state.groups, GROUP_LIMIT).map_err(failed("remove the cgroup"))?;
        }
        self.run.remove(name).map_err(failed(format!("remove the directory of {name}")))
    }

    pub(super) fn status(&self, name: &str) -> Result<ContainerStatus, DriverError> {
        let Some((entry, state)) = self.load(name)? else { return Ok(ContainerStatus::Missing) };
        let exited = |reason: &str| Ok(ContainerStatus::Exited { reason: reason.to_owned() });
        if state.started.is_none() {
            return exited("not started");
        }
        let Some(started) = self.of_this_boot(&state) else { return exited("the machine was restarted") };
        if started.init.open().map_err(failed("look for the sandbox"))?.is_some() {
            return Ok(ContainerStatus::Running);
        }
        let code = entry.exit_code().map_err(failed("read the exit code"))?;
        exited(&reason(code, cgroup::oom_kills(&state.groups)))
    }
}

fn no_network(policy: Network, reason: String) -> DriverError {
    DriverError::Network { policy, reason }
}

/// For a person. Bubblewrap says 128 + signal for a signal.
fn reason(code: Option<i32>, oom_kills: u64) -> String {
    if code != Some(0) && oom_kills > 0 { "out of memory".to_owned() } else { end_words(code.map(i64::from)) }
}

/// A name on the list of those being started, while it lives.
struct Claim<'a> {
    list: &'a Mutex<BTreeSet<String>>,
    name: String,
}

impl<'a> Claim<'a> {
    pub(super) fn take(list: &'a Mutex<BTreeSet<String>>, name: &str) -> Option<Self> {
        let fresh = list.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        fresh.then(|| Self { list, name: name.to_owned() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
