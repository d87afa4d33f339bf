//! Listing and deleting: trees of any size and depth, at any moment.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use bay_ship_api::http::{ListDirRequest, ListDirResponse};
use proptest::prelude::*;

use super::tests::{Fixture, paged};
use super::*;

#[test]
fn directories_go_with_all_that_is_in_them_and_links_alone() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("d/e")).unwrap();
    fs::write(f.path("keep"), "x").unwrap();
    symlink("../keep", f.path("d/link")).unwrap();
    symlink("..", f.path("d/e/up")).unwrap();
    f.delete("d").unwrap();
    assert!(!f.path("d").exists() && f.path("keep").exists());
    symlink("keep", f.path("l")).unwrap();
    f.delete("l").unwrap();
    assert!(f.path("keep").exists());
    assert_eq!(f.delete(".").unwrap_err().code, Code::ValidationError);
}

#[test]
fn a_very_deep_tree_is_deleted() {
    let f = Fixture::new();
    let mut at = rustix::fs::open(f.dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..600 {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    f.delete("d").unwrap();
    assert_eq!(fs::read_dir(f.dir.path()).unwrap().count(), 0);
}

#[test]
fn listings_put_directories_first_and_page_through_everything_once() {
    let f = Fixture::new();
    for dir in ["z", "m/n", ".hidden"] {
        fs::create_dir_all(f.path(dir)).unwrap();
    }
    for file in ["a", "b", "c", "m/x", ".secret", ".hidden/x"] {
        fs::write(f.path(file), "").unwrap();
    }
    symlink("m", f.path("link")).unwrap();
    assert_eq!(f.list(".", false), ["m", "z", "a", "b", "c", "link"]);
    assert_eq!(f.list(".", true), ["m", "m/n", "z", "a", "b", "c", "link", "m/x"]);
    assert_eq!(f.list("m", false), ["m/n", "m/x"]);
}

#[test]
fn a_bad_cursor_or_limit_is_refused() {
    let f = Fixture::new();
    let request = |limit, cursor: Option<&str>| ListDirRequest {
        path: ".".into(),
        recursive: false,
        hidden: false,
        limit,
        cursor: cursor.map(str::to_owned),
    };
    for bad in
        [request(Some(0), None), request(Some(1001), None), request(None, Some("%")), request(None, Some(""))]
    {
        assert_eq!(paged(f.files.list_dir(&bad)).unwrap_err().code, Code::ValidationError);
    }
}

fn page(f: &Fixture, recursive: bool, hidden: bool, limit: u32, cursor: Option<String>) -> ListDirResponse {
    let request = ListDirRequest { path: ".".into(), recursive, hidden, limit: Some(limit), cursor };
    paged(f.files.list_dir(&request)).unwrap()
}

#[test]
fn a_large_directory_is_paged_without_gaps_or_repeats() {
    let f = Fixture::new();
    for n in 0..5000 {
        fs::write(f.path(&format!("{n:05}")), "").unwrap();
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let got = page(&f, false, false, 999, cursor);
        seen.extend(got.entries.into_iter().map(|entry| entry.name));
        cursor = got.next_cursor;
        assert_eq!(got.truncated, cursor.is_some());
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..5000).map(|n| format!("{n:05}")).collect::<Vec<_>>());
}

#[test]
fn a_cursor_stays_right_when_entries_come_and_go() {
    let f = Fixture::new();
    for name in ["b", "d", "f"] {
        fs::write(f.path(name), "").unwrap();
    }
    let first = page(&f, false, false, 2, None);
    for name in ["a", "e"] {
        fs::write(f.path(name), "").unwrap();
    }
    fs::remove_file(f.path("d")).unwrap();
    fs::create_dir(f.path("dir")).unwrap();
    let second = page(&f, false, false, 9, first.next_cursor);
    let names: Vec<_> = second.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!((names, second.truncated), (vec!["e", "f"], false));
}

#[test]
fn a_tree_too_deep_to_show_says_so() {
    let f = Fixture::new();
    fs::create_dir_all(f.path(&vec!["d"; 70].join("/"))).unwrap();
    let got = page(&f, true, false, 1000, None);
    assert_eq!((got.entries.len(), got.truncated, got.next_cursor), (64, true, None));
}

#[test]
fn names_that_are_not_utf_8_are_shown_and_passed() {
    let f = Fixture::new();
    for raw in [&b"a\xff"[..], b"a\xfe", b"b"] {
        fs::write(f.dir.path().join(std::ffi::OsStr::from_bytes(raw)), "").unwrap();
    }
    assert_eq!(f.list(".", false), ["a\u{fffd}", "a\u{fffd}", "b"]);
}

#[test]
fn hidden_names_are_shown_when_asked_for_and_ships_own_never() {
    let f = Fixture::new();
    fs::write(f.path(".env"), "").unwrap();
    fs::write(f.path(&own::passing_name().unwrap()), "").unwrap();
    let names =
        |hidden| page(&f, false, hidden, 9, None).entries.into_iter().map(|e| e.name).collect::<Vec<_>>();
    assert_eq!((names(false), names(true)), (vec![], vec![".env".to_owned()]));
}

#[test]
fn a_directory_that_is_filled_while_it_is_emptied_goes_once_that_ends() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("d/sub")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let deleted = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..2000 {
                let _ = fs::write(f.path(&format!("d/sub/{n}")), "");
                let _ = fs::create_dir_all(f.path(&format!("d/{n}")));
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut all = Vec::new();
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            all.push(f.delete("d").map_err(|failure| failure.code));
        }
        all
    });
    for result in deleted {
        assert!(matches!(result, Ok(()) | Err(Code::FileNotFound | Code::Conflict)), "{result:?}");
    }
    let _ = f.delete("d");
    assert!(!f.path("d").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Pages of any size make up the whole, in order, for any tree.
    #[test]
    fn pages_make_up_the_whole(
        files in prop::collection::btree_set("[ab0.-]{1,2}(/[ab0-]{1,2}){0,3}", 0..20),
        limit in 1u32..6,
    ) {
        let f = Fixture::new();
        for file in &files {
            let path = f.path(file);
            let parents = path.parent().map(fs::create_dir_all);
            if parents.is_some_and(|made| made.is_ok()) {
                let _ = fs::write(&path, "");
            }
        }
        let whole: Vec<_> = page(&f, true, true, 1000, None).entries.into_iter().map(|e| (e.kind, e.path)).collect();
        let key = |(kind, path): &(String, String)| (kind != "directory", path.clone());
        prop_assert!(whole.windows(2).all(|two| key(&two[0]) < key(&two[1])));
        let mut pages = Vec::new();
        let mut cursor = None;
        loop {
            let got = page(&f, true, true, limit, cursor);
            pages.extend(got.entries.into_iter().map(|e| (e.kind, e.path)));
            cursor = got.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(pages, whole);
    }
}

#[test]
fn long_paths_make_short_pages_without_gaps_or_repeats() {
    let f = Fixture::new();
    // 900 paths of about 3,800 bytes, made by descriptor where no call could name them at once.
    let mut at = rustix::fs::open(f.dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let step = "d".repeat(250);
    for _ in 0..15 {
        rustix::fs::mkdirat(&at, &step, Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, &step, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    for n in 0..900 {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(&at, format!("{n:03}"), flags, Mode::from_raw_mode(0o644)).unwrap();
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let got = page(&f, true, false, 1000, cursor);
        let bytes: usize = got.entries.iter().map(|entry| entry.path.len()).sum();
        assert!(bytes <= 2 << 20, "{bytes}");
        seen.extend(got.entries.into_iter().map(|entry| entry.path));
        pages += 1;
        assert_eq!(got.truncated, got.next_cursor.is_some());
        cursor = got.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, 2);
    assert_eq!(seen.len(), 915);
    assert!(seen[15..].is_sorted() && seen[..15].is_sorted());
    seen.dedup();
    assert_eq!(seen.len(), 915);
}
