//! Builds the default components and Ship, so that a plain `cargo build` in a clean clone is enough.

use std::path::{Path, PathBuf};

use bay_nested_build::{NestedBuild, finish, out_dir, rerun_if_changed, rerun_if_env_changed};

const COMPONENTS: &[&str] = &["rules-default", "router-default", "adapter-ship"];

/// A Ship that was built elsewhere, for instance by a packager.
const SHIP_BIN: &str = "BAY_SHIP_BIN";

fn main() {
    finish(components().and_then(|()| ship()));
}

/// Asked when it runs, not when it is compiled: several checkouts may share a target directory.
fn root() -> Result<PathBuf, String> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    Ok(Path::new(&here).join("../.."))
}

fn components() -> Result<(), String> {
    let root = root()?;
    let plugins = root.join("plugins");
    rerun_if_changed(COMPONENTS.iter().map(|c| plugins.join(c)));
    rerun_if_changed([plugins.join("Cargo.toml"), plugins.join("Cargo.lock")]);
    // What the components are built from besides.
    rerun_if_changed([root.join("wit"), root.join("ship/api")]);
    let artifacts = NestedBuild {
        name: "plugins",
        manifest: plugins.join("Cargo.toml"),
        target: "wasm32-wasip2".into(),
        profile: "release".into(),
        packages: COMPONENTS.iter().map(|c| (*c).to_owned()).collect(),
    }
    .run()?;
    for component in COMPONENTS {
        let built = artifacts.join(component.replace('-', "_")).with_extension("wasm");
        copy(&built, &format!("{component}.wasm"))?;
    }
    Ok(())
}

fn ship() -> Result<(), String> {
    rerun_if_env_changed(SHIP_BIN);
    if let Some(path) = std::env::var_os(SHIP_BIN).map(PathBuf::from) {
        rerun_if_changed([&path]);
        return copy(&path, "ship");
    }
    let root = root()?;
    let manifest = root.join("Cargo.toml");
    let ship = root.join("ship");
    rerun_if_changed([ship.join("src"), ship.join("Cargo.toml"), ship.join("build.rs"), ship.join("api")]);
    rerun_if_changed([&manifest, &root.join("Cargo.lock")]);
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").map_err(|e| format!("CARGO_CFG_TARGET_ARCH: {e}"))?;
    let own_profile = std::fs::read_to_string(&manifest).is_ok_and(|t| t.contains("[profile.ship]"));
    let artifacts = NestedBuild {
        name: "ship",
        manifest: ship.join("Cargo.toml"),
        target: format!("{arch}-unknown-linux-musl"),
        profile: if own_profile { "ship" } else { "release" }.into(),
        packages: Vec::new(),
    }
    .run()?;
    copy(&artifacts.join("ship"), "ship")
}

fn copy(from: &Path, name: &str) -> Result<(), String> {
    let to = out_dir()?.join(name);
    std::fs::copy(from, &to).map_err(|e| format!("{} → {}: {e}", from.display(), to.display()))?;
    Ok(())
}
