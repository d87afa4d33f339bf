//! Bay is killed again and again while clients make, prolong and delete sandboxes and lockers; each then repeats what it got no
//! answer to, with the same key. What was acknowledged is there, what was repeated is there once, and nothing else is.
//!
//! `BAY_TEST_ROUNDS` says how many kills (`cargo xtask soak kills`: a thousand), `BAY_TEST_SEED` repeats the choices.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bay_tests::random::{Random, rounds};
use bay_tests::times::millis;
use bay_tests::{Bay, Client, Options, Response, until};
use serde_json::{Value, json};

/// Clients at once.
const CLIENTS: usize = 4;
/// A client that has as many deletes before it makes more.
const MANY: usize = 6;
/// First time to live, seconds.
const TTL: i64 = 36_000;

/// What a client asks for. It is made up once; a repeat is the same to the byte.
#[derive(Debug, Clone)]
enum Wish {
    Make { key: String, name: String },
    Extend { key: String, id: String, by: i64 },
    Delete { id: String },
    MakeLocker { key: String, name: String },
    DeleteLocker { id: String },
}

/// A sandbox as its client knows it.
#[derive(Debug)]
struct Known {
    name: String,
    extended: i64,
}

struct Worker {
    api: Client,
    random: Random,
    label: String,
    made: usize,
    own: BTreeMap<String, Known>,
    /// Its lockers, by id, with their names.
    lockers: BTreeMap<String, String>,
    /// One that every client extends; what this one added.
    shared: String,
    shared_extended: i64,
    /// Sent, and never answered.
    open: Option<Wish>,
    /// The last that was answered, to be repeated after the kill.
    answered: Option<(Wish, Vec<u8>)>,
}

impl Worker {
    fn wish(&mut self) -> Wish {
        self.made += 1;
        let (key, by) = (format!("{}-{}", self.label, self.made), 1 + self.random.below(1000));
        let by = i64::try_from(by).expect("a small number");
        let choice = self.random.below(12);
        if choice >= 10 {
            return match self.lockers.keys().next() {
                Some(id) if choice == 10 || self.lockers.len() == MANY => {
                    Wish::DeleteLocker { id: id.clone() }
                }
                _ => Wish::MakeLocker { name: key.clone(), key },
            };
        }
        if self.own.is_empty() || (choice < 4 && self.own.len() < MANY) {
            return Wish::Make { name: key.clone(), key };
        }
        if choice == 9 {
            return Wish::Extend { key, id: self.shared.clone(), by };
        }
        let at = self.random.below(self.own.len());
        let id = self.own.keys().nth(at).expect("one of its own").clone();
        if choice < 7 && self.own.len() < MANY { Wish::Extend { key, id, by } } else { Wish::Delete { id } }
    }

    fn send(&self, wish: &Wish) -> std::io::Result<Response> {
        let call = match wish {
            Wish::Make { key, name } => {
                let body = json!({ "profile": "shell-only", "start": "lazy", "name": name, "ttl": TTL });
                self.api.post("/v1/sandboxes", &body).header("Idempotency-Key", key)
            }
            Wish::Extend { key, id, by } => {
                let target = format!("/v1/sandboxes/{id}/extend_ttl");
                self.api.post(&target, &json!({ "extend_by": by })).header("Idempotency-Key", key)
            }
            Wish::Delete { id } => self.api.call("DELETE", &format!("/v1/sandboxes/{id}")),
            Wish::MakeLocker { key, name } => {
                self.api.post("/v1/lockers", &json!({ "name": name })).header("Idempotency-Key", key)
            }
            Wish::DeleteLocker { id } => self.api.call("DELETE", &format!("/v1/lockers/{id}")),
        };
        call.limit(Duration::from_secs(30)).try_send()
    }

    /// It was acknowledged: from now on it must be so.
    fn note(&mut self, wish: Wish, answer: &Response) {
        match &wish {
            Wish::Make { name, .. } => {
                let id = answer.expect(201)["id"].as_str().expect("an id").to_owned();
                let before = self.own.insert(id, Known { name: name.clone(), extended: 0 });
                assert!(before.is_none(), "made twice: {before:?}");
            }
            Wish::Extend { id, by, .. } => {
                answer.expect(200);
                match self.own.get_mut(id) {
                    Some(known) => known.extended += by,
                    None => self.shared_extended += by,
                }
            }
            Wish::Delete { id } => {
                answer.expect(204);
                self.own.remove(id);
                return;
            }
            Wish::MakeLocker { name, .. } => {
                let id = answer.expect(201)["id"].as_str().expect("an id").to_owned();
                assert!(self.lockers.insert(id, name.clone()).is_none(), "made twice");
            }
            Wish::DeleteLocker { id } => {
                answer.expect(204);
                self.lockers.remove(id);
                return;
            }
        }
        self.answered = Some((wish, answer.body.clone()));
    }

    /// Asks for one thing after the other until Bay is gone.
    fn work(&mut self, done: &AtomicUsize) {
        loop {
            let wish = self.wish();
            match self.send(&wish) {
                Ok(answer) => self.note(wish, &answer),
                Err(_) => {
                    self.open = Some(wish);
                    return;
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Repeats what was answered, which must do nothing, and what was not, which must then be done once.
    fn repeat(&mut self) {
        if let Some((wish, body)) = self.answered.take() {
            let again = self.send(&wish).expect("an answer");
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{wish:?}: {}", again.brief());
            assert_eq!(again.body, body, "{wish:?}");
        }
        if let Some(wish) = self.open.take() {
            let answer = self.send(&wish).expect("an answer");
            self.note(wish, &answer);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_repeated_is_done_twice() {
    let mut bay = Bay::start(Options::default());
    let mut random = Random::from_env();
    let api = bay.api();
    let shared =
        api.sandbox(json!({ "profile": "shell-only", "start": "lazy", "name": "shared", "ttl": TTL }));
    let mut workers: Vec<_> = (0..CLIENTS)
        .map(|n| Worker {
            api: api.clone(),
            random: random.fork(),
            label: format!("c{n}"),
            made: 0,
            own: BTreeMap::new(),
            lockers: BTreeMap::new(),
            shared: shared.id.clone(),
            shared_extended: 0,
            open: None,
            answered: None,
        })
        .collect();
    for round in 0..rounds(20) {
        let (done, enough) = (AtomicUsize::new(0), 1 + random.below(80));
        std::thread::scope(|s| {
            let working: Vec<_> = workers.iter_mut().map(|w| s.spawn(|| w.work(&done))).collect();
            until("the clients are at work", Duration::from_secs(60), || {
                let ended = working.iter().any(|w| w.is_finished());
                assert!(!ended, "round {round}: a client got no answer, and nobody had killed Bay");
                (done.load(Ordering::Relaxed) >= enough).then_some(())
            });
            bay.kill();
        });
        bay.start_again();
        workers.iter_mut().for_each(Worker::repeat);
        compare(&api, &shared.id, &workers, round);
    }
    tidy(&api, &workers);
    let done: usize = workers.iter().map(|w| w.made).sum();
    eprintln!("{} kills, {done} requests", rounds(20));
}

/// What Bay has against what the clients know.
fn compare(api: &Client, shared: &str, workers: &[Worker], round: usize) {
    let there: BTreeMap<String, Value> = api
        .list("/v1/sandboxes")
        .into_iter()
        .map(|s| (s["id"].as_str().expect("an id").to_owned(), s))
        .collect();
    let lives = |id: &str| {
        let s = there.get(id).unwrap_or_else(|| panic!("round {round}: {id} was acknowledged, and is gone"));
        (s["name"].as_str().unwrap_or_default(), (millis(&s["expires_at"]) - millis(&s["created_at"])) / 1000)
    };
    let mut known = 1;
    for (id, sandbox) in workers.iter().flat_map(|w| &w.own) {
        assert_eq!(lives(id), (sandbox.name.as_str(), TTL + sandbox.extended), "round {round}: {id}");
        known += 1;
    }
    let extended: i64 = workers.iter().map(|w| w.shared_extended).sum();
    assert_eq!(lives(shared), ("shared", TTL + extended), "round {round}: the shared one");
    assert_eq!(there.len(), known, "round {round}: more than anybody asked for: {there:#?}");

    let lockers: BTreeMap<String, String> = api
        .list("/v1/lockers")
        .into_iter()
        .map(|l| (l["id"].as_str().unwrap_or_default().into(), l["name"].as_str().unwrap_or_default().into()))
        .collect();
    let known: BTreeMap<String, String> = workers.iter().flat_map(|w| w.lockers.clone()).collect();
    assert_eq!(lockers, known, "round {round}: lockers");
    let usage = api.get("/v1/admin/tenants/default/usage").send().expect(200);
    for (quota, used) in
        [("sandboxes", there.len()), ("lockers", lockers.len()), ("running", 0), ("executions", 0)]
    {
        assert_eq!(usage["quotas"][quota]["used"], json!(used), "round {round}: {quota}: {usage}");
    }
}

/// Lockers are not deleted with the harness's sandboxes.
fn tidy(api: &Client, workers: &[Worker]) {
    for id in workers.iter().flat_map(|w| w.lockers.keys()) {
        assert_eq!(api.call("DELETE", &format!("/v1/lockers/{id}")).send().status, 204);
    }
}
