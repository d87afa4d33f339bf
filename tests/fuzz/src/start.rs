//! What the privileged half reads: the start-up message, and the agent's requests to the spawner.

use bay_ship::fuzz;

use crate::texts;

pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let message = |token: &str, env: &str, network: &str| {
        format!(
            r#"{{"session":"s","generation":1,"token":"{token}","isolation":"two_uid","env":{env},"python":null,
            "capabilities":["shell"],"network":{network},
            "limits":{{"pids":64,"memory":1,"nofile":64,"enforce":false}}}}"#
        )
    };
    let token = "5a".repeat(32);
    let routes = r#"{"mode":"policy_routes","deny":["10.0.0.0/8","::/0"],"allow":["10.0.0.2"]}"#;
    texts(&[
        &message(&token, "{}", r#"{"mode":"none"}"#),
        &message(&token, r#"{"A":"b","_C1":""}"#, routes),
        &message("12", r#"{"A-B":"c"}"#, "null"),
    ])
}

/// A message is read or refused; the names of what it gives are names, and a refusal repeats no token.
pub(crate) fn message(bytes: &[u8]) {
    match fuzz::start_message(bytes) {
        Ok(names) => {
            for name in names {
                let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                assert!(!name.is_empty() && name.bytes().all(valid), "{name:?}");
            }
        }
        Err(why) => assert!(!why.contains(&"5a".repeat(16)), "{why}"),
    }
}

pub(crate) fn spawner_seeds() -> Vec<Vec<u8>> {
    let mut spawn = vec![1, 7, 0, 0, 0];
    for list in [&["/bin/sh", "-c", "true"][..], &["A=b"]] {
        spawn.extend((list.len() as u32).to_le_bytes());
        for item in list {
            spawn.extend((item.len() as u32).to_le_bytes());
            spawn.extend(item.as_bytes());
        }
    }
    spawn.extend(10u32.to_le_bytes());
    spawn.extend(b"/workspace");
    spawn.push(0);
    vec![
        spawn,
        vec![5; 1].into_iter().chain([0; 8]).collect(),
        vec![2, 9, 0, 0, 0, 15, 1],
        vec![3, 9, 0, 0, 0],
        vec![4, 9, 0, 0, 0, 137, 0, 0, 0],
    ]
}

/// A datagram is refused, or it is the only one that says what it says.
pub(crate) fn spawner(bytes: &[u8]) {
    for again in [fuzz::spawner_request(bytes), fuzz::spawner_event(bytes)].into_iter().flatten() {
        assert_eq!(again, bytes);
    }
}
