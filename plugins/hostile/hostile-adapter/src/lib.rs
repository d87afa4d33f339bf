//! An adapter that misbehaves as its configuration says: `{"mode": "sleep"}`. It claims Ship's own operations, so
//! that it can stand in its place.

use serde_json::json;

use bay::plugin::types::Fault;
use exports::bay::plugin::adapter::{
    Action, Call, CapabilitySpec, Event, GrantWanted, Guest, GuestOperation, HttpRequest, Manifest,
    OperationSpec, Target,
};

wit_bindgen::generate!({ path: "../../../wit/since-v0.1.0", world: "adapter-plugin" });

include!("../../misbehave.rs");

struct Hostile;

struct Operation {
    mode: String,
}

fn operation(name: &str, traits: &[&str]) -> OperationSpec {
    let object = json!({ "type": "object" }).to_string();
    OperationSpec {
        name: name.into(),
        summary: "Misbehaves.".into(),
        input_schema: object.clone(),
        output_schema: object,
        traits: traits.iter().map(|t| (*t).into()).collect(),
    }
}

fn capability(name: &str, operations: Vec<OperationSpec>) -> CapabilitySpec {
    CapabilitySpec { name: name.into(), summary: "Misbehaves.".into(), operations }
}

impl Guest for Hostile {
    type Operation = Operation;

    fn describe(config: String) -> Result<Manifest, String> {
        let mode = mode(&config);
        let files = ["read_file", "write_file", "delete_file", "list_dir"].map(|n| operation(n, &[]));
        let mut files = files.to_vec();
        files.push(operation("download", &["streams"]));
        let mut python = operation("exec", &["records"]);
        let mut wants =
            vec![GrantWanted { name: "elsewhere".into(), reason: "to see whether asking helps".into() }];
        match mode.as_str() {
            "describe-trap" => misbehave("trap"),
            "describe-spin" => misbehave("spin"),
            "describe-huge" => python.summary = huge(),
            "bad-name" => python.name = "../exec".into(),
            "bad-schema" => python.input_schema = json!({ "type": "object", "properties": 7 }).to_string(),
            "schema-nonsense" => python.input_schema = "{".into(),
            "schema-not-object" => python.input_schema = json!({ "type": "string" }).to_string(),
            "schema-file" => {
                let path = json!({ "$ref": "file:///etc/passwd" });
                python.input_schema = json!({ "type": "object", "properties": { "x": path } }).to_string();
            }
            "schema-default" => {
                let x = json!({ "type": "integer", "default": "seven" });
                python.input_schema = json!({ "type": "object", "properties": { "x": x } }).to_string();
            }
            "bad-trait" => python.traits.push("root".into()),
            "twice" => files.push(operation("download", &[])),
            "bad-grant" => wants[0].name = "http://elsewhere/".into(),
            "empty" => return Ok(Manifest { capabilities: Vec::new(), wants }),
            _ => {}
        }
        let capabilities = vec![
            capability("python", vec![python]),
            capability("shell", vec![operation("exec", &["records"])]),
            capability("filesystem", files),
        ];
        Ok(Manifest { capabilities, wants })
    }
}

fn get(path: &[&str]) -> HttpRequest {
    HttpRequest {
        target: Target::Runtime,
        method: "GET".into(),
        path: path.iter().map(|s| (*s).into()).collect(),
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        timeout_ms: None,
    }
}

fn ask(change: impl FnOnce(&mut HttpRequest)) -> Action {
    let mut request = get(&["health"]);
    change(&mut request);
    Action::Requests(vec![request])
}

impl Operation {
    fn act(&self) -> Action {
        let header = |name: &str, value: &str| ask(|r| r.headers.push((name.into(), value.into())));
        match self.mode.as_str() {
            "huge" => Action::Reply(huge()),
            "large" => Action::Reply(large()),
            "many" => {
                let name = "n".repeat(1 << 20);
                // One megabyte named ten thousand times over.
                ask(|r| r.query = vec![(name, String::new()); 100])
            }
            "nonsense" => Action::Reply("not json".into()),
            "deep" => Action::Reply(deep()),
            "sleep" => Action::Sleep(1),
            "sleep-long" => Action::Sleep(u32::MAX),
            "ask-forever" => ask(|_| {}),
            "flood" => Action::Requests(vec![get(&["health"]); 1000]),
            "no-requests" => Action::Requests(Vec::new()),
            "forward" => Action::Forward(get(&["fs", "download"])),
            "forward-body" => {
                Action::Forward(HttpRequest { body: Some(vec![1]), ..get(&["fs", "download"]) })
            }
            "stranger" => ask(|r| r.target = Target::Granted("elsewhere".into())),
            // Not in the manifest's wants.
            "unasked" => ask(|r| r.target = Target::Granted("unasked".into())),
            "impatient" => ask(|r| r.timeout_ms = Some(50)),
            "pair" => Action::Requests(vec![get(&["first"]), get(&["second"])]),
            "method" => ask(|r| r.method = "CONNECT".into()),
            "dotdot" => ask(|r| r.path = vec!["..".into(), "etc".into()]),
            "empty-segment" => ask(|r| r.path.push(String::new())),
            "authorization" => header("Authorization", "Bearer stolen"),
            "host" => header("host", "169.254.169.254"),
            "upgrade" => header("upgrade", "websocket"),
            "bay-header" => header("X-Bay-Tenant", "someone"),
            "split" => header("x-a", "1\r\nx-b: 2"),
            "zero-timeout" => ask(|r| r.timeout_ms = Some(0)),
            "bad-fault" => Action::Fail(Fault {
                kind: "root_access".into(),
                code: None,
                message: String::new(),
                details: "{}".into(),
            }),
            "bad-details" => Action::Fail(Fault {
                kind: "conflict".into(),
                code: None,
                message: "no".into(),
                details: "7".into(),
            }),
            _ => Action::Reply("{}".into()),
        }
    }
}

impl GuestOperation for Operation {
    fn new(call: Call) -> Self {
        Self { mode: mode(&call.config) }
    }

    fn start(&self) -> Action {
        misbehave(&self.mode);
        if self.mode.ends_with("-later") {
            return ask(|_| {});
        }
        self.act()
    }

    fn resume(&self, event: Event) -> Action {
        // What came back, for tests of the host.
        if let ("impatient" | "pair" | "stranger", Event::Responses(all)) = (self.mode.as_str(), &event) {
            let shown = all.iter().map(|r| match r {
                Ok(response) => String::from_utf8_lossy(&response.body).into_owned(),
                Err(error) => error.kind.clone(),
            });
            return Action::Reply(json!({ "came": shown.collect::<Vec<_>>() }).to_string());
        }
        if let Some(mode) = self.mode.strip_suffix("-later") {
            misbehave(mode);
        }
        self.act()
    }
}

export!(Hostile);
