//! Rules that misbehave as their configuration says: `{"mode": "spin"}`.

use exports::bay::plugin::rules::{Admission, Guest, Verdict};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "rules-plugin" });

include!("../../misbehave.rs");

struct Rules;

impl Guest for Rules {
    fn check(config: String) -> Result<(), String> {
        match mode(&config).as_str() {
            "refuse-config" => Err("not with this configuration".into()),
            "spin-in-check" => {
                misbehave("spin");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn admit(config: String, _admission: Admission) -> Verdict {
        let mode = mode(&config);
        misbehave(&mode);
        match mode.as_str() {
            "huge" => Verdict::Deny(huge()),
            "large" => Verdict::Amend(large()),
            "nonsense" => Verdict::Amend("{\"code\": ".into()),
            "deep" => Verdict::Amend(deep()),
            "not-an-object" => Verdict::Amend("[1, 2]".into()),
            "long-reason" => Verdict::Deny(format!("no\u{1b}[31m{}", "o".repeat(1 << 20))),
            // What the host must not let an amend do.
            "amend-wildly" => Verdict::Amend(r#"{"timeout": -5, "path": "/etc/passwd", "code": 7}"#.into()),
            _ => Verdict::Allow,
        }
    }
}

export!(Rules);
