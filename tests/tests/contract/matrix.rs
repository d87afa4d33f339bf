//! Every route of the document × every credential that must not open it. The rows come from the document, what each
//! must answer from its `security`: a route that the document knows is tested, and one without a rule fails.

use std::time::Duration;

use bay_tests::openapi::{Access, Operation, operations};
use bay_tests::{Bay, Client, Options, Sandbox, until};
use serde_json::{Value, json};

const EVERY_SCOPE: &[&str] = &["sandboxes", "lockers:files", "ops", "admin"];
/// Of the right form, and nobody's.
const WRONG_KEY: &str =
    "bay_00000000000000000000000000_0000000000000000000000000000000000000000000000000000000000000000";

/// One Bay with the credentials of the matrix.
struct Scene {
    bay: Bay,
    document: Value,
    owner: Client,
    expired: Client,
    token: Client,
    by_scope: Vec<ByScope>,
    sandbox: String,
    locker: String,
    key: String,
}

/// What is known of one scope: a key that has every other, the same of another tenant, and one of another tenant that
/// has only this.
struct ByScope {
    scope: &'static str,
    missing: Client,
    missing_elsewhere: Client,
    elsewhere: Client,
}

#[test]
fn every_route_refuses_every_credential_that_is_not_for_it() {
    // More failed attempts than a client may make.
    let config = json!({ "server": { "failed_auth_per_minute": 100_000 } });
    let bay = Bay::start(Options::default().config(config));
    let owner = bay.api();
    let one = owner.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let other = owner.sandbox(json!({ "profile": "shell-only", "start": "lazy" }));
    let scene = Scene::set(bay, owner, &one, &other);
    let mut wrong = Vec::new();
    let mut asked = 0;
    for operation in operations(&scene.document) {
        let Some(access) = operation.access() else {
            wrong.push(format!("{}: the document does not say who may call it", operation.name()));
            continue;
        };
        for (who, client, expected) in scene.row(&operation, &access) {
            asked += 1;
            if let Err(words) = scene.check(&operation, &client, &expected) {
                wrong.push(format!("{} × {who}: {words}", operation.name()));
            }
        }
    }
    assert!(asked > 100, "only {asked} cells: where is the document?");
    assert!(wrong.is_empty(), "{} of {asked} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(one.show()["session_seq"], 0, "a refused call started something");
}

/// What a cell must answer.
enum Expected {
    /// This status, this code.
    Refused(&'static [(u16, &'static str)]),
    /// Whatever it answers, it is not for want of a credential, and it tells nothing of the owner's.
    NotRefused,
}

use Expected::{NotRefused, Refused};

const UNAUTHORIZED: Expected = Refused(&[(401, "unauthorized")]);
const FORBIDDEN: Expected = Refused(&[(403, "forbidden")]);
const MISSING: Expected = Refused(&[(404, "not_found")]);
const FORBIDDEN_OR_MISSING: Expected = Refused(&[(403, "forbidden"), (404, "not_found")]);

impl Scene {
    fn set(bay: Bay, owner: Client, one: &Sandbox, other: &Sandbox) -> Self {
        let document = owner.get("/openapi.json").send().expect(200);
        let locker = match document["paths"].get("/v1/lockers") {
            Some(_) => {
                owner.post("/v1/lockers", &json!({ "name": "matrix" })).send().expect(201)["id"].clone()
            }
            None => json!(one.locker),
        };
        let key = make_key(&owner, &json!({ "tenant": "default", "scopes": ["sandboxes"] }));
        let soon = make_key(&owner, &json!({ "tenant": "default", "scopes": EVERY_SCOPE, "expires_in": 1 }));
        let expired = Client::new(bay.addr(), soon["secret"].as_str());
        until("the key has expired", Duration::from_secs(10), || {
            (expired.get("/v1/profiles").send().status == 401).then_some(())
        });
        let made = other.post("tokens", &json!({ "capabilities": ["shell", "filesystem"], "ttl": 600 }));
        let token = Client::new(bay.addr(), made.send().expect(201)["token"].as_str());
        let client = |tenant: &str, scopes: &[&str]| {
            let made = make_key(&owner, &json!({ "tenant": tenant, "scopes": scopes }));
            Client::new(bay.addr(), made["secret"].as_str())
        };
        let by_scope = EVERY_SCOPE.iter().map(|scope| {
            let others: Vec<&str> = EVERY_SCOPE.iter().copied().filter(|s| s != scope).collect();
            ByScope {
                scope,
                missing: client("default", &others),
                missing_elsewhere: client("other", &others),
                elsewhere: client("other", &[scope]),
            }
        });
        Self {
            document,
            by_scope: by_scope.collect(),
            expired,
            token,
            sandbox: one.id.clone(),
            locker: locker.as_str().unwrap_or_default().to_owned(),
            key: key["id"].as_str().unwrap_or_default().to_owned(),
            owner,
            bay,
        }
    }

    /// The cells of a route.
    fn row(&self, operation: &Operation, access: &Access) -> Vec<(&'static str, Client, Expected)> {
        let nobody = self.bay.anonymous();
        let wrong = Client::new(self.bay.addr(), Some(WRONG_KEY));
        let strangers = |expected: fn() -> Expected| {
            vec![
                ("no key", nobody.clone(), expected()),
                ("wrong key", wrong.clone(), expected()),
                ("expired key", self.expired.clone(), expected()),
            ]
        };
        let (scope, guest) = match access {
            Access::Open => {
                let mut row = strangers(|| NotRefused);
                row.push(("token of another sandbox", self.token.clone(), NotRefused));
                return row;
            }
            Access::Scope(scope) => (scope.as_str(), false),
            Access::Guest(scope) => (scope.as_str(), true),
        };
        let mut row = strangers(|| UNAUTHORIZED);
        let keys = self.by_scope.iter().find(|by| by.scope == scope);
        let keys = keys.unwrap_or_else(|| panic!("{}: there is no scope `{scope}`", operation.name()));
        row.push(("missing scope", keys.missing.clone(), FORBIDDEN));
        if scope == "admin" {
            // An admin's key is of no tenant in particular; another's without the scope is as anybody's.
            row.push(("other tenant", keys.missing_elsewhere.clone(), FORBIDDEN));
        } else if operation.path.contains("{id}") {
            row.push(("other tenant", keys.elsewhere.clone(), MISSING));
        } else if operation.method == "GET" {
            row.push(("other tenant", keys.elsewhere.clone(), NotRefused));
        }
        let beneath = operation.path.starts_with("/v1/sandboxes/{id}");
        let by_token = match (guest, beneath) {
            (true, _) => MISSING,
            (false, true) => FORBIDDEN_OR_MISSING,
            (false, false) => FORBIDDEN,
        };
        row.push(("token of another sandbox", self.token.clone(), by_token));
        row
    }

    fn check(&self, operation: &Operation, client: &Client, expected: &Expected) -> Result<(), String> {
        let target = operation.target(|name| match (name, operation.path.split('/').nth(2)) {
            ("id", Some("lockers")) => self.locker.clone(),
            ("id" | "key", Some("admin")) => self.key.clone(),
            ("id", _) => self.sandbox.clone(),
            ("capability", _) => "shell".to_owned(),
            ("operation", _) => "exec".to_owned(),
            ("execution", _) => "exe_00000000000000000000000000".to_owned(),
            ("file", _) => "docs.js".to_owned(),
            _ => "x".to_owned(),
        });
        let mut call = client.call(&operation.method, &target);
        for (name, value) in operation.query(&self.document) {
            call = call.query(&name, &value);
        }
        if let Some(body) = operation.body(&self.document) {
            call = call.json(&body);
        }
        let answer = call.send();
        let text = answer.text();
        match expected {
            NotRefused if [401, 403].contains(&answer.status) || answer.status >= 500 => {
                Err(format!("answered {}: {}", answer.status, answer.brief()))
            }
            NotRefused if text.contains(&self.sandbox) || text.contains(&self.locker) => {
                Err("tells of another's resource".to_owned())
            }
            NotRefused => Ok(()),
            Refused(pairs) => {
                let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
                let fits = pairs.iter().any(|(s, c)| answer.status == *s && code == *c);
                let stated = operation.answers(answer.status);
                match (fits, stated) {
                    (true, true) => Ok(()),
                    (true, false) => Err(format!("{} is not in the document", answer.status)),
                    (false, _) => Err(format!("wanted {pairs:?}, got {} {code}", answer.status)),
                }
            }
        }
    }
}

fn make_key(admin: &Client, wanted: &Value) -> Value {
    let mut wanted = wanted.clone();
    wanted["name"] = json!("matrix");
    admin.post("/v1/admin/keys", &wanted).send().expect(201)
}
