//! The file calls on a directory of the test's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use bay_ship_api::http::{
    DeleteFileRequest, ListDirRequest, ListDirResponse, ReadFileRequest, WriteFileRequest,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

pub(super) struct Fixture {
    pub(super) dir: TempDir,
    pub(super) files: Files,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let files = Files::open_at(dir.path().to_str().unwrap()).unwrap();
        Self { dir, files }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn read(&self, path: &str) -> Result<String, Code> {
        let request = ReadFileRequest { path: path.into(), encoding: None, offset: None, limit: None };
        self.files.read_file(&request).map(|answer| answer.content).map_err(|failure| failure.code)
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.files.delete_file(&delete(path)).and_then(to_the_end)
    }

    pub(super) fn list(&self, path: &str, recursive: bool) -> Vec<String> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let request = ListDirRequest {
                path: path.into(),
                recursive,
                hidden: false,
                limit: Some(2),
                cursor: cursor.clone(),
            };
            let page = paged(self.files.list_dir(&request)).unwrap();
            assert!(page.entries.len() <= 2);
            all.extend(page.entries.into_iter().map(|entry| entry.path));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return all;
            }
        }
    }
}

pub(super) fn paged(walk: Result<Walk, Failure>) -> Result<ListDirResponse, Failure> {
    let mut walk = walk?;
    loop {
        if let Some(page) = walk.slice()? {
            return Ok(page);
        }
    }
}

fn to_the_end(mut removal: Removal) -> Result<(), Failure> {
    while removal.slice()?.is_none() {}
    Ok(())
}

pub(super) fn write(path: &str, content: &str) -> WriteFileRequest {
    WriteFileRequest {
        path: path.into(),
        content: content.into(),
        encoding: None,
        mode: None,
        append: false,
        expected_size: None,
        if_match: None,
    }
}

fn delete(path: &str) -> DeleteFileRequest {
    DeleteFileRequest { path: path.into() }
}

#[test]
fn what_is_written_is_read_back_and_parents_are_made() {
    let f = Fixture::new();
    let answer = f.files.write_file(&write("a/b/c.txt", "hello")).unwrap();
    assert_eq!((answer.size, f.read("a/b/c.txt")), (5, Ok("hello".into())));
    assert_eq!(fs::metadata(f.path("a/b/c.txt")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(f.path("a/b")).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_replaced_file_keeps_its_permissions_unless_told() {
    let f = Fixture::new();
    let mode = |f: &Fixture| fs::metadata(f.path("x")).unwrap().permissions().mode() & 0o7777;
    f.files.write_file(&WriteFileRequest { mode: Some(0o7755), ..write("x", "1") }).unwrap();
    assert_eq!(mode(&f), 0o755);
    f.files.write_file(&write("x", "2")).unwrap();
    assert_eq!(mode(&f), 0o755);
}

#[test]
fn a_link_that_leaves_is_path_traversal_and_is_never_followed() {
    let f = Fixture::new();
    symlink("/etc/passwd", f.path("out")).unwrap();
    symlink("../../../../../../etc", f.path("up")).unwrap();
    symlink("..", f.path("parent")).unwrap();
    for path in ["out", "up/passwd", "parent/x"] {
        assert_eq!(f.read(path), Err(Code::InvalidPath), "{path}");
        let failure = f.files.write_file(&write(path, "no")).unwrap_err();
        assert_eq!(
            failure.details,
            serde_json::json!({"field": "path", "reason": "path_traversal"}),
            "{path}"
        );
    }
}

#[test]
fn a_link_that_stays_inside_is_followed_also_an_absolute_one() {
    let f = Fixture::new();
    fs::create_dir(f.path("d")).unwrap();
    fs::write(f.path("d/file"), "inside").unwrap();
    symlink("d/file", f.path("relative")).unwrap();
    symlink("/workspace/d/file", f.path("absolute")).unwrap();
    symlink("/workspace/d/../d", f.path("dir")).unwrap();
    for path in ["relative", "absolute", "dir/file"] {
        assert_eq!(f.read(path), Ok("inside".into()), "{path}");
    }
    f.files.write_file(&write("relative", "changed")).unwrap();
    assert_eq!(fs::read_to_string(f.path("d/file")).unwrap(), "changed");
    assert!(fs::symlink_metadata(f.path("relative")).unwrap().is_symlink());
}

#[test]
fn links_in_a_circle_end() {
    let f = Fixture::new();
    symlink("b", f.path("a")).unwrap();
    symlink("a", f.path("b")).unwrap();
    assert_eq!(f.read("a"), Err(Code::ValidationError));
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    let f = Fixture::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, f.path("fifo"), Mode::from_raw_mode(0o666)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(f.path("socket")).unwrap();
    fs::create_dir(f.path("dir")).unwrap();
    for path in ["fifo", "socket"] {
        assert_eq!(f.read(path), Err(Code::ValidationError), "{path}");
        assert_eq!(f.files.write_file(&write(path, "x")).unwrap_err().code, Code::ValidationError);
        let append = WriteFileRequest { append: true, ..write(path, "x") };
        assert_eq!(f.files.write_file(&append).unwrap_err().code, Code::ValidationError);
        assert_eq!(f.files.open_download(path).unwrap_err().code, Code::ValidationError);
    }
    assert_eq!(f.read("dir"), Err(Code::IsADirectory));
    assert_eq!(f.files.write_file(&write("dir", "x")).unwrap_err().code, Code::IsADirectory);
    assert_eq!(f.files.write_file(&write(".", "x")).unwrap_err().code, Code::IsADirectory);
}

#[test]
fn missing_things_say_so() {
    let f = Fixture::new();
    fs::write(f.path("file"), "x").unwrap();
    assert_eq!(f.read("none"), Err(Code::FileNotFound));
    assert_eq!(f.read("none/deeper"), Err(Code::FileNotFound));
    assert_eq!(f.read("file/deeper"), Err(Code::NotADirectory));
    assert_eq!(f.delete("none").unwrap_err().code, Code::FileNotFound);
}

#[test]
fn etags_guard_a_write() {
    let f = Fixture::new();
    let first = f.files.write_file(&write("x", "1")).unwrap().etag;
    let with = |tag: &str| WriteFileRequest { if_match: Some(tag.into()), ..write("x", "2") };
    let second = f.files.write_file(&with(&first)).unwrap().etag;
    assert_ne!(first, second);
    let refused = f.files.write_file(&with(&first)).unwrap_err();
    assert_eq!((refused.code, &refused.details["etag"]), (Code::Conflict, &second.clone().into()));
    f.files.write_file(&with(&format!("\"{second}\""))).unwrap();
    f.files.write_file(&with("*")).unwrap();
    let absent = WriteFileRequest { if_match: Some("*".into()), ..write("y", "2") };
    assert_eq!(f.files.write_file(&absent).unwrap_err().code, Code::Conflict);
    assert!(!f.path("y").exists());
}

#[test]
fn of_many_writers_with_one_etag_one_wins() {
    let f = Fixture::new();
    let tag = f.files.write_file(&write("x", "0")).unwrap().etag;
    let wins = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (files, tag) = (&f.files, tag.clone());
                scope.spawn(move || {
                    files
                        .write_file(&WriteFileRequest { if_match: Some(tag), ..write("x", &n.to_string()) })
                        .is_ok()
                })
            })
            .collect();
        writers.into_iter().filter(|_| true).map(|w| w.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn an_append_checks_the_size_it_was_promised() {
    let f = Fixture::new();
    let append = |size| WriteFileRequest { append: true, expected_size: Some(size), ..write("log", "ab") };
    assert_eq!(f.files.write_file(&append(0)).unwrap().size, 2);
    assert_eq!(f.files.write_file(&append(2)).unwrap().size, 4);
    let refused = f.files.write_file(&append(2)).unwrap_err();
    assert_eq!((refused.code, &refused.details["size"]), (Code::Conflict, &4.into()));
    assert_eq!(f.read("log"), Ok("abab".into()));
}

#[test]
fn bytes_that_are_no_text_travel_as_base64() {
    let f = Fixture::new();
    f.files.write_file(&WriteFileRequest { encoding: Some("base64".into()), ..write("x", "//4A") }).unwrap();
    assert_eq!(f.read("x"), Err(Code::ValidationError));
    let request =
        ReadFileRequest { path: "x".into(), encoding: Some("base64".into()), offset: None, limit: None };
    assert_eq!(f.files.read_file(&request).unwrap().content, "//4A");
    let bad = WriteFileRequest { encoding: Some("base64".into()), ..write("x", "%%") };
    assert_eq!(f.files.write_file(&bad).unwrap_err().code, Code::ValidationError);
}

#[test]
fn a_file_beyond_the_bound_is_refused_unread() {
    let f = Fixture::new();
    fs::File::create(f.path("big")).unwrap().set_len(bay_ship_api::http::MAX_FILE + 1).unwrap();
    assert_eq!(f.read("big"), Err(Code::PayloadTooLarge));
}

#[test]
fn paths_that_bay_would_refuse_are_refused_here_too() {
    let reason = |path: &str| RelPath::parse("path", path).map_err(|f| f.details["reason"].clone());
    assert_eq!(reason(""), Err("empty_path".into()));
    assert_eq!(reason("/etc/passwd"), Err("absolute_path".into()));
    assert_eq!(reason("a\0b"), Err("null_byte".into()));
    for path in ["..", "a/../..", "../workspace/x", "./../x"] {
        assert_eq!(reason(path), Err("path_traversal".into()), "{path}");
    }
    assert_eq!(RelPath::parse("path", "./a//b/../c").unwrap().text(), "a/c");
}

/// Pieces from which interesting paths and links are made.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "..", ".", "l1", "l2", "l3", "/", "/workspace", "/etc", "..."])
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 1..6).prop_map(|pieces| pieces.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However links and paths are combined, nothing outside the root is read, written or deleted.
    #[test]
    fn nothing_outside_is_ever_touched(links in prop::collection::vec(path(), 3), wanted in path()) {
        let outer = TempDir::new().unwrap();
        fs::write(outer.path().join("a"), "outside").unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("b/a"), "inside").unwrap();
        for (n, link) in links.iter().enumerate() {
            let at = if n == 2 { root.join("b/l3") } else { root.join(format!("l{}", n + 1)) };
            symlink(link, at).unwrap();
        }
        let files = Files::open_at(root.to_str().unwrap()).unwrap();
        let request = ReadFileRequest { path: wanted.clone(), encoding: None, offset: None, limit: None };
        if let Ok(answer) = files.read_file(&request) {
            prop_assert_eq!(answer.content, "inside");
        }
        let _ = files.write_file(&write(&wanted, "inside"));
        let _ = files.delete_file(&delete(&wanted)).and_then(to_the_end);
        prop_assert_eq!(fs::read_to_string(outer.path().join("a")).unwrap(), "outside");
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_parsed_path_never_climbs(text: String) {
        if let Ok(path) = RelPath::parse("path", &text) {
            prop_assert!(path.text().split('/').all(|part| part != ".." && !part.is_empty()));
        }
    }
}
