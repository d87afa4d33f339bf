//! For build scripts: runs a second cargo for another target, undisturbed by the one that runs the script.
//!
//! The nested cargo has a target directory of its own beneath the outer one, so that neither waits for the
//! other's lock, `cargo clean` removes both, and every crate that needs a nested workspace shares one build of it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to build.
#[derive(Debug, Clone)]
pub struct NestedBuild {
    /// `<target>/nested/<name>` is the target directory.
    pub name: &'static str,
    /// The manifest of the package or workspace.
    pub manifest: PathBuf,
    /// Target triple.
    pub target: String,
    /// Cargo profile.
    pub profile: String,
    /// Packages; none means whatever the manifest says.
    pub packages: Vec<String>,
}

impl NestedBuild {
    /// Builds, and returns the directory that holds the artifacts. The error is one line for a person; cargo's own
    /// words have gone to stderr.
    pub fn run(&self) -> Result<PathBuf, String> {
        require_target(&self.target)?;
        let target_dir = outer_target_dir(&out_dir()?).join("nested").join(self.name);
        let mut cargo = Command::new(env_or("CARGO", "cargo"));
        undisturbed(&mut cargo);
        cargo
            .args(["build", "--locked", "--target", &self.target, "--profile", &self.profile])
            .arg("--manifest-path")
            .arg(&self.manifest)
            .arg("--target-dir")
            .arg(&target_dir)
            .stdin(Stdio::null())
            // A build script's stdout is read as instructions to cargo.
            .stdout(Stdio::null());
        for package in &self.packages {
            cargo.args(["--package", package]);
        }
        let status = cargo.status().map_err(|e| format!("cargo does not start: {e}"))?;
        if !status.success() {
            return Err(format!("the nested build of `{}` failed; cargo's own words are above", self.name));
        }
        // The one profile whose directory has another name.
        let folder = if self.profile == "dev" { "debug" } else { &self.profile };
        Ok(target_dir.join(&self.target).join(folder))
    }
}

/// The build script's own output directory.
pub fn out_dir() -> Result<PathBuf, String> {
    std::env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or_else(|| "OUT_DIR is not set: not a build script".into())
}

/// Tells cargo to run the build script again when one of these files, or a file in one of these directories,
/// changes. A missing one is left out: cargo would take it as changed, at every build.
pub fn rerun_if_changed<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) {
    for path in paths {
        let path = path.as_ref();
        if path.exists() {
            instruct(&format!("rerun-if-changed={}", path.display()));
        }
    }
}

/// Tells cargo to run the build script again when an environment variable changes.
pub fn rerun_if_env_changed(name: &str) {
    instruct(&format!("rerun-if-env-changed={name}"));
}

/// Ends a build script: an error becomes one clear line of cargo's.
pub fn finish(result: Result<(), String>) {
    if let Err(message) = result {
        instruct(&format!("error={}", message.replace('\n', " ")));
        std::process::exit(1);
    }
}

#[expect(clippy::print_stdout, reason = "this is how a build script talks to cargo")]
fn instruct(line: &str) {
    println!("cargo::{line}");
}

fn env_or(name: &str, default: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| default.into())
}

/// Refuses early where the standard library of a target is missing: cargo's own message is a page long.
fn require_target(target: &str) -> Result<(), String> {
    let mut rustc = Command::new(env_or("RUSTC", "rustc"));
    let out = rustc
        .args(["--print", "target-libdir", "--target", target])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("rustc does not start: {e}"))?;
    let libdir = String::from_utf8_lossy(&out.stdout);
    if out.status.success() && Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "the Rust target `{target}` is not installed: run `cargo xtask setup` (or `rustup target add {target}`)"
    ))
}

/// The directory that cargo marked as a target directory; where there is no mark, the script's own one.
fn outer_target_dir(out_dir: &Path) -> PathBuf {
    out_dir.ancestors().find(|d| d.join("CACHEDIR.TAG").is_file()).unwrap_or(out_dir).to_path_buf()
}

/// Removes what the outer build says about its own target and profile, flags and wrappers.
fn undisturbed(cargo: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if disturbs(&name) {
            cargo.env_remove(&name);
        }
    }
}

/// Variables of the outer build that would change what a nested one builds. Where registries are, how they are
/// reached and how many jobs may run stays.
fn disturbs(name: &OsStr) -> bool {
    const KEPT: &[&str] = &[
        "CARGO",
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_INCREMENTAL",
    ];
    const GONE: &[&str] = &[
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "CLIPPY_ARGS",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
        "LLVM_PROFILE_FILE",
        "__CARGO_DEFAULT_LIB_METADATA",
    ];
    let Some(name) = name.to_str() else { return false };
    if GONE.contains(&name) {
        return true;
    }
    let kept = |k: &&str| name == *k || (k.len() > 6 && name.starts_with(*k));
    name.starts_with("CARGO") && !KEPT.iter().any(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_builds_flags_do_not_reach_the_nested_one() {
        for gone in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER"] {
            assert!(disturbs(OsStr::new(gone)), "{gone}");
        }
        for gone in
            ["CARGO_PROFILE_RELEASE_LTO", "CARGO_CFG_TARGET_ARCH", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"]
        {
            assert!(disturbs(OsStr::new(gone)), "{gone}");
        }
    }

    #[test]
    fn where_crates_come_from_reaches_the_nested_one() {
        for kept in [
            "CARGO",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_X_INDEX",
            "CARGO_HTTP_PROXY",
            "PATH",
        ] {
            assert!(!disturbs(OsStr::new(kept)), "{kept}");
        }
    }

    #[test]
    fn the_marked_directory_is_the_target_directory() {
        let root = std::env::temp_dir().join(format!("bay-nested-{}", std::process::id()));
        let out = root.join("debug/build/x-1/out");
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(root.join("CACHEDIR.TAG"), "").unwrap();
        assert_eq!(outer_target_dir(&out), root);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_missing_target_names_the_command_that_helps() {
        let message = require_target("no-such-target").unwrap_err();
        assert!(message.contains("cargo xtask setup"), "{message}");
    }
}
