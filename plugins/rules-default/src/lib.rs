//! Bay's default rules: everything is allowed, but for what the configuration names.
//!
//! ```toml
//! [plugins.rules-default]
//! config = { deny_actions = ["capability.shell.*"], blocked_words = ["rm -rf /"] }
//! ```
//!
//! Blocked words catch mistakes, not malice: code can spell anything another way. The sandbox is what holds.

use serde::Deserialize;
use serde_json::Value;

use exports::bay::plugin::rules::{Admission, Guest, Verdict};

wit_bindgen::generate!({ path: "../../wit/since-v0.1.0", world: "rules-plugin" });

/// Input properties that hold something to be run.
const RUNNABLE: &[&str] = &["code", "command"];

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Actions that nobody may do: exact, or everything beneath a prefix that ends in `.*`.
    deny_actions: Vec<String>,
    /// Texts that may not appear in code or commands.
    blocked_words: Vec<String>,
}

struct Rules;

impl Guest for Rules {
    fn check(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        if config.deny_actions.iter().chain(&config.blocked_words).any(String::is_empty) {
            return Err("an empty text in `deny_actions` or `blocked_words` would match everything".into());
        }
        Ok(())
    }

    fn admit(config: String, admission: Admission) -> Verdict {
        // `check` has seen it; should it not parse after all, nothing passes.
        let Ok(config) = serde_json::from_str::<Config>(&config) else {
            return Verdict::Deny("the rules' configuration cannot be read".into());
        };
        if config.deny_actions.iter().any(|pattern| covers(pattern, &admission.action)) {
            return Verdict::Deny(format!("`{}` is not allowed here", admission.action));
        }
        if config.blocked_words.is_empty() {
            return Verdict::Allow;
        }
        let Ok(input) = serde_json::from_str::<Value>(&admission.input) else {
            return Verdict::Deny("the input cannot be read".into());
        };
        match blocked(&config.blocked_words, &input) {
            Some((field, word)) => {
                Verdict::Deny(format!("`{field}` contains `{word}`, which is blocked here"))
            }
            None => Verdict::Allow,
        }
    }
}

/// Whether a pattern names this action.
fn covers(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.ends_with('.') => action.starts_with(prefix),
        _ => pattern == action,
    }
}

/// The first field that holds a blocked word, and that word.
fn blocked<'a>(words: &'a [String], input: &Value) -> Option<(&'static str, &'a str)> {
    RUNNABLE.iter().find_map(|field| {
        let text = input.get(field)?.as_str()?;
        words.iter().find(|word| text.contains(word.as_str())).map(|word| (*field, word.as_str()))
    })
}

export!(Rules);
