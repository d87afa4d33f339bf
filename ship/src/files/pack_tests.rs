//! Directories out, read back by the machine's own `tar`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use super::*;

fn all(packing: &mut Packing) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = packing.piece()? {
        assert!(piece.len() < 2 * PIECE, "{}", piece.len());
        bytes.extend(piece);
    }
    Ok(bytes)
}

fn fixture() -> (TempDir, Files) {
    let dir = TempDir::new().unwrap();
    let files = Files::open_at(dir.path().to_str().unwrap()).unwrap();
    (dir, files)
}

#[test]
fn a_directory_comes_back_as_it_was_without_what_cannot_be_carried() {
    let (dir, files) = fixture();
    let top = dir.path().join("top");
    let long = "n".repeat(200);
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::create_dir(top.join(".bay-0123456789abcdef.tmp")).unwrap();
    fs::write(top.join("sub").join(&long), "long").unwrap();
    fs::write(top.join("big"), vec![7; 1_000_001]).unwrap();
    symlink("sub/missing", top.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, top.join("fifo"), Mode::from_raw_mode(0o666)).unwrap();
    let mut packing = files.pack("top").unwrap();
    assert_eq!(packing.name, "top");
    let bytes = all(&mut packing).unwrap();
    let out = TempDir::new().unwrap();
    fs::write(out.path().join("a.tar"), bytes).unwrap();
    fs::create_dir(out.path().join("x")).unwrap();
    let done =
        Command::new("tar").args(["-xf", "../a.tar"]).current_dir(out.path().join("x")).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let x = out.path().join("x");
    assert_eq!(fs::read(x.join("big")).unwrap(), vec![7; 1_000_001]);
    assert_eq!(fs::read_to_string(x.join("sub").join(&long)).unwrap(), "long");
    assert_eq!(fs::read_link(x.join("link")).unwrap().to_str(), Some("sub/missing"));
    assert!(x.join("sub/empty").is_dir());
    assert_eq!(fs::read_dir(&x).unwrap().count(), 3, "neither the FIFO nor Ship's own");
}

#[test]
fn a_file_that_becomes_shorter_breaks_the_stream() {
    let (dir, files) = fixture();
    fs::write(dir.path().join("big"), vec![7; 3 << 20]).unwrap();
    let mut packing = files.pack(".").unwrap();
    packing.piece().unwrap();
    fs::write(dir.path().join("big"), "short").unwrap();
    assert_eq!(all(&mut packing).unwrap_err().code, Code::Conflict);
}

#[test]
fn a_tree_too_deep_breaks_the_stream() {
    let (dir, files) = fixture();
    fs::create_dir_all(dir.path().join("d/".repeat(MAX_DEPTH))).unwrap();
    assert!(all(&mut files.pack(".").unwrap()).is_err());
    assert!(all(&mut files.pack("d").unwrap()).is_ok());
    assert_eq!(files.pack("none").err().map(|failure| failure.code), Some(Code::FileNotFound));
}
