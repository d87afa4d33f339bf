//! The chart in the README: every endpoint has a row, every row has tests, every test exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bay_ship_tests::{Container, isolations};

/// What every container answers, and `/meta` does not list.
const ALWAYS: [&str; 8] = [
    "GET /health",
    "GET /meta",
    "GET /capabilities",
    "GET /stat",
    "GET /executions/{id}",
    "GET /executions/{id}/events",
    "GET /executions/{id}/output",
    "POST /executions/{id}/cancel",
];

/// Where tests of the chart may be, beneath the workspace.
const SOURCES: [&str; 3] = ["tests/ship/tests", "ship/tests", "ship/src"];

/// This crate's folder, where it is run and not where it was compiled.
fn here() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Endpoints and the names of their tests, from the rows of the README whose first cell is an endpoint.
fn chart() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(here().join("README.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [endpoint, tests] = cells[..] else { continue };
        let Some(endpoint) = endpoint.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else {
            continue;
        };
        if !["GET /", "POST /", "DELETE /", "PUT /"].iter().any(|start| endpoint.starts_with(start)) {
            continue;
        }
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(rows.insert(endpoint.to_owned(), tests).is_none(), "two rows for {endpoint}");
    }
    rows
}

/// The name of every function in the sources of tests.
fn functions() -> BTreeSet<String> {
    let workspace = here().join("../..");
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = SOURCES.iter().map(|folder| workspace.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.extend(names(&path));
            }
        }
    }
    found
}

fn names(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("pub(crate) "));
    lines.filter_map(|line| Some(line.strip_prefix("fn ")?.split('(').next()?.to_owned())).collect()
}

#[test]
fn every_endpoint_has_a_row_and_every_row_has_tests_that_exist() {
    let container = Container::new(isolations()[0]);
    let mut client = container.client();
    // A kernel that still starts is not a matter of the table.
    client.python_ok("1");
    let served: BTreeSet<String> = crate::errors::endpoints(&mut client)
        .into_iter()
        .map(|(method, path)| format!("{method} {path}"))
        .chain(ALWAYS.map(str::to_owned))
        .collect();
    let (chart, functions) = (chart(), functions());
    let missing: Vec<_> = served.iter().filter(|endpoint| !chart.contains_key(*endpoint)).collect();
    assert!(missing.is_empty(), "no row in tests/ship/README.md for {missing:?}");
    let gone: Vec<_> = chart.keys().filter(|endpoint| !served.contains(*endpoint)).collect();
    assert!(gone.is_empty(), "rows in tests/ship/README.md for what is not served: {gone:?}");
    for (endpoint, tests) in &chart {
        assert!(!tests.is_empty(), "no test for {endpoint}");
        for test in tests {
            assert!(functions.contains(test), "{endpoint}: there is no test `{test}`");
        }
    }
}
