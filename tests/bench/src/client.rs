//! Timed requests over connections that stay open, as a real client's do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use ureq::Agent;

/// Longer than anything measured here.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bay's client.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    key: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            // The environment's proxy is not part of what is measured.
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            base: format!("http://{address}/v1/sandboxes"),
            key: format!("Bearer {key}"),
        }
    }

    /// Sends JSON; the answer, and the milliseconds from before sending to having read it whole.
    pub(crate) fn post(&self, tail: &str, body: &Value) -> anyhow::Result<(Value, f64)> {
        let text = body.to_string();
        let began = Instant::now();
        let mut answer = self
            .agent
            .post(format!("{}{tail}", self.base))
            .header("Authorization", &self.key)
            .header("Content-Type", "application/json")
            .send(text)
            .with_context(|| format!("POST {tail}"))?;
        let said = answer.body_mut().read_to_string()?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.status().is_success(), "POST {tail}: {}: {said}", answer.status());
        Ok((serde_json::from_str(&said)?, took))
    }

    /// Deletes a sandbox.
    pub(crate) fn delete(&self, id: &str) -> anyhow::Result<()> {
        let answer =
            self.agent.delete(format!("{}/{id}", self.base)).header("Authorization", &self.key).call()?;
        ensure!(answer.status() == 204, "DELETE of {id}: {}", answer.status());
        Ok(())
    }
}
