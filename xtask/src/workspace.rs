//! Where things are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;

use crate::run;

/// The root of the workspace this runs in. Cargo says where that is; the place it was compiled in may be another
/// checkout that shares the target directory.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let here = PathBuf::from(here);
        here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
    })
}

/// The target of Ship: the machine's own architecture, statically linked.
pub(crate) fn musl_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// The target of every component.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// Cargo's target directory, wherever the person keeps it.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let text = run::output(run::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

/// Builds one executable and tells where it is. Cargo's progress goes to standard error as usual.
///
/// `what` is `--bin` or `--example`, and its name. `bay` is always selected with it: alone, a package would resolve
/// other features of what they share, and the WebAssembly engine would be compiled once more.
pub(crate) fn build(package: &str, what: [&str; 2], profile: &str) -> anyhow::Result<PathBuf> {
    build_by(run::cargo().args(["build", "--package", "bay", "--package", package]), what, profile)
}

/// Builds one executable of a package that shares nothing with `bay`, and needs none of it.
pub(crate) fn build_alone(package: &str, what: [&str; 2], profile: &str) -> anyhow::Result<PathBuf> {
    build_by(run::cargo().args(["build", "--package", package]), what, profile)
}

/// Builds Ship as Bay carries it.
pub(crate) fn build_ship() -> anyhow::Result<PathBuf> {
    let target = musl_target();
    build_by(
        run::cargo().args(["build", "--package", "bay-ship", "--target", &target]),
        ["--bin", "ship"],
        "ship",
    )
}

fn build_by(cargo: &mut Command, what: [&str; 2], profile: &str) -> anyhow::Result<PathBuf> {
    let text = run::output(
        cargo.args(["--locked", "--message-format=json-render-diagnostics", "--profile", profile]).args(what),
    )?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == what[1])
        .filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .next_back()
        .with_context(|| format!("cargo built no {}", what.join(" ")))
}

/// Builds `bay`.
pub(crate) fn build_bay(profile: &str) -> anyhow::Result<PathBuf> {
    build("bay", ["--bin", "bay"], profile)
}
