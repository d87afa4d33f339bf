//! The Python tools that read the document: `cargo xtask test` installs them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Says what is wrong with the document that stands on standard input; nothing where nothing is.
const VALIDATE: &str = "import json, sys\n\
    from openapi_spec_validator import OpenAPIV31SpecValidator as Validator\n\
    for error in Validator(json.load(sys.stdin)).iter_errors():\n    print(error.message[:300], list(error.absolute_path))\n";

/// Holds the document against the schema of OpenAPI 3.1.
#[track_caller]
pub(crate) fn validate_openapi(document: &Value) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("write the document");
    let stdin = std::fs::File::open(&file).expect("open the document");
    let ran = Command::new(tools().join("bin/python3"))
        .args(["-I", "-c", VALIDATE])
        .stdin(stdin)
        .output()
        .expect("run openapi-spec-validator");
    let (said, cause) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.is_empty(), "the document is no OpenAPI 3.1:\n{said}\n{cause}");
}

/// Where the tools are.
pub(crate) fn tools() -> PathBuf {
    let dir = std::env::var_os("BAY_TEST_CONTRACT_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "BAY_TEST_CONTRACT_TOOLS names no virtual environment with schemathesis; `cargo xtask test` makes one, \
             or by hand: python3 -m venv DIR && DIR/bin/pip install -r tests/tests/contract/requirements.txt && \
             export BAY_TEST_CONTRACT_TOOLS=DIR"
        )
    });
    assert!(dir.join("bin/schemathesis").exists(), "{} holds no bin/schemathesis", dir.display());
    dir
}

/// Runs a command to its end and returns whether it went well and what it said; one that takes longer than `limit`
/// is killed.
pub(crate) fn run_bounded(command: &mut Command, limit: Duration) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let said = folder.path().join("said");
    let out = std::fs::File::create(&said).expect("a file for what it says");
    let mut child = command
        .stdin(Stdio::null())
        .stderr(out.try_clone().expect("a second handle"))
        .stdout(out)
        .spawn()
        .expect("run a tool of the contract's tests");
    let mut end = None;
    let ended = bay_tests::soon(limit, || {
        end = child.try_wait().expect("look at it");
        end.is_some()
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = String::from_utf8_lossy(&std::fs::read(&said).unwrap_or_default()).into_owned();
    (end.is_some_and(|status| status.success()), text)
}
