//! Compiled components on disk: compile once, map afterwards.
//!
//! Running a compiled file is running native code, so only files that this host wrote are taken: the directory and
//! the files must be ours and writable by nobody else, and a file must have the digest that was written beside it.
//! Whatever is wrong with an entry, the component is compiled again.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Which wasmtime compiled it, beside what the engine's own hash says.
const COMPILER: &str = concat!("bay-", env!("CARGO_PKG_VERSION"), "-wasmtime-48");

/// Entries that nothing used for so long are removed: each new build of a plugin or of Bay leaves one behind.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What became of a look into the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Mapped.
    Hit,
    /// Compiled.
    Compiled,
}

/// A directory of compiled components; without one, everything is compiled at each start.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    /// Opens or makes the directory. One that is not ours alone is not used, which is said once, here.
    pub(crate) fn open(dir: &Path) -> Self {
        match prepare(dir) {
            Ok(()) => {
                remove_unused(dir, SystemTime::now());
                Self { dir: Some(dir.to_path_buf()) }
            }
            Err(why) => {
                tracing::warn!(dir = %dir.display(), %why, "compiled plugins are not kept");
                Self { dir: None }
            }
        }
    }

    /// Takes a component from the cache, or compiles it and puts it there. Blocking.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        bytes: &[u8],
        digest: &str,
    ) -> wasmtime::Result<(Component, Found)> {
        let path = self.dir.as_ref().map(|dir| {
            let key = format!("{digest}-{COMPILER}-{:016x}.cwasm", crate::engine::compatibility(engine));
            dir.join(key)
        });
        if let Some(path) = &path {
            match load(engine, path) {
                Ok(Some(component)) => return Ok((component, Found::Hit)),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(file = %path.display(), %why, "compiled plugin not used; compiling again");
                }
            }
        }
        let component = Component::new(engine, bytes)?;
        if let Some(path) = &path {
            let kept = component.serialize().map_err(|e| format!("{e:#}")).and_then(|code| save(path, &code));
            if let Err(why) = kept {
                tracing::warn!(file = %path.display(), %why, "compiled plugin not kept");
            }
        }
        Ok((component, Found::Compiled))
    }
}

fn prepare(dir: &Path) -> Result<(), String> {
    let words = |e: std::io::Error| e.to_string();
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(words)?;
    }
    match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(words(e)),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(dir).map_err(words)?;
    if !meta.is_dir() {
        return Err("it is not a directory".into());
    }
    ours_alone(&meta)?;
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(words)?;
    }
    Ok(())
}

fn ours_alone(meta: &std::fs::Metadata) -> Result<(), String> {
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err("another user owns it".into());
    }
    if meta.mode() & 0o022 != 0 {
        return Err("others may write to it".into());
    }
    Ok(())
}

fn remove_unused(dir: &Path, now: SystemTime) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = path.extension().is_some_and(|e| e == "cwasm" || e == "sha256" || e == "tmp");
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| now.duration_since(m).ok());
        if ours && age.is_some_and(|age| age > UNUSED) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// None: there is none. The file is read once to check it and mapped once to run it.
fn load(engine: &Engine, path: &Path) -> Result<Option<Component>, String> {
    let Some(sum) = read(&sum_path(path))? else { return Ok(None) };
    let Some(code) = read(path)? else { return Ok(None) };
    if hex::encode(Sha256::digest(&code)).as_bytes() != sum.as_slice() {
        return Err("its digest is not the one that was written".into());
    }
    drop(code);
    #[expect(unsafe_code, reason = "the one place where compiled code is taken from disk")]
    // SAFETY: the file holds what `Component::serialize` wrote: it is in a directory that only this user can
    // write to (`prepare`), is this user's and writable by nobody else (`read`), and its digest is the one that
    // `save` wrote. wasmtime itself checks that version and settings are this engine's.
    let component = unsafe { Component::deserialize_file(engine, path) };
    let component = component.map_err(|e| format!("{e:#}"))?;
    touch(path);
    touch(&sum_path(path));
    Ok(Some(component))
}

/// Keeps an entry from [`remove_unused`]. Where it fails, the component is compiled once a month.
fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|f| f.set_modified(SystemTime::now()));
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(nofollow.bits()).map_err(|e| e.to_string())?;
    let mut file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    ours_alone(&meta)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(Some(bytes))
}

/// Writes aside and renames, so that nobody ever sees half a file; the digest last, since it makes an entry count.
fn save(path: &Path, code: &[u8]) -> Result<(), String> {
    write_whole(path, code)?;
    write_whole(&sum_path(path), hex::encode(Sha256::digest(code)).as_bytes())
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = (|| {
        let _ = std::fs::remove_file(&aside);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written.map_err(|e: std::io::Error| e.to_string())
}

fn sum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
