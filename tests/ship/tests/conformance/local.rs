//! The same cases in containers of Bay's own local driver, with the Ship that Bay carries.
//!
//! Bay runs and makes sandboxes; the test derives a session's token from Bay's secret as Bay does, and opens
//! connections of its own to the container's socket.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::Isolation;
use bay_ship_tests::{Place, Stream};
use bay_tests::{Bay, Options, Profile, Sandbox, is_root};
use serde_json::json;

use crate::Case;

/// The name of the one container of the profile, with which the names of its directories end.
const ROLE: &str = "ship";

/// A sandbox of a running Bay.
struct LocalDriver<'b> {
    bay: &'b Bay,
    sandbox: Sandbox,
    /// The container's own in Bay's data directory.
    dir: PathBuf,
    credentials: Credentials,
}

/// The directory of a container, with the session and generation that its name is made of.
fn container(dir: &Path) -> Option<(PathBuf, String, u64)> {
    let parts: Vec<&str> = dir.file_name()?.to_str()?.split('-').collect();
    let ["bay", "ses", id, generation, ROLE] = parts[..] else { return None };
    Some((dir.to_owned(), format!("ses_{id}"), generation.parse().ok()?))
}

impl<'b> LocalDriver<'b> {
    fn new(bay: &'b Bay) -> Self {
        let env = json!({"GREETING": "from the profile"});
        let sandbox = bay.api().sandbox(json!({"profile": "python-default", "start": "wait", "env": env}));
        sandbox.ready();
        // `bay-ses-<ulid>-<generation>-ship`, made of the session `ses_<ulid>`; other things have other names.
        let runs = fs::read_dir(bay.data_dir().join("run")).unwrap();
        let mut found: Vec<_> = runs.filter_map(|entry| container(&entry.unwrap().path())).collect();
        assert_eq!(found.len(), 1, "one sandbox at a time: {found:?}");
        let (dir, session, generation) = found.remove(0);
        let secret = fs::read(bay.data_dir().join("instance.secret")).unwrap();
        let credentials = Credentials::derive(&secret, &session, generation);
        Self { bay, sandbox, dir, credentials }
    }

    fn delete(self) {
        self.sandbox.call("DELETE", "").send().expect(204);
        bay_tests::until("the container to be gone", bay_ship_tests::PATIENCE, || {
            (!self.dir.exists()).then_some(())
        });
    }
}

impl Place for LocalDriver<'_> {
    fn name(&self) -> String {
        "local driver".to_owned()
    }

    fn isolation(&self) -> Isolation {
        if is_root() { Isolation::TwoUid } else { Isolation::NestedPid }
    }

    fn dial(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(UnixStream::connect(self.dir.join("ship.sock"))?))
    }

    fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn ended(&self) -> bool {
        !self.dir.exists()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn agent(&self) -> Option<u32> {
        let processes = self.bay.processes_of(&self.sandbox.locker);
        processes.iter().find(|process| process.name == "ship-agent").map(|agent| agent.pid.cast_unsigned())
    }
}

/// Runs each case in a sandbox of its own; fails with the names of those that failed.
fn conforms(cases: &[Case]) {
    let resources = json!({"resources": {"cpus": 2.0, "memory": "2g", "pids": 512}});
    let bay = Bay::start(Options::default().profile(Profile::python().container(resources)));
    let mut failed = Vec::new();
    for case in cases {
        eprintln!("local driver: {}", case.name);
        let place = LocalDriver::new(&bay);
        if catch_unwind(AssertUnwindSafe(|| (case.run)(&place))).is_err() {
            eprintln!("its log:\n{}", place.log());
            failed.push(case.name);
        }
        place.delete();
    }
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

#[test]
fn errors() {
    conforms(crate::errors::CASES);
}

#[test]
fn files() {
    conforms(crate::files::CASES);
}

#[test]
fn handshake() {
    conforms(crate::handshake::CASES);
}

#[test]
fn load() {
    conforms(crate::load::CASES);
}

#[test]
fn meta() {
    conforms(crate::meta::CASES);
}

#[test]
fn python() {
    conforms(crate::python::CASES);
}

#[test]
fn shell() {
    conforms(crate::shell::CASES);
}
