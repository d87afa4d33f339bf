//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, on a stable toolchain.
//!
//! What cargo-fuzz would do without a sanitizer: the coverage pass is an option of the stable compiler, and what is
//! looked for is panics, overflows and broken promises, not memory errors: the code is safe Rust.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use crate::{args, run, setup, workspace};

/// The coverage that libFuzzer reads, as cargo-fuzz asks for it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Longest input. Bounds beyond this are tested by themselves.
const MAX_INPUT: usize = 16 << 10;

/// Runs one target or each in turn; stops at the first that fails, and says where its input is.
pub(crate) fn fuzz(options: &args::Fuzz) -> anyhow::Result<()> {
    setup::setup(setup::For::Running)?;
    if !setup::on_path("c++") {
        bail!("libFuzzer is C++: install g++ or clang");
    }
    let corpus = workspace::target_dir()?.join("fuzz");
    let seeds = workspace::build_alone("bay-fuzz", ["--bin", "bay-fuzz-seeds"], "dev")?;
    run::checked(run::command(&seeds).arg(&corpus))?;
    let mut targets: Vec<String> = std::fs::read_dir(&corpus)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "build" && name != "found")
        .collect();
    targets.sort();
    if let Some(only) = &options.target {
        ensure!(targets.contains(only), "there is no target `{only}`; there are {}", targets.join(", "));
        targets = vec![only.clone()];
    }
    let binary = build(&corpus.join("build"))?;
    let found = corpus.join("found");
    std::fs::create_dir_all(&found)?;
    for target in targets {
        println!("=== {target}");
        let ran = run::checked(
            run::command(&binary)
                .env("BAY_FUZZ_TARGET", &target)
                .arg(corpus.join(&target))
                .arg(format!("-max_total_time={}", options.minutes * 60))
                .arg(format!("-max_len={MAX_INPUT}"))
                .arg(format!("-artifact_prefix={}/{target}-", found.display()))
                .args(["-print_final_stats=1", "-verbosity=0", "-timeout=10"]),
        );
        ran.with_context(|| format!("{target} failed; the input is in {}", found.display()))?;
    }
    Ok(())
}

/// Compiles libFuzzer's binary apart from everything else, since the flags are for it alone.
fn build(target_dir: &std::path::Path) -> anyhow::Result<PathBuf> {
    // With a target named, the flags are not for build scripts.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let manifest = "--manifest-path=tests/fuzz/libfuzzer/Cargo.toml";
    let mut cargo = run::cargo();
    cargo.args(["build", "--locked", "--release", manifest, "--target", &target]);
    run::checked(cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", target_dir))?;
    Ok(target_dir.join(target).join("release").join("bay-libfuzzer"))
}
