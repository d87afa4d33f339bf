//! What one Bay has on a Docker engine: containers, networks and volumes that carry its label.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::http::encode;
use crate::procs::Process;

/// The label they are found by.
const INSTANCE: &str = "bay.instance";

/// Columns of a container's processes; what may hold blanks comes last.
const PS: &str = "-o pid,ppid,uid,stat,comm,args -ww";

/// Everything of one Bay on one engine.
#[derive(Debug, Clone)]
pub struct Containers {
    /// The engine.
    pub engine: Engine,
    instance: String,
}

impl Containers {
    /// Of the Bay with this data directory; none before it has made its secret.
    pub fn of(engine: Engine, data: &Path) -> Option<Self> {
        let secret = std::fs::read(data.join("instance.secret")).ok()?;
        let digest = Sha256::digest(secret);
        let instance = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { engine, instance })
    }

    /// What of this kind (`containers/json?all=true`, `networks`, `volumes`) carries the label.
    #[track_caller]
    fn find(&self, kind: &str) -> Vec<Value> {
        let sign = if kind.contains('?') { '&' } else { '?' };
        let filter = json!({ "label": [format!("{INSTANCE}={}", self.instance)] });
        let found = self.engine.get(&format!("/{kind}{sign}filters={}", encode(&filter.to_string())));
        let list = if kind == "volumes" { &found["Volumes"] } else { &found };
        list.as_array().cloned().unwrap_or_default()
    }

    /// All of them, those that ended too, as the engine lists them.
    #[track_caller]
    pub fn all(&self) -> Vec<Value> {
        self.find("containers/json?all=true")
    }

    /// The processes of those that run.
    #[track_caller]
    pub fn processes(&self) -> Vec<Process> {
        self.find("containers/json").iter().flat_map(|c| self.processes_in(c)).collect()
    }

    /// The processes of those that run with this locker.
    #[track_caller]
    pub fn processes_of(&self, locker: &str) -> Vec<Process> {
        let id = locker.trim_start_matches("lkr_");
        let has = |c: &&Value| {
            let mounts = c["Mounts"].as_array();
            mounts.into_iter().flatten().any(|m| m["Name"].as_str().is_some_and(|name| name.ends_with(id)))
        };
        self.find("containers/json").iter().filter(has).flat_map(|c| self.processes_in(c)).collect()
    }

    /// None where the container ended meanwhile.
    #[track_caller]
    fn processes_in(&self, container: &Value) -> Vec<Process> {
        let id = container["Id"].as_str().unwrap_or_default();
        let ask = |tail: &str| {
            let answer = self.engine.ask("GET", &format!("/containers/{id}/{tail}"), None);
            let answer = answer.unwrap_or_else(|e| panic!("engine: {tail} of container {id}: {e}"));
            match answer.status {
                200 => Some(answer),
                // It is gone, or does not run any more.
                404 | 409 => None,
                status => panic!("engine: {}: {status}: {}", answer.asked, answer.brief()),
            }
        };
        let (Some(top), Some(shown)) = (ask(&format!("top?ps_args={}", encode(PS))), ask("json")) else {
            return Vec::new();
        };
        let first = shown.json()["State"]["Pid"].as_i64().unwrap_or_default();
        let top = top.json();
        let rows = top["Processes"].as_array().into_iter().flatten();
        rows.filter_map(|row| self.process(id, first, row)).filter(|p| p.state != 'Z').collect()
    }

    fn process(&self, container: &str, first: i64, row: &Value) -> Option<Process> {
        let field = |at: usize| row[at].as_str();
        let pid: i32 = field(0)?.parse().ok()?;
        Some(Process {
            pid,
            parent: field(1)?.parse().ok()?,
            // Of the pids inside only the first one's is known out here.
            ns_pids: if i64::from(pid) == first { vec![pid, 1] } else { vec![pid] },
            uid: field(2)?.parse().ok()?,
            state: field(3)?.chars().next()?,
            name: field(4)?.to_owned(),
            cmdline: field(5)?.to_owned(),
            container: Some((self.engine.clone(), container.to_owned())),
        })
    }

    /// The volumes that its containers have to themselves; the runtime's is everybody's.
    #[track_caller]
    pub fn volumes(&self) -> Vec<String> {
        let containers = self.all();
        let mounts = containers.iter().flat_map(|c| c["Mounts"].as_array().into_iter().flatten());
        let names = mounts.filter(|m| m["Type"] == "volume").filter_map(|m| m["Name"].as_str());
        names.filter(|name| !name.starts_with("bay-ship-")).map(str::to_owned).collect()
    }

    /// What is there, in words, with these volumes as far as they still exist.
    #[track_caller]
    pub fn left(&self, volumes: &[String]) -> Vec<String> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let mut left: Vec<String> = Vec::new();
        let all = self.all();
        left.extend(
            all.iter().map(|c| format!("container {} ({})", text(&c["Names"][0]), text(&c["Status"]))),
        );
        left.extend(self.find("networks").iter().map(|n| format!("network {}", text(&n["Name"]))));
        left.extend(self.find("volumes").iter().map(|v| format!("volume {}", text(&v["Name"]))));
        let others = volumes.iter().filter(|name| self.engine.has_volume(name));
        left.extend(others.map(|name| format!("volume {name} of a container")));
        left
    }

    /// Removes all of it, as far as it lets itself be removed.
    pub fn remove_all(&self) {
        if !self.engine.answers() {
            return;
        }
        let remove = |place: String| {
            let _ = self.engine.ask("DELETE", &place, None);
        };
        let id = |v: &Value, field: &str| encode(v[field].as_str().unwrap_or_default());
        for container in self.all() {
            remove(format!("/containers/{}?force=true&v=true", id(&container, "Id")));
        }
        self.find("networks").iter().for_each(|n| remove(format!("/networks/{}", id(n, "Id"))));
        self.find("volumes").iter().for_each(|v| remove(format!("/volumes/{}", id(v, "Name"))));
    }
}
