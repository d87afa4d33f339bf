//! Rules that change an input: a prelude goes in front of all Python code.
//!
//! ```toml
//! [plugins.prelude]
//! path = "amend_code.wasm"
//! config = { prelude = "import math" }
//! ```

use serde::Deserialize;
use serde_json::{Value, json};

use exports::bay::plugin::rules::{Admission, Guest, Verdict};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "rules-plugin" });

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    prelude: String,
}

struct Rules;

impl Guest for Rules {
    fn check(config: String) -> Result<(), String> {
        serde_json::from_str::<Config>(&config).map(drop).map_err(|e| e.to_string())
    }

    fn admit(config: String, admission: Admission) -> Verdict {
        if admission.action != "capability.python.exec" {
            return Verdict::Allow;
        }
        let Ok(Config { prelude }) = serde_json::from_str(&config) else {
            return Verdict::Deny("the prelude cannot be read".into());
        };
        match serde_json::from_str::<Value>(&admission.input).ok().as_ref().and_then(|i| i["code"].as_str()) {
            Some(code) => Verdict::Amend(json!({ "code": format!("{prelude}\n{code}") }).to_string()),
            None => Verdict::Deny("there is no code to put a prelude in front of".into()),
        }
    }
}

export!(Rules);
