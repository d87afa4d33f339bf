//! The engine's own API without Bay: what nobody can be faster than. Published port and volume where Bay has them.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use bay_tests::Engine;
use serde_json::{Value, json};

/// Every container of this bench is called so, and a number.
const NAME: &str = "bay-bench-bare";

pub(super) struct Bare {
    engine: Engine,
    image: String,
    connect: String,
    made: AtomicUsize,
}

impl Bare {
    pub(super) fn new(engine: Engine, image: String, connect: String) -> anyhow::Result<Self> {
        ensure!(engine.answers(), "the engine does not answer");
        Ok(Self { engine, image, connect, made: AtomicUsize::new(0) })
    }

    fn ask(&self, method: &str, target: &str, body: &Value, fine: &[u16]) -> anyhow::Result<Value> {
        let body = (!body.is_null()).then(|| ("application/json", body.to_string().into_bytes()));
        let answer = self.engine.ask(method, target, body).with_context(|| format!("{method} {target}"))?;
        let good = answer.status < 300 || fine.contains(&answer.status);
        ensure!(good, "{method} {target}: {} {}", answer.status, answer.brief());
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// A container that runs this, with a volume, and a port where Bay would publish one.
    pub(super) fn create_and_start(&self, command: &[&str]) -> anyhow::Result<String> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME}-{}-{number}", std::process::id());
        let published = self.connect == "host_port";
        let ports = if published { json!({ "8123/tcp": {} }) } else { json!({}) };
        let bindings = if published {
            json!({ "8123/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] })
        } else {
            json!({})
        };
        // Without a port of its own Bay's shell profile has no network.
        let network = if self.connect == "socket" { "none" } else { "bridge" };
        let wanted = json!({
            "Image": self.image, "Entrypoint": command, "Cmd": [], "User": "0:0", "ExposedPorts": ports,
            "HostConfig": {
                "NetworkMode": network, "PortBindings": bindings, "ReadonlyRootfs": true,
                "Tmpfs": { "/tmp": "", "/root": "" },
                "Mounts": [{ "Type": "volume", "Source": name, "Target": "/workspace" }],
            },
        });
        let made = self.ask("POST", &format!("/containers/create?name={name}"), &wanted, &[])?;
        let id = made["Id"].as_str().context("no id")?.to_owned();
        self.ask("POST", &format!("/containers/{id}/start"), &Value::Null, &[])?;
        // The name finds the volume, too.
        Ok(name)
    }

    /// What a command in it printed.
    pub(super) fn run(&self, container: &str, command: &[&str]) -> anyhow::Result<String> {
        let wanted = json!({ "Cmd": command, "AttachStdout": true, "Tty": true, "WorkingDir": "/workspace" });
        let made = self.ask("POST", &format!("/containers/{container}/exec"), &wanted, &[])?;
        let id = made["Id"].as_str().context("no id")?;
        let body = ("application/json", json!({ "Detach": false, "Tty": true }).to_string().into_bytes());
        Ok(self.engine.ask("POST", &format!("/exec/{id}/start"), Some(body))?.text())
    }

    pub(super) fn kill_and_remove(&self, container: &str) -> anyhow::Result<()> {
        self.ask("POST", &format!("/containers/{container}/kill"), &Value::Null, &[409])?;
        self.ask("DELETE", &format!("/containers/{container}?force=true&v=true"), &Value::Null, &[404])?;
        Ok(())
    }

    /// With its volume. Idempotent.
    pub(super) fn remove(&self, container: &str) -> anyhow::Result<()> {
        self.ask("DELETE", &format!("/containers/{container}?force=true&v=true"), &Value::Null, &[404])?;
        self.ask("DELETE", &format!("/volumes/{container}"), &Value::Null, &[404])?;
        Ok(())
    }
}
