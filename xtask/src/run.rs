//! Running other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// A program found on the path, run at the root of the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::workspace::root()).stdin(Stdio::null());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = command(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    // `cargo run` tells its child about this package; a nested cargo must not think that it is about itself.
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Runs it to its end; an error names it when it fails.
pub(crate) fn checked(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// What it prints on standard output, when it succeeds.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed what is not UTF-8"))
}

/// What it prints on standard output for this input, when it succeeds.
pub(crate) fn answer(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    let shown = shown(command);
    let cannot = || format!("cannot run `{shown}`");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(cannot)?;
    // Dropped at once, which is the end of the input. Nothing here answers before it has read everything.
    child.stdin.take().context("no pipe to write")?.write_all(input)?;
    let output = child.wait_with_output().with_context(cannot)?;
    if !output.status.success() {
        bail!("`{shown}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed what is not UTF-8"))
}

/// True when it runs and succeeds; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs it, showing its standard error as it comes, and hands each line of it to `watch` too.
pub(crate) fn watched(command: &mut Command, mut watch: impl FnMut(&str)) -> anyhow::Result<bool> {
    let shown = shown(command);
    println!("$ {shown}");
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let stderr = child.stderr.take().context("no pipe to read")?;
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        std::io::stderr().write_all(&line)?;
        watch(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(child.wait()?.success())
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}
