//! Golden files: the public surface, written down, so that a change of it is seen in review.

use std::path::Path;

/// Compares `actual` with the golden file `name` of `tests/tests/surface/golden`; with `BAY_TEST_BLESS=1` writes it.
#[track_caller]
pub fn compare(name: &str, actual: &str) {
    // At run time, not compile time: the tests may run from another place than where they were built.
    let home = std::env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR: run by cargo or nextest");
    let file = Path::new(&home).join("tests/surface/golden").join(name);
    if std::env::var("BAY_TEST_BLESS").is_ok_and(|v| v == "1") {
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("make the golden directory");
        std::fs::write(&file, actual).expect("write the golden file");
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    if golden != actual {
        let at = golden.lines().zip(actual.lines()).position(|(g, a)| g != a);
        let at = at.unwrap_or_else(|| golden.lines().count().min(actual.lines().count()));
        panic!(
            "the public surface `{name}` changed at line {}:\n  was: {}\n  is:  {}\nIf that is meant: \
             BAY_TEST_BLESS=1 and run this test again, then look at the diff. All of it now:\n{actual}",
            at + 1,
            golden.lines().nth(at).unwrap_or("<end>"),
            actual.lines().nth(at).unwrap_or("<end>"),
        );
    }
}
