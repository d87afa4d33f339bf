//! Many at once, and many in a row.

use std::collections::BTreeSet;
use std::fs;

use bay_ship_tests::{Client, Place};
use serde_json::json;

crate::cases! {
    sixty_four_commands_at_once_are_all_answered_right,
    three_hundred_connections_are_all_served,
    five_hundred_mixed_calls_leak_nothing,
}

/// As many commands as Ship runs at once.
const AT_ONCE: usize = 64;

pub(crate) fn sixty_four_commands_at_once_are_all_answered_right(place: &dyn Place) {
    let clients: Vec<Client> = (0..AT_ONCE).map(|_| place.client()).collect();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..)
            .zip(clients)
            .map(|(turn, mut client)| {
                scope.spawn(move || {
                    for round in 0..3 {
                        let code = (turn * 7 + round) % 256;
                        let command = format!("echo out {turn} {round}; echo err {turn} >&2; exit {code}");
                        let body = json!({"command": command, "timeout": 60});
                        let answer = client.shell_with(&body);
                        assert_eq!(answer.stdout, format!("out {turn} {round}\n"));
                        assert_eq!(answer.stderr, format!("err {turn}\n"));
                        assert_eq!(answer.exit_code, Some(code));
                    }
                })
            })
            .collect();
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

pub(crate) fn three_hundred_connections_are_all_served(place: &dyn Place) {
    place.client();
    // More than Ship speaks with at once, so that some wait until others are done.
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..300)
            .map(|turn: u32| {
                scope.spawn(move || {
                    let mut client = Client::over(place.connect().unwrap());
                    assert_eq!(client.get("/health").status, 200);
                    if turn.is_multiple_of(10) {
                        assert_eq!(client.shell_ok(&format!("echo {turn}")), turn.to_string());
                    }
                })
            })
            .collect();
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

/// Descriptors and threads of a process.
fn held(pid: u32) -> Option<(usize, usize)> {
    let count = |what: &str| Some(fs::read_dir(format!("/proc/{pid}/{what}")).ok()?.count());
    Some((count("fd")?, count("task")?))
}

fn mixed(client: &mut Client, turn: u32) {
    match turn % 5 {
        0 => assert_eq!(client.python_ok(&format!("print({turn})")), turn.to_string()),
        1 => assert_eq!(client.shell_ok(&format!("echo {turn}")), turn.to_string()),
        2 => {
            let path = format!("mixed/{}", turn % 7);
            client.post("/fs/write_file", &json!({"path": path, "content": turn.to_string()})).unwrap();
            let read = client.post("/fs/read_file", &json!({"path": path})).unwrap();
            assert_eq!(read["content"], turn.to_string());
        }
        3 => {
            assert!(client.get("/fs/download?path=none").status == 404);
            assert_eq!(client.post_bytes("/shell/exec", b"{").status, 400);
        }
        _ => assert!(!client.python("raise ValueError('x')").success),
    }
}

pub(crate) fn five_hundred_mixed_calls_leak_nothing(place: &dyn Place) {
    let client = &mut place.client();
    let warm = |client: &mut Client| (0..20).for_each(|turn| mixed(client, turn));
    warm(client);
    // A shell that runs one command becomes it, so there is nothing else of it.
    let processes = |client: &mut Client| -> BTreeSet<String> {
        let listed = client.shell_ok("ps -eo args=");
        listed.lines().filter(|args| !args.starts_with("ps ")).map(str::to_owned).collect()
    };
    let (before, ran_before) = (place.agent().and_then(held), processes(client));
    for turn in 0..500 {
        mixed(client, turn);
        if turn % 50 == 0 {
            // A connection of its own each now and then, which must go again.
            mixed(&mut place.client(), turn);
        }
    }
    warm(client);
    assert_eq!(processes(client), ran_before);
    let Some(before) = before else { return };
    // A connection that was just closed is noticed in a moment.
    let now = bay_ship_tests::wait_for(
        || place.agent().and_then(held).filter(|now| now.0 <= before.0 && now.1 <= before.1),
        "descriptors and threads to be as few as before",
    );
    assert_eq!(now, before);
}
