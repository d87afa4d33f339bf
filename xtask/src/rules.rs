//! House rules that no lint of the compiler knows. Each names the line and what to do instead.

mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::{run, workspace};

/// The request path is one short function; past this it is no longer short.
const MAX_INVOKE_LINES: usize = 150;

/// Where a file is worth splitting; said, not refused.
const LONG_FILE: usize = 500;

/// Who may name what. A dependency points one way.
struct Edge {
    /// What is looked for, as a word of the code.
    word: &'static str,
    /// Beginnings of the paths that may name it.
    only: &'static [&'static str],
    why: &'static str,
}

const EDGES: &[Edge] = &[
    Edge { word: "bollard", only: &["host/src/driver/docker"], why: "only driver/docker speaks Docker" },
    Edge { word: "rusqlite", only: &["host/src/store"], why: "only the store speaks SQL" },
    Edge { word: "wasmtime", only: &["host/plugin-host/"], why: "all of wasmtime stays in the plugin host" },
    Edge {
        word: "wasmtime_wasi",
        only: &["host/plugin-host/"],
        why: "all of wasmtime stays in the plugin host",
    },
    Edge {
        word: "StatusCode",
        // `runtime` is a client: it reads the runtime's statuses and makes none.
        only: &["host/src/edge/", "host/src/error", "host/src/runtime/", "ship/", "tests/", "host/tests/"],
        why: "HTTP status codes belong to the edge; say it with a domain error",
    },
];

/// One place that breaks a rule.
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

/// Checks every Rust source of the repository.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let mut long = Vec::new();
    let files = rust_files()?;
    for path in &files {
        let text = std::fs::read_to_string(workspace::root().join(path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        findings.extend(file(path, &text));
        let lines = text.lines().count();
        if lines > LONG_FILE {
            long.push(format!("{} ({lines} lines)", path.display()));
        }
    }
    for finding in &findings {
        println!("{}:{}: {}", finding.path.display(), finding.line, finding.what);
    }
    if !long.is_empty() {
        println!("worth splitting: {}", long.join(", "));
    }
    if !findings.is_empty() {
        bail!("{} breaches of the house rules", findings.len());
    }
    println!("{} files keep the house rules", files.len());
    Ok(())
}

/// What git knows or would: no build output, nothing ignored.
fn rust_files() -> anyhow::Result<Vec<PathBuf>> {
    let list = run::output(run::command("git").args([
        "-c",
        "core.quotePath=false",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    // A file deleted but not yet committed is still listed.
    Ok(list.lines().map(PathBuf::from).filter(|path| workspace::root().join(path).is_file()).collect())
}

fn file(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line: usize, what: String| findings.push(Finding { path: path.to_owned(), line, what });
    let code = source::code_only(text);
    let shown = path.to_string_lossy();
    let mut test = source::is_test_file(path);
    for (number, line) in (1..).zip(code.lines()) {
        // By custom the tests of a file are its end.
        test |= line.trim_start().starts_with("#[cfg(test)]");
        if test && source::calls(line, "sleep") {
            report(number, "no sleeping in tests: wait for the thing itself, with a deadline".to_owned());
        }
        // A file of figures asserts nothing, so leaving it out hides nothing.
        if line.contains("#[ignore") && !path.ends_with("tests/bench.rs") {
            report(number, "no ignored tests: mend it or remove it".to_owned());
        }
        // Tests share modules of which each uses another part: there an expectation may rightly not come true.
        if line.contains("[allow(") && !test && !shown.starts_with("plugins/hostile/") {
            report(number, "`expect` with a reason says more than `allow`".to_owned());
        }
        for edge in EDGES {
            let here = edge.only.iter().any(|only| shown.starts_with(only));
            if !here && !shown.starts_with("xtask/") && source::names(line, edge.word) {
                report(number, format!("`{}`: {}", edge.word, edge.why));
            }
        }
    }
    if shown == "host/src/invoke.rs" {
        let lines = text.lines().count();
        if lines > MAX_INVOKE_LINES {
            report(
                lines,
                format!("invoke.rs has {lines} lines, the request path is at most {MAX_INVOKE_LINES}"),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        file(Path::new(path), text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_sleep_is_found_in_tests_only() {
        let text =
            "fn a() { tokio::time::sleep(d).await }\n#[cfg(test)]\nmod tests {\n  fn b() { sleep(d) }\n}\n";
        assert_eq!(lines("host/src/a.rs", text), [4]);
        assert_eq!(lines("tests/api/a.rs", "fn a() { sleep(d) }"), [1]);
    }

    #[test]
    fn what_is_written_in_strings_and_comments_is_not_code() {
        let text = "// sleep(1)\nconst A: &str = \"import time; time.sleep(60) # rusqlite\";\n/* bollard */";
        assert!(lines("tests/api/a.rs", text).is_empty());
    }

    #[test]
    fn a_dependency_is_refused_outside_its_place() {
        let text = "use rusqlite::Connection;";
        assert_eq!(lines("host/src/session/task.rs", text), [1]);
        assert!(lines("host/src/store/mod.rs", text).is_empty());
        assert!(lines("host/src/session/task.rs", "let my_rusqlite_like = 1;").is_empty());
    }

    #[test]
    fn a_long_request_path_is_refused() {
        let text = "// a line\n".repeat(MAX_INVOKE_LINES + 1);
        assert_eq!(lines("host/src/invoke.rs", &text).len(), 1);
        assert!(lines("host/src/app.rs", &text).is_empty());
    }

    #[test]
    fn the_repository_keeps_its_rules() {
        check().unwrap();
    }
}
