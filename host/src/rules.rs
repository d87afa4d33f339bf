//! Asks a chain of rules: stops at the first denial, carries amendments on. Fails closed.

use std::sync::Arc;

use bay_plugin_host::{Admission, RulesPlugin, Verdict};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, Code};

/// Longest reason of a denial that a client sees.
const MAX_REASON: usize = 1024;

/// Runs the chain; the input as amended, and whether it was.
pub async fn admit(chain: &[Arc<RulesPlugin>], mut admission: Admission) -> ApiResult<(Value, bool)> {
    let mut amended = false;
    for plugin in chain {
        match plugin.admit(&admission).await? {
            Verdict::Allow => {}
            Verdict::Deny { mut reason } => {
                reason.truncate(reason.floor_char_boundary(MAX_REASON));
                return Err(ApiError::new(Code::DeniedByRule, format!("{}: {reason}", plugin.name()))
                    .with(json!({ "rule": plugin.name(), "reason": reason })));
            }
            Verdict::Amend(patch) => {
                merge(&mut admission.input, patch);
                amended = true;
            }
        }
    }
    Ok((admission.input, amended))
}

/// JSON Merge Patch (RFC 7396).
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_examples() {
        for (mut target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            merge(&mut target, patch);
            assert_eq!(target, result);
        }
    }
}
