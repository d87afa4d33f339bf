//! `tests/README.md` says which tests cover which line of the contract; what it names must exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_coverage_table_names_is_there() {
    let home = std::env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR: run by cargo or nextest");
    let home = Path::new(&home);
    let text = std::fs::read_to_string(home.join("README.md")).expect("tests/README.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 40, "only {} rows: where is the table?", rows.len());
    let mut missing = BTreeSet::new();
    let mut named = 0;
    for row in rows {
        // The last cell: `binary::module::test`, or `bay::…` for a unit test of the host.
        let cell = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        for name in cell.split('`').skip(1).step_by(2) {
            named += 1;
            if !exists(home, name) {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(named > 60, "only {named} tests are named");
    assert!(missing.is_empty(), "tests/README.md names tests that are not there: {missing:#?}");
}

/// Whether a test of this name stands where it says: the file of its module, by the names of its path.
fn exists(home: &Path, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [first, rest @ .., function] = parts.as_slice() else { return false };
    let root: PathBuf = match *first {
        "bay" => home.join("../host/src"),
        "ship" => home.join("../ship/tests"),
        binary => home.join("tests").join(binary),
    };
    let declared = |file: &Path| {
        std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {function}(")))
    };
    let place = rest.iter().fold(root, |place, part| place.join(part));
    let mut files = vec![place.with_extension("rs"), place.join("mod.rs"), place.join("main.rs")];
    // Tests inside the file that they test: `module::tests::name`.
    if let Some(parent) = place.parent().filter(|_| rest.last() == Some(&"tests")) {
        files.extend([parent.with_extension("rs"), parent.join("mod.rs")]);
    }
    files.iter().any(|file| declared(file))
}
