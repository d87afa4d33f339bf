//! Editing, moving, making, describing, and what arrives in pieces.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use bay_ship_api::http::{
    EditFileRequest, EditFileResponse, MakeDirRequest, MoveRequest, StatRequest, StatResponse,
    WriteFileRequest,
};

use super::staging::Staged;
use super::tests::{Fixture, write};
use super::upload::UploadRequest;
use super::*;
use crate::files::resolve::Parents;

fn edit(path: &str, old: &str, new: &str) -> EditFileRequest {
    EditFileRequest {
        path: path.into(),
        old_string: old.into(),
        new_string: new.into(),
        replace_all: false,
        if_match: None,
    }
}

impl Fixture {
    fn edit(&self, request: &EditFileRequest) -> Result<EditFileResponse, (Code, serde_json::Value)> {
        self.files.edit_file(request).map_err(|failure| (failure.code, failure.details["count"].clone()))
    }

    fn rename(&self, from: &str, to: &str, overwrite: bool) -> Result<(), Code> {
        let request = MoveRequest { from: from.into(), to: to.into(), overwrite };
        self.files.move_file(&request).map_err(|failure| failure.code)
    }

    fn make_dir(&self, path: &str) -> Result<bool, Code> {
        let made = self.files.make_dir(&MakeDirRequest { path: path.into() });
        made.map(|answer| answer.created).map_err(|failure| failure.code)
    }

    fn stat(&self, path: &str) -> Result<StatResponse, Code> {
        self.files.stat(&StatRequest { path: path.into() }).map_err(|failure| failure.code)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn an_edit_replaces_what_is_there_once_and_keeps_the_mode() {
    let f = Fixture::new();
    fs::write(f.path("x"), "one two three two").unwrap();
    fs::set_permissions(f.path("x"), fs::Permissions::from_mode(0o750)).unwrap();
    let answer = f.edit(&edit("x", "one", "1 ☃")).unwrap();
    assert_eq!((answer.replacements, answer.size), (1, 19));
    assert_eq!(f.stat("x").unwrap().etag, answer.etag);
    assert_eq!(f.edit(&edit("x", "two", "2")).unwrap_err(), (Code::Conflict, 2.into()));
    assert_eq!(f.edit(&edit("x", "none", "2")).unwrap_err(), (Code::Conflict, 0.into()));
    let all = EditFileRequest { replace_all: true, ..edit("x", "two", "2") };
    assert_eq!(f.edit(&all).unwrap().replacements, 2);
    assert_eq!(f.edit(&all).unwrap_err(), (Code::Conflict, 0.into()));
    assert_eq!(f.read("x"), Ok("1 ☃ 2 three 2".into()));
    assert_eq!(fs::metadata(f.path("x")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(f.names(), ["x"], "nothing else is left");
}

#[test]
fn what_overlaps_itself_is_not_unique() {
    let f = Fixture::new();
    fs::write(f.path("x"), "éaéaé").unwrap();
    assert_eq!(f.edit(&edit("x", "éaé", "b")).unwrap_err(), (Code::Conflict, 2.into()));
    let all = EditFileRequest { replace_all: true, ..edit("x", "éaé", "b") };
    assert_eq!(f.edit(&all).unwrap().replacements, 1);
    assert_eq!(f.read("x"), Ok("baé".into()));
}

#[test]
fn an_edit_is_refused_where_it_does_not_fit() {
    let f = Fixture::new();
    fs::write(f.path("x"), "aaaa").unwrap();
    fs::write(f.path("binary"), b"\xff\xfe").unwrap();
    fs::create_dir(f.path("d")).unwrap();
    fs::File::create(f.path("big")).unwrap().set_len(bay_ship_api::http::MAX_FILE + 1).unwrap();
    symlink("/etc/passwd", f.path("out")).unwrap();
    let code = |request: &EditFileRequest| f.edit(request).unwrap_err().0;
    assert_eq!(code(&edit("x", "", "b")), Code::ValidationError);
    assert_eq!(code(&edit("binary", "a", "b")), Code::ValidationError);
    assert_eq!(code(&edit("d", "a", "b")), Code::IsADirectory);
    assert_eq!(code(&edit("none", "a", "b")), Code::FileNotFound);
    assert_eq!(code(&edit("big", "a", "b")), Code::PayloadTooLarge);
    assert_eq!(code(&edit("out", "root", "b")), Code::InvalidPath);
    let long = "b".repeat(3 << 20);
    let all = EditFileRequest { replace_all: true, ..edit("x", "a", &long) };
    assert_eq!(code(&all), Code::PayloadTooLarge);
    let tag = f.stat("x").unwrap().etag;
    let guarded = |tag: &str| EditFileRequest { if_match: Some(tag.into()), ..edit("x", "aaaa", "bb") };
    assert_eq!(code(&guarded("other")), Code::Conflict);
    assert_eq!(f.edit(&guarded(&tag)).unwrap().size, 2);
    assert_eq!(code(&guarded(&tag)), Code::Conflict);
}

#[test]
fn of_many_edits_at_once_none_is_lost() {
    let f = Fixture::new();
    fs::write(f.path("x"), "a b c d e f g h").unwrap();
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let f = &f;
            scope.spawn(move || f.edit(&edit("x", letter, &letter.to_uppercase())).unwrap());
        }
    });
    assert_eq!(f.read("x"), Ok("A B C D E F G H".into()));
}

#[test]
fn a_new_file_takes_no_name_that_is_in_use() {
    let f = Fixture::new();
    let create = |path: &str| f.files.create_file(&write(path, "new")).map_err(|failure| failure.code);
    assert_eq!(create("a/b").unwrap().size, 3);
    fs::create_dir(f.path("d")).unwrap();
    symlink("nowhere", f.path("dangling")).unwrap();
    symlink("a/b", f.path("link")).unwrap();
    for path in ["a/b", "d", "dangling", "link"] {
        assert_eq!(create(path).unwrap_err(), Code::AlreadyExists, "{path}");
    }
    assert_eq!(create(".").unwrap_err(), Code::IsADirectory);
    assert!(!f.path("nowhere").exists());
    let matched = WriteFileRequest { if_match: Some("*".into()), ..write("y", "") };
    assert_eq!(f.files.create_file(&matched).unwrap_err().code, Code::ValidationError);
    let wins = std::thread::scope(|scope| {
        let creators: Vec<_> =
            (0..8).map(|_| scope.spawn(|| f.files.create_file(&write("race", "x")).is_ok())).collect();
        creators.into_iter().map(|creator| creator.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn directories_are_made_with_their_parents_and_once() {
    let f = Fixture::new();
    assert_eq!(f.make_dir("a/b/c"), Ok(true));
    assert_eq!(f.make_dir("a/b/c"), Ok(false));
    assert_eq!(f.make_dir("."), Ok(false));
    fs::write(f.path("file"), "").unwrap();
    symlink("a/b", f.path("inside")).unwrap();
    symlink("/tmp", f.path("outside")).unwrap();
    assert_eq!(f.make_dir("inside"), Ok(false));
    assert_eq!(f.make_dir("file"), Err(Code::AlreadyExists));
    assert_eq!(f.make_dir("file/x"), Err(Code::NotADirectory));
    assert_eq!(f.make_dir("outside/x"), Err(Code::InvalidPath));
}

#[test]
fn a_move_replaces_nothing_unless_told() {
    let f = Fixture::new();
    fs::write(f.path("x"), "x").unwrap();
    fs::write(f.path("y"), "y").unwrap();
    assert_eq!(f.rename("x", "y", false), Err(Code::AlreadyExists));
    assert_eq!(f.read("y"), Ok("y".into()));
    assert_eq!(f.rename("x", "new/dir/z", false), Ok(()));
    assert_eq!(f.rename("new/dir/z", "y", true), Ok(()));
    assert_eq!((f.read("y"), f.names()), (Ok("x".into()), vec!["new".to_owned(), "y".to_owned()]));
    assert_eq!(f.rename("y", "y", true), Ok(()));
    assert_eq!(f.rename("y", "y", false), Err(Code::AlreadyExists));
    assert_eq!(f.rename("none", "z", false), Err(Code::FileNotFound));
    assert_eq!(f.read("y"), Ok("x".into()));
}

#[test]
fn a_move_keeps_directories_and_files_apart() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("d/e")).unwrap();
    fs::create_dir_all(f.path("empty")).unwrap();
    fs::write(f.path("file"), "x").unwrap();
    assert_eq!(f.rename("d", "d/e/f", false), Err(Code::ValidationError));
    assert_eq!(f.rename("d", "d/g/f", true), Err(Code::ValidationError));
    assert!(!f.path("d/g").exists(), "no parents are made for a move that cannot be");
    symlink("d", f.path("again")).unwrap();
    assert_eq!(f.rename("d", "again/x", false), Err(Code::ValidationError));
    assert_eq!(f.rename("file", "empty", true), Err(Code::IsADirectory));
    assert_eq!(f.rename("empty", "file", true), Err(Code::NotADirectory));
    assert_eq!(f.rename("empty", "d", true), Err(Code::AlreadyExists));
    assert_eq!(f.rename("d", "empty", true), Ok(()));
    assert!(f.path("empty/e").exists());
    for (from, to) in [(".", "x"), ("file", "."), ("empty/..", "x")] {
        assert_eq!(f.rename(from, to, true), Err(Code::ValidationError), "{from} {to}");
    }
}

#[test]
fn a_move_takes_links_themselves_and_both_names_of_one_file() {
    let f = Fixture::new();
    symlink("/etc/passwd", f.path("out")).unwrap();
    assert_eq!(f.rename("out", "moved", false), Ok(()));
    assert_eq!(fs::read_link(f.path("moved")).unwrap().to_str(), Some("/etc/passwd"));
    fs::write(f.path("x"), "x").unwrap();
    assert_eq!(f.rename("x", "moved", true), Ok(()));
    assert_eq!(f.read("moved"), Ok("x".into()));
    fs::hard_link(f.path("moved"), f.path("twin")).unwrap();
    assert_eq!(f.rename("moved", "twin", true), Ok(()));
    assert_eq!(f.names(), ["twin"]);
    symlink("/tmp", f.path("up")).unwrap();
    let request = MoveRequest { from: "twin".into(), to: "up/x".into(), overwrite: false };
    let failure = f.files.move_file(&request).unwrap_err();
    assert_eq!((failure.code, &failure.details["field"]), (Code::InvalidPath, &"to".into()));
}

#[test]
fn stat_tells_what_a_listing_would_and_where_a_link_points() {
    let f = Fixture::new();
    fs::create_dir(f.path("d")).unwrap();
    let tag = f.files.write_file(&write("d/x", "12345")).unwrap().etag;
    let stat = f.stat("d/./x").unwrap();
    assert_eq!((stat.entry.name.as_str(), stat.entry.path.as_str()), ("x", "d/x"));
    assert_eq!((stat.entry.kind.as_str(), stat.entry.size, stat.entry.mode.as_str()), ("file", 5, "0644"));
    assert_eq!((stat.etag, stat.target), (tag, None));
    symlink("/etc/passwd", f.path("out")).unwrap();
    let link = f.stat("out").unwrap();
    assert_eq!((link.entry.kind.as_str(), link.target.as_deref()), ("symlink", Some("/etc/passwd")));
    let root = f.stat(".").unwrap();
    assert_eq!((root.entry.name.as_str(), root.entry.kind.as_str()), (".", "directory"));
    assert_eq!(f.stat("none").unwrap_err(), Code::FileNotFound);
    assert_eq!(f.stat("out/x").unwrap_err(), Code::InvalidPath);
}

#[test]
fn two_writes_never_have_one_etag() {
    let f = Fixture::new();
    let mut seen = std::collections::HashSet::new();
    for n in 0..200 {
        assert!(seen.insert(f.files.write_file(&write("x", &(n % 2).to_string())).unwrap().etag));
    }
    fs::write(f.path("log"), "").unwrap();
    for _ in 0..200 {
        let append = WriteFileRequest { append: true, ..write("log", "") };
        assert!(seen.insert(f.files.write_file(&append).unwrap().etag));
    }
}

fn upload(f: &Fixture, path: &str) -> Result<upload::Upload, Failure> {
    f.files.begin_upload(UploadRequest { path: path.into(), mode: Some(0o7640), if_match: None })
}

#[test]
fn an_upload_is_not_there_until_it_is_whole() {
    let f = Fixture::new();
    let mut started = upload(&f, "a/x").unwrap();
    started.write(b"one ").unwrap();
    started.write(b"two").unwrap();
    assert!(!f.path("a/x").exists());
    let answer = started.finish().unwrap();
    assert_eq!((answer.size, f.read("a/x")), (7, Ok("one two".into())));
    assert_eq!(fs::metadata(f.path("a/x")).unwrap().mode() & 0o7777, 0o640);
    let mut broken = upload(&f, "a/y").unwrap();
    broken.write(b"half").unwrap();
    drop(broken);
    assert_eq!(fs::read_dir(f.path("a")).unwrap().count(), 1);
    assert_eq!(upload(&f, "a").err().unwrap().code, Code::IsADirectory);
}

#[test]
fn an_upload_checks_again_what_it_replaces() {
    let f = Fixture::new();
    let tag = f.files.write_file(&write("x", "1")).unwrap().etag;
    let begin = |tag: &str| {
        f.files.begin_upload(UploadRequest { path: "x".into(), mode: None, if_match: Some(tag.into()) })
    };
    assert_eq!(begin("other").err().unwrap().code, Code::Conflict);
    let mut started = begin(&tag).unwrap();
    started.write(b"2").unwrap();
    f.files.write_file(&write("x", "between")).unwrap();
    assert_eq!(started.finish().unwrap_err().code, Code::Conflict);
    assert_eq!((f.read("x"), f.names().len()), (Ok("between".into()), 1));
}

#[test]
fn a_staged_file_that_user_code_exchanges_is_no_success() {
    let f = Fixture::new();
    let place = |name: &str| {
        let path = RelPath::parse("path", name).unwrap();
        resolve::resolve(&f.files.root, &path, Parents::Make).unwrap()
    };
    let mut staged = Staged::create_named(place("x")).unwrap();
    staged.write(b"ours").unwrap();
    let passing = f.names().pop().unwrap();
    assert!(own::is_passing_name(passing.as_bytes()));
    assert_eq!(f.list(".", false), [""; 0], "no listing shows it");
    fs::remove_file(f.path(&passing)).unwrap();
    symlink("/etc/passwd", f.path(&passing)).unwrap();
    assert_eq!(staged.replace().unwrap_err().code, Code::Conflict);
    assert_eq!(f.names(), [""; 0], "the link was not given the name");

    let mut staged = Staged::create_named(place("x")).unwrap();
    staged.write(b"ours").unwrap();
    staged.settle(0o600).unwrap();
    staged.appear().unwrap();
    assert_eq!((f.read("x"), f.names()), (Ok("ours".into()), vec!["x".to_owned()]));
    let staged = Staged::create_named(place("x")).unwrap();
    assert_eq!(staged.appear().unwrap_err().code, Code::AlreadyExists);
    let mut staged = Staged::create_named(place("x")).unwrap();
    staged.write(b"more").unwrap();
    staged.replace().unwrap();
    assert_eq!((f.read("x"), f.names()), (Ok("more".into()), vec!["x".to_owned()]));
}
