//! Archives into a directory of the test's own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::files::tar::{BLOCK, Kind, Member, padding, write_header};

struct Fixture {
    dir: TempDir,
    files: Files,
}

fn entry(name: &str, kind: Kind, data: &str) -> (Member, Vec<u8>) {
    let (target, data) = if kind == Kind::File { ("", data) } else { (data, "") };
    let member = Member {
        name: name.into(),
        kind,
        target: target.into(),
        mode: 0o4755,
        mtime: (1_000_000_000, 0),
        size: data.len() as u64,
    };
    (member, data.into())
}

fn tar(entries: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (member, data) in entries {
        write_header(&mut out, member);
        out.extend_from_slice(data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let files = Files::open_at(dir.path().to_str().unwrap()).unwrap();
        Self { dir, files }
    }

    fn take(&self, path: &str, bytes: &[u8]) -> Result<ArchiveResponse, Failure> {
        let mut incoming = self.files.take_archive(path)?;
        incoming.spool(bytes)?;
        incoming.received(false)?;
        while !incoming.unpack()? {}
        incoming.merge()
    }

    fn reason(&self, path: &str, bytes: &[u8]) -> String {
        let failure = self.take(path, bytes).unwrap_err();
        failure.details["reason"].as_str().unwrap_or(failure.code.parts().0).to_owned()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn an_archive_is_merged_and_nothing_else_is_left() {
    let f = Fixture::new();
    fs::create_dir_all(f.dir.path().join("kept")).unwrap();
    fs::write(f.dir.path().join("kept/old"), "old").unwrap();
    fs::write(f.dir.path().join("kept/both"), "old").unwrap();
    let bytes = tar(&[
        entry("kept/", Kind::Directory, ""),
        entry("kept/both", Kind::File, "new"),
        entry("new/deep/file", Kind::File, "deep"),
        entry("new/link", Kind::Symlink, "deep/file"),
        entry("new/hard", Kind::Hardlink, "new/deep/file"),
    ]);
    for bytes in [bytes.clone(), gzip(&bytes)] {
        let answer = f.take(".", &bytes).unwrap();
        assert_eq!((answer.entries, answer.bytes, answer.path.as_str()), (5, 7, "."));
        assert_eq!(f.names(), ["kept", "new"]);
        assert_eq!((f.read("kept/old"), f.read("kept/both")), ("old".into(), "new".into()));
        assert_eq!((f.read("new/link"), f.read("new/hard")), ("deep".into(), "deep".into()));
        let stat = fs::metadata(f.dir.path().join("new/deep/file")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.nlink()), (0o755, 1_000_000_000, 2));
    }
}

#[test]
fn a_target_that_does_not_exist_is_made_only_for_a_good_archive() {
    let f = Fixture::new();
    assert_eq!(f.reason("a/b", b"no archive at all"), "not_an_archive");
    assert_eq!(f.reason("a/b", &[]), "not_an_archive");
    assert!(f.names().is_empty());
    let bytes = tar(&[entry("x", Kind::File, "x")]);
    f.take("a/b", &bytes).unwrap();
    assert_eq!(f.read("a/b/x"), "x");
    let mode = fs::metadata(f.dir.path().join("a/b")).unwrap().permissions().mode();
    assert_eq!((mode & 0o7777, f.names()), (0o755, vec!["a".to_owned()]));
    assert_eq!(f.take("a/b/x", &bytes).unwrap_err().code, Code::NotADirectory);
}

#[test]
fn a_bad_archive_leaves_everything_as_it_was() {
    let f = Fixture::new();
    let good = entry("good", Kind::File, "good");
    let with = |bad| tar(&[good.clone(), bad]);
    for (bytes, reason) in [
        (with(entry("../out", Kind::File, "x")), "path_traversal"),
        (with(entry("/abs", Kind::File, "x")), "absolute_path"),
        (with(entry("l", Kind::Symlink, "/etc/passwd")), "absolute_link"),
        (with(entry("a/l", Kind::Symlink, "../../x")), "escaping_link"),
        (with(entry("h", Kind::Hardlink, "other")), "unknown_link_target"),
        (with(entry("good", Kind::File, "again")), "duplicate"),
        (with(entry("good/x", Kind::File, "x")), "beneath_a_file"),
        (tar(&[entry("l", Kind::Symlink, "d"), entry("l/x", Kind::File, "x")]), "beneath_a_link"),
    ] {
        assert_eq!(f.reason(".", &bytes), reason);
        assert!(f.names().is_empty(), "{reason}: {:?}", f.names());
    }
    let whole = tar(std::slice::from_ref(&good));
    assert_eq!(f.reason(".", &whole[..BLOCK + 2]), "truncated");
    let packed = gzip(&whole);
    assert_eq!(f.reason(".", &packed[..packed.len() - 4]), "truncated");
    let mut damaged = packed.clone();
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    assert_eq!(f.reason(".", &damaged), "corrupt");
    assert!(f.names().is_empty());
}

#[test]
fn a_compressed_bomb_is_refused() {
    let f = Fixture::new();
    let zeros = "\0".repeat(32 << 20);
    assert_eq!(f.reason(".", &gzip(&tar(&[entry("zeros", Kind::File, &zeros)]))), "compression_ratio");
    assert!(f.names().is_empty());
    assert_eq!(f.take(".", &tar(&[entry("zeros", Kind::File, &zeros)])).unwrap().bytes, 32 << 20);
}

#[test]
fn compressed_bytes_that_come_to_nothing_are_refused() {
    let f = Fixture::new();
    let mut members = gzip(&tar(&[entry("a", Kind::File, "x")]));
    let nothing = gzip(b"");
    members.extend(nothing.repeat((2 << 20) / nothing.len()));
    assert_eq!(f.reason(".", &members), "corrupt");
    assert!(f.names().is_empty());
}

#[test]
fn what_is_in_the_way_refuses_the_whole_archive() {
    let f = Fixture::new();
    fs::create_dir(f.dir.path().join("elsewhere")).unwrap();
    for in_the_way in ["file", "link", "directory"] {
        let path = f.dir.path().join("z");
        match in_the_way {
            "file" => fs::write(&path, "").unwrap(),
            "link" => symlink("elsewhere", &path).unwrap(),
            _ => fs::create_dir(&path).unwrap(),
        }
        let bytes = match in_the_way {
            "directory" => tar(&[entry("a", Kind::File, "a"), entry("z", Kind::File, "z")]),
            _ => tar(&[entry("a", Kind::File, "a"), entry("z/inner", Kind::File, "z")]),
        };
        assert_eq!(f.reason(".", &bytes), "in_the_way", "{in_the_way}");
        assert_eq!(f.names(), ["elsewhere", "z"], "{in_the_way}");
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir(&path);
    }
    assert_eq!(fs::read_dir(f.dir.path().join("elsewhere")).unwrap().count(), 0);
    // A link where a file goes is replaced itself.
    symlink("elsewhere/victim", f.dir.path().join("z")).unwrap();
    f.take(".", &tar(&[entry("z", Kind::File, "z")])).unwrap();
    assert_eq!((f.read("z").as_str(), f.dir.path().join("elsewhere/victim").exists()), ("z", false));
}

/// Exchanges whatever appears in a staging directory for links out of the workspace, as fast as it can.
fn exchange(root: &std::path::Path, outside: &std::path::Path, over: &AtomicBool) {
    let mut turn = 0_u64;
    while !over.load(Ordering::Relaxed) {
        for staging in fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()) {
            if !staging.file_name().unwrap().as_encoded_bytes().starts_with(b".bay-") {
                continue;
            }
            for target in [staging.join("tree"), staging.join("tree/d"), staging.join("tree/d/e")] {
                turn += 1;
                let aside = root.join(format!("aside/{turn}"));
                if fs::rename(&target, &aside).is_ok() {
                    let _ = symlink(outside, &target);
                }
            }
        }
    }
}

#[test]
fn whatever_is_done_to_the_staging_directory_nothing_outside_is_written() {
    let f = Fixture::new();
    let outside = TempDir::new().unwrap();
    let entries: Vec<_> = (0..100)
        .map(|n| entry(&format!("{}/{n}", ["d", "d/e", "d/e/f"][n % 3]), Kind::File, "mine"))
        .collect();
    let bytes = tar(&entries);
    fs::create_dir(f.dir.path().join("aside")).unwrap();
    let over = AtomicBool::new(false);
    let (mut whole, mut broken) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(f.dir.path(), outside.path(), &over));
        for turn in 0..60 {
            match f.take(&format!("t{turn}"), &bytes) {
                Ok(_) => whole += 1,
                Err(failure) => {
                    assert_ne!(failure.code, Code::RuntimeError, "{failure:?}");
                    broken += 1;
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{whole} whole, {broken} broken");
    assert!(broken > 0, "the race was never met");
}

#[test]
fn what_a_killed_ship_left_is_swept_once_it_is_old() {
    let f = Fixture::new();
    fs::create_dir(f.dir.path().join("sub")).unwrap();
    let left = f.files.take_archive("sub").unwrap();
    // As a kill would: nothing is removed at the end.
    std::mem::forget(left);
    fs::write(f.dir.path().join(".bay-0123456789abcdef.tmp"), "").unwrap();
    fs::write(f.dir.path().join(".bay-mine"), "").unwrap();
    assert_eq!(f.names().len(), 4, "all of it is in the workspace itself");
    for (age, names) in [(crate::files::LEFT_BEHIND, 4), (std::time::Duration::ZERO, 2)] {
        let mut sweep = f.files.sweep(age).unwrap();
        while sweep.slice().unwrap().is_none() {}
        assert_eq!(f.names().len(), names);
    }
    assert_eq!(f.names(), [".bay-mine", "sub"]);
}
