//! kill -9 at any instant: every acknowledged write is there, and nothing half-written is.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

/// Set for the child: the data directory it writes into.
const CHILD: &str = "BAY_TEST_CRASH_DIR";

/// Does nothing in an ordinary run: it is the process that is killed. Says `sandbox locker execution` after each round was acknowledged.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = Store::open(Path::new(&dir)).unwrap();
    block_on(async {
        let write = |n: i64| {
            let store = store.clone();
            async move {
                // Several tenants at once, so that writes share transactions.
                let owner = tenant(&format!("t{}", n % 4));
                let (sandbox, locker) =
                    store.create_sandbox(&owner, new_sandbox(n), managed(n)).await.unwrap();
                let session = store.begin_session(&owner, &sandbox.id, ship(), n).await.unwrap();
                store.transition_session(&owner, &session.key(), Transition::Ready, n).await.unwrap();
                let execution = new_execution(&sandbox.id, n);
                let id = execution.id.clone();
                store.record_execution(&owner, execution).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ACK {} {} {} {id}", owner.as_str(), sandbox.id, locker.id).unwrap();
                out.flush().unwrap();
            }
        };
        for n in (0i64..).step_by(4) {
            tokio::join!(write(n), write(n + 1), write(n + 2), write(n + 3));
        }
    });
}

fn acknowledged_before_kill(dir: &Path, rounds: usize) -> Vec<[String; 4]> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &child_name(), "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acks = Vec::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines {
        // The last line may be cut off: it was not heard, so it was not acknowledged.
        let Ok(line) = line else { break };
        // The harness writes its own words on the line of the first.
        let Some((_, ack)) = line.split_once("ACK ") else { continue };
        let words: Vec<String> = ack.split(' ').map(str::to_owned).collect();
        if let Ok(words) = words.try_into() {
            acks.push(words);
        }
        if acks.len() == rounds {
            // SIGKILL; what it had written to the pipe by then is still read.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acks.len() >= rounds, "the child ended by itself after {} rounds", acks.len());
    acks
}

/// The child's path as the test harness knows it, wherever this crate's modules are mounted.
fn child_name() -> String {
    let path = module_path!();
    let within = path.split_once("::").map_or(path, |(_, rest)| rest);
    format!("{within}::child")
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acks = Vec::new();
    for rounds in [1, 7, 40] {
        acks.extend(acknowledged_before_kill(dir.path(), rounds));
        let store = Store::open(dir.path()).unwrap();
        block_on(async {
            for [owner, sandbox_id, locker_id, execution_id] in &acks {
                let owner = tenant(owner);
                let sandbox = store.get_sandbox(&owner, sandbox_id).await.unwrap();
                assert_eq!(sandbox.locker_id, *locker_id);
                assert_eq!(sandbox.status(0), SandboxStatus::Ready);
                store.get_locker(&owner, locker_id).await.unwrap();
                store.get_execution(&owner, sandbox_id, execution_id).await.unwrap();
            }
            // Whatever else is there is whole: a session's sandbox, a sandbox's locker.
            for session in store.list_live_sessions(&system()).await.unwrap() {
                let sandbox = store.find_sandbox(&system(), &session.sandbox_id).await.unwrap().unwrap();
                assert_eq!(sandbox.session.unwrap().key, session.key());
                store.get_locker(&session.tenant, &sandbox.locker_id).await.unwrap();
            }
            let intact = store
                .write(&system(), |db| {
                    Ok(db.pragma_query_value(None, "integrity_check", |r| r.get::<_, String>(0))?)
                })
                .await
                .unwrap();
            assert_eq!(intact, "ok");
        });
    }
}
