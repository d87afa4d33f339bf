//! `/openapi.json` and `/docs`.

use std::collections::BTreeSet;

use bay_tests::openapi::operations;
use bay_tests::{Bay, Options, form, golden};
use serde_json::{Value, json};

use crate::python;

#[test]
fn the_document_is_as_written_down_and_is_openapi() {
    let bay = Bay::start(Options::default());
    let whole = bay.api().get("/openapi.json").send().expect(200);
    golden::compare("openapi.json", &format!("{whole:#}\n"));
    assert_eq!(whole["openapi"], "3.1.0");
    let fixed = bay.anonymous().get("/openapi.json").send().expect(200);
    what_plugins_add(&fixed, &whole);
    every_operation_is_described(&whole);
    errors(&whole);
    python::validate_openapi(&whole);
    capabilities_are_the_documents(&bay, &whole);
    profiles(&bay);
    pages(&bay);
}

fn what_plugins_add(fixed: &Value, whole: &Value) {
    let mut added = Vec::new();
    for operation in operations(whole) {
        let same = &fixed["paths"][&operation.path][operation.method.to_lowercase()];
        if same.is_null() {
            added.push(operation.name());
        } else {
            assert_eq!(*same, operation.spec, "{}", operation.name());
        }
    }
    assert!(added.contains(&"POST /v1/sandboxes/{id}/python/exec".to_owned()), "{added:?}");
    assert!(operations(fixed).len() + added.len() == operations(whole).len());
}

fn every_operation_is_described(document: &Value) {
    let mut ids = BTreeSet::new();
    for operation in operations(document) {
        let (name, spec) = (operation.name(), &operation.spec);
        assert!(ids.insert(spec["operationId"].as_str().map(str::to_owned)), "{name}: its id stands twice");
        assert!(spec["summary"].as_str().is_some_and(|s| !s.is_empty()), "{name} has no summary");
        assert!(operation.access().is_some(), "{name} does not say who may call it: edge/openapi/access.rs");
        let answers = spec["responses"].as_object().expect("responses");
        assert!(answers.keys().any(|status| status.starts_with('2') || status == "101"), "{name}");
        for (status, answer) in answers {
            assert!(answer["description"].as_str().is_some_and(|d| !d.is_empty()), "{name} {status}");
            let id = &answer["headers"]["X-Request-Id"]["$ref"];
            assert_eq!(*id, "#/components/headers/RequestId", "{name} {status}");
            let empty = ["204", "101"].contains(&status.as_str());
            assert!(empty || answer["content"].is_object(), "{name} {status} has no content");
            if status.starts_with('4') || status == "500" {
                let schema = &answer["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(*schema, "#/components/schemas/Error", "{name} {status}");
            }
        }
    }
}

/// One line for each code: a change of one is seen in review.
fn errors(document: &Value) {
    let mut table = String::from("code                      status  retryable\n");
    let examples = document["components"]["examples"].as_object().expect("examples");
    for (code, status) in form::STATUS_OF {
        let example = examples.get(*code).unwrap_or_else(|| panic!("{code} is not in the document"));
        assert_eq!(example["value"]["error"]["code"], *code);
        let summary = example["summary"].as_str().unwrap_or_default();
        assert!(summary.starts_with(&format!("{status}: ")), "{code}: {summary}");
        let retry = match summary.rsplit("; ").next() {
            Some("the same request fails again") => "never",
            Some("may be tried again") => "always",
            Some("may be tried again where the request is safe or carried an Idempotency-Key") => "if safe",
            other => panic!("{code}: {other:?}"),
        };
        table.push_str(&format!("{code:<25} {status:<7} {retry}\n"));
    }
    assert_eq!(examples.len(), form::STATUS_OF.len(), "a code that the contract's table does not have");
    golden::compare("errors.txt", &table);
}

fn capabilities_are_the_documents(bay: &Bay, document: &Value) {
    bay.anonymous().get("/v1/capabilities").error(401, "unauthorized");
    let listed = bay.api().get("/v1/capabilities").send().expect(200);
    let items = listed["items"].as_array().expect("items");
    assert!(!items.is_empty());
    for item in items {
        assert_eq!(item["plugin"], "adapter-ship", "{item}");
        assert!(item["profiles"].as_array().is_some_and(|p| !p.is_empty()), "{item}");
        for operation in item["operations"].as_array().expect("operations") {
            let capability = item["name"].as_str().unwrap_or_default();
            let name = operation["name"].as_str().unwrap_or_default();
            // By POST, or as a route of its own by another method.
            let route = &document["paths"][format!("/v1/sandboxes/{{id}}/{capability}/{name}")];
            assert!(route.is_object(), "{capability}.{name} is not in the document");
            let described = &route["post"];
            let schema = &described["requestBody"]["content"]["application/json"]["schema"];
            if described["description"] == "Served by the plugin `adapter-ship`." {
                assert_eq!(*schema, operation["input_schema"], "{capability}.{name}");
            }
        }
    }
}

fn profiles(bay: &Bay) {
    let api = bay.api();
    let keys = |item: &Value| item.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let brief = ["capabilities", "description", "id", "idle_timeout", "image", "max_ttl", "resources"];
    for item in api.get("/v1/profiles").send().expect(200)["items"].as_array().expect("items") {
        assert_eq!(keys(item), brief, "{item}");
        assert_eq!(keys(&item["resources"]), ["cpus", "memory"], "{item}");
    }
    let detailed = api.get("/v1/profiles?detail=true").send().expect(200);
    for item in detailed["items"].as_array().expect("items") {
        let mut whole: Vec<_> = [&brief[..], &["containers", "features"]].concat();
        whole.sort_unstable();
        assert_eq!(keys(item), whole, "{item}");
        let container = ["adapter", "capabilities", "image", "name", "network", "primary_for"];
        assert_eq!(keys(&item["containers"][0]), container, "{item}");
        assert!(item["features"].is_array(), "{item}");
    }
    assert_eq!(api.get("/v1/profiles?detail").send().expect(200), detailed);
    api.get("/v1/profiles?detail=perhaps").bad_fields(&["detail"]);
}

/// Everything that the pages need comes from Bay, and their policy lets them ask nobody else.
fn pages(bay: &Bay) {
    let nobody = bay.anonymous();
    for (target, kind, part) in [
        ("/docs", "text/html; charset=utf-8", "/docs/reader.js"),
        ("/docs/docs.js", "text/javascript; charset=utf-8", "/openapi.json"),
    ] {
        let page = nobody.get(target).send();
        assert_eq!((page.status, page.header("content-type")), (200, Some(kind)), "{target}");
        assert!(page.text().contains(part), "{}", page.brief());
        assert!(!page.text().contains("http://") && !page.text().contains("https://"), "{}", page.brief());
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    }
    let script = nobody.get("/docs/reader.js").header("Accept-Encoding", "gzip").send();
    assert_eq!((script.status, script.header("content-encoding")), (200, Some("gzip")));
    assert!(script.body.starts_with(&[0x1f, 0x8b]) && script.body.len() > 500_000);
    nobody.get("/docs/nope.js").error(404, "not_found");
    nobody.call("POST", "/docs").json(&json!({})).error(405, "method_not_allowed");
}
