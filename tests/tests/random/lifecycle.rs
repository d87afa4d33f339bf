//! Random lives of sandboxes against a tiny model: what was written stays until the sandbox is deleted, a session's
//! number never falls, and Bay may be killed at any point.

use std::time::Duration;

use bay_tests::random::{Random, rounds};
use bay_tests::{Bay, Options, Sandbox, until};
use serde_json::json;

struct Life {
    sandbox: Sandbox,
    lines: usize,
    session: u64,
    running: bool,
    /// That session has answered.
    seen_ready: bool,
}

#[test]
fn random_lives_keep_their_files_and_their_numbers() {
    let mut bay = Bay::start(Options::default());
    let api = bay.api();
    let mut random = Random::from_env();
    let mut lives: Vec<Life> = Vec::new();
    for step in 0..rounds(40) {
        let choice = random.below(12);
        eprintln!("step {step}: choice {choice}, {} alive", lives.len());
        if lives.is_empty() || (choice == 0 && lives.len() < 4) {
            let start = *random.pick(&["lazy", "eager", "wait"]);
            let sandbox = api.sandbox(json!({ "profile": "shell-only", "start": start }));
            lives.push(Life {
                sandbox,
                lines: 0,
                session: u64::from(start != "lazy"),
                running: start != "lazy",
                seen_ready: start == "wait",
            });
            continue;
        }
        if choice == 1 {
            bay.kill();
            bay.start_again();
            lives.iter_mut().for_each(after_a_kill);
            continue;
        }
        let at = random.below(lives.len());
        match choice {
            2 => {
                let life = lives.swap_remove(at);
                let place = format!("/v1/sandboxes/{}", life.sandbox.id);
                assert_eq!(api.call("DELETE", &place).send().status, 204);
                api.get(&place).error(404, "not_found");
            }
            3 | 4 => {
                let life = &mut lives[at];
                let stopped = life.sandbox.post("stop", &json!({})).send().expect(200);
                assert_eq!(stopped["sandbox"]["status"], "idle", "{stopped}");
                life.running = false;
                life.seen_ready = false;
            }
            5 => {
                let names: Vec<_> = api.list("/v1/sandboxes").iter().map(|s| s["id"].clone()).collect();
                assert_eq!(names.len(), lives.len(), "{names:?}");
                assert!(lives.iter().all(|l| names.contains(&json!(l.sandbox.id))), "{names:?}");
            }
            6 => {
                let life = &mut lives[at];
                if life.running {
                    until("it is ready", Duration::from_secs(20), || {
                        (life.sandbox.show()["status"] == "ready").then_some(())
                    });
                    life.seen_ready = true;
                }
            }
            _ => step_of(&mut lives[at]),
        }
    }
    for life in &mut lives {
        step_of(life);
    }
}

/// What was ready goes on. A start that was still under way may be undone: its number is spent.
fn after_a_kill(life: &mut Life) {
    let shown = life.sandbox.show();
    let ready = shown["status"] == "ready";
    assert!(ready || !life.seen_ready || !life.running, "{shown}");
    life.running = ready;
    life.session = shown["session_seq"].as_u64().expect("a number");
}

fn step_of(life: &mut Life) {
    let ran = life.sandbox.shell("echo line >> log; wc -l < log");
    assert_eq!(ran["success"], true, "{ran}");
    life.lines += 1;
    assert_eq!(ran["stdout"].as_str().map(str::trim), Some(life.lines.to_string().as_str()), "{ran}");
    let session = ran["session_seq"].as_u64().expect("a number");
    let wanted = if life.running { life.session } else { life.session + 1 };
    assert_eq!(session, wanted, "{ran}");
    life.session = session;
    life.running = true;
    life.seen_ready = true;
}
