//! The smallest rules that decide anything: everything is refused, with the operator's own reason.
//!
//! ```toml
//! [plugins.rules-default]
//! path = "deny_all.wasm"
//! config = { reason = "closed for the night" }
//! ```

use serde::Deserialize;

use exports::bay::plugin::rules::{Admission, Guest, Verdict};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "rules-plugin" });

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "default_reason")]
    reason: String,
    /// Actions that are let through all the same.
    #[serde(default)]
    but: Vec<String>,
}

fn default_reason() -> String {
    "everything is refused here".into()
}

struct Rules;

impl Guest for Rules {
    fn check(config: String) -> Result<(), String> {
        serde_json::from_str::<Config>(&config).map(drop).map_err(|e| e.to_string())
    }

    fn admit(config: String, admission: Admission) -> Verdict {
        match serde_json::from_str::<Config>(&config) {
            Ok(config) if config.but.contains(&admission.action) => Verdict::Allow,
            Ok(config) => Verdict::Deny(config.reason),
            Err(_) => Verdict::Deny(default_reason()),
        }
    }
}

export!(Rules);
