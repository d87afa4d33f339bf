use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::{HostOptions, Limits};

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

struct Fixture {
    dir: tempfile::TempDir,
    engine: Engine,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = HostOptions { max_operations: 1, ..HostOptions::new(dir.path().join("cache")) };
    let engine = crate::engine::make(&options).unwrap();
    Fixture { dir, engine }
}

impl Fixture {
    fn path(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// As a new process would.
    fn look(&self) -> Found {
        Cache::open(&self.path()).component(&self.engine, COMPONENT, "d1").unwrap().1
    }

    fn file(&self, extension: &str) -> PathBuf {
        let files: Vec<_> = fs::read_dir(self.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.into_iter().find(|p| p.extension().is_some_and(|e| e == extension)).unwrap()
    }
}

#[test]
fn the_second_look_is_a_hit_and_the_directory_is_private() {
    let f = fixture();
    assert_eq!(f.look(), Found::Compiled);
    assert_eq!(f.look(), Found::Hit);
    assert_eq!(fs::metadata(f.path()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(f.file("cwasm")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn nothing_is_left_aside() {
    let f = fixture();
    f.look();
    let names: Vec<_> = fs::read_dir(f.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn whatever_is_wrong_with_an_entry_it_is_compiled_again_and_mended() {
    let f = fixture();
    f.look();
    let code = f.file("cwasm");
    let good = fs::read(&code).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [flipped, good[..good.len() / 2].to_vec(), Vec::new(), b"not code".to_vec()] {
        fs::write(&code, bad).unwrap();
        assert_eq!(f.look(), Found::Compiled);
        assert_eq!(f.look(), Found::Hit);
    }
    fs::write(f.file("sha256"), "0000").unwrap();
    assert_eq!(f.look(), Found::Compiled);
    fs::remove_file(f.file("sha256")).unwrap();
    assert_eq!(f.look(), Found::Compiled);
    assert_eq!(f.look(), Found::Hit);
}

/// A file with the right digest that this engine did not write is refused by wasmtime, and compiled again.
#[test]
fn another_engines_code_is_not_run() {
    let f = fixture();
    f.look();
    let code = f.file("cwasm");
    let mut other = wasmtime::Config::new();
    other.epoch_interruption(false);
    let foreign = Engine::new(&other).unwrap().precompile_component(COMPONENT).unwrap();
    save(&code, &foreign).unwrap();
    assert_eq!(f.look(), Found::Compiled);
}

#[test]
fn what_others_may_write_is_not_run() {
    let f = fixture();
    f.look();
    fs::set_permissions(f.file("cwasm"), Permissions::from_mode(0o666)).unwrap();
    assert_eq!(f.look(), Found::Compiled);
    let code = f.file("cwasm");
    let elsewhere = f.dir.path().join("elsewhere");
    fs::rename(&code, &elsewhere).unwrap();
    symlink(&elsewhere, &code).unwrap();
    assert_eq!(f.look(), Found::Compiled);
}

#[test]
fn a_directory_that_others_may_write_to_is_not_used() {
    let f = fixture();
    f.look();
    fs::set_permissions(f.path(), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(f.look(), Found::Compiled);
    assert_eq!(f.look(), Found::Compiled);
}

#[test]
fn a_link_in_place_of_the_directory_is_not_followed() {
    let f = fixture();
    let real = f.dir.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, f.path()).unwrap();
    assert_eq!(f.look(), Found::Compiled);
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
}

#[test]
fn entries_that_nothing_used_for_long_are_removed() {
    let f = fixture();
    f.look();
    remove_unused(&f.path(), SystemTime::now() + UNUSED / 2);
    assert_eq!(f.look(), Found::Hit);
    remove_unused(&f.path(), SystemTime::now() + UNUSED * 2);
    assert_eq!(f.look(), Found::Compiled);
}

#[test]
fn another_engine_has_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let options = HostOptions { max_operations: 1, ..HostOptions::new(dir.path()) };
    let key = |o: &HostOptions| crate::engine::compatibility(&crate::engine::make(o).unwrap());
    assert_eq!(key(&options), key(&options));
    let mut plain = wasmtime::Config::new();
    plain.epoch_interruption(false);
    assert_ne!(key(&options), crate::engine::compatibility(&Engine::new(&plain).unwrap()));
    let bounds = Limits { max_steps: 3, ..Limits::default() };
    assert_eq!(key(&options), key(&HostOptions { limits: bounds, ..options.clone() }), "not about code");
}
