//! A watch on a directory of the test's own.

use std::fs;
use std::os::unix::fs::symlink;

use bay_ship_api::http::WriteFileRequest;
use tempfile::TempDir;

use super::*;

struct Fixture {
    dir: TempDir,
    files: Files,
    all: Arc<Watches>,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let files = Files::open_at(dir.path().to_str().unwrap()).unwrap();
        Self { dir, files, all: Arc::default() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn watch(&self, path: &str, recursive: bool) -> Watcher {
        self.files.watch(path, recursive, &self.all).unwrap()
    }

    fn write(&self, path: &str) {
        let request = WriteFileRequest {
            path: path.into(),
            content: "x".into(),
            encoding: None,
            mode: None,
            append: false,
            expected_size: None,
            if_match: None,
        };
        self.files.write_file(&request).unwrap();
    }

    fn watched(&self) -> usize {
        self.all.0.load(Ordering::Relaxed)
    }
}

/// Everything that happened, in short: `created file a`.
fn told(watcher: &mut Watcher) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        let digest = watcher.digest(true).unwrap();
        assert!(!digest.overflow);
        words.extend(digest.events.iter().map(|(happened, event)| {
            let from = event.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
            format!("{} {} {}{from}", happened.name(), event.kind, event.path)
        }));
        words.extend(digest.end.map(|event| format!("end {} {}", event.kind, event.path)));
        if !digest.more {
            return words;
        }
    }
}

#[test]
fn each_change_is_told_once_and_by_its_name() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", false);
    fs::write(f.path("a"), "1").unwrap();
    symlink("/etc", f.path("l")).unwrap();
    fs::create_dir(f.path("d")).unwrap();
    assert_eq!(
        told(&mut watcher),
        ["created file a", "modified file a", "created symlink l", "created directory d"]
    );
    fs::write(f.path("d/inner"), "not recursive").unwrap();
    fs::rename(f.path("a"), f.path("b")).unwrap();
    fs::remove_file(f.path("l")).unwrap();
    assert_eq!(told(&mut watcher), ["moved file b from a", "removed symlink l"]);
}

#[test]
fn an_atomic_write_shows_only_its_target() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", true);
    f.write("x");
    assert_eq!(told(&mut watcher), ["created file x"]);
    f.write("x");
    assert_eq!(told(&mut watcher), ["modified file x"]);
    fs::remove_file(f.path("x")).unwrap();
    f.write("x");
    assert_eq!(told(&mut watcher), ["removed file x", "created file x"]);
}

#[test]
fn new_directories_are_watched_with_what_was_made_before() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", true);
    fs::create_dir_all(f.path("a/b/c")).unwrap();
    fs::write(f.path("a/b/early"), "").unwrap();
    let mut events = told(&mut watcher);
    events.sort();
    let wanted =
        ["created directory a", "created directory a/b", "created directory a/b/c", "created file a/b/early"];
    assert_eq!(events, wanted);
    fs::write(f.path("a/b/c/late"), "").unwrap();
    assert_eq!(told(&mut watcher), ["created file a/b/c/late"]);
    assert_eq!(f.watched(), 4);
    fs::rename(f.path("a/b"), f.path("moved")).unwrap();
    fs::write(f.path("moved/c/again"), "").unwrap();
    assert_eq!(told(&mut watcher), ["moved directory moved from a/b", "created file moved/c/again"]);
    fs::remove_dir_all(f.path("moved")).unwrap();
    assert!(told(&mut watcher).contains(&"removed directory moved".to_owned()));
    assert_eq!(f.watched(), 2);
    drop(watcher);
    assert_eq!(f.watched(), 0);
}

#[test]
fn what_moves_out_is_removed_and_no_longer_watched() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("in/d/e")).unwrap();
    fs::create_dir(f.path("out")).unwrap();
    symlink("../out", f.path("in/link")).unwrap();
    let mut watcher = f.watch("in", true);
    assert_eq!(f.watched(), 3);
    fs::rename(f.path("in/d"), f.path("out/d")).unwrap();
    assert_eq!(told(&mut watcher), ["removed directory in/d"]);
    fs::write(f.path("out/d/e/x"), "").unwrap();
    assert_eq!(told(&mut watcher), [""; 0]);
    assert_eq!(f.watched(), 1);
    fs::rename(f.path("out/d"), f.path("in/back")).unwrap();
    let mut events = told(&mut watcher);
    events.sort();
    let wanted = ["created directory in/back", "created directory in/back/e", "created file in/back/e/x"];
    assert_eq!(events, wanted);
}

#[test]
fn the_end_of_the_root_is_the_last_event_even_while_it_is_held_open() {
    for way in ["remove", "move"] {
        let f = Fixture::new();
        fs::create_dir(f.path("d")).unwrap();
        let held = fs::File::open(f.path("d")).unwrap();
        let mut watcher = f.watch("d", true);
        match way {
            "remove" => fs::remove_dir(f.path("d")).unwrap(),
            _ => fs::rename(f.path("d"), f.path("e")).unwrap(),
        }
        assert_eq!(told(&mut watcher), ["end directory d"], "{way}");
        drop(held);
    }
}

#[test]
fn a_file_can_be_watched_through_atomic_writes() {
    let f = Fixture::new();
    f.write("d/x");
    let mut watcher = f.watch("d/x", false);
    f.write("d/other");
    f.write("d/x");
    assert_eq!(told(&mut watcher), ["modified file d/x"]);
    fs::remove_file(f.path("d/x")).unwrap();
    assert_eq!(told(&mut watcher), ["end file d/x"]);
}

#[test]
fn a_tree_too_large_is_refused_and_costs_nothing_then() {
    let f = Fixture::new();
    for n in 0..MAX_DIRECTORIES {
        fs::create_dir(f.path(&n.to_string())).unwrap();
    }
    let refused = f.files.watch(".", true, &f.all).err().unwrap();
    assert_eq!(refused.code, Code::ValidationError);
    assert_eq!(f.watched(), 0);
    f.watch(".", false);
    assert_eq!(f.files.watch("none", true, &f.all).err().unwrap().code, Code::FileNotFound);
}

#[test]
fn a_flood_comes_in_bounded_pieces() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", false);
    for n in 0..3000 {
        fs::write(f.path(&n.to_string()), "").unwrap();
    }
    let mut seen = 0;
    loop {
        let digest = watcher.digest(true).unwrap();
        assert!(digest.events.len() < 1000, "{}", digest.events.len());
        seen += digest.events.len();
        if !digest.more {
            break;
        }
    }
    assert_eq!(seen, 3000);
}

/// Reads all that there is: what was told, by event and path, and whether something was missed.
fn read_all(watcher: &mut Watcher) -> (Vec<(Happened, String)>, bool) {
    let (mut events, mut missed) = (Vec::new(), false);
    loop {
        let digest = watcher.digest(true).unwrap();
        events.extend(digest.events.into_iter().map(|(happened, event)| (happened, event.path)));
        missed |= digest.overflow;
        if !digest.more {
            return (events, missed);
        }
    }
}

#[test]
fn a_directory_that_is_made_and_renamed_at_once_is_watched_under_its_last_name() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", true);
    // All of it before the first message is read; what was looked at cannot be where the message says.
    for n in 0..200 {
        fs::create_dir_all(f.path("tmp/inner")).unwrap();
        fs::write(f.path("tmp/inner/early"), "").unwrap();
        fs::rename(f.path("tmp"), f.path(&format!("final{n}"))).unwrap();
    }
    let (events, missed) = read_all(&mut watcher);
    assert!(!missed);
    for n in 0..200 {
        let early = (Happened::Created, format!("final{n}/inner/early"));
        assert!(events.contains(&early), "{early:?}");
        fs::write(f.path(&format!("final{n}/inner/late")), "").unwrap();
    }
    let (events, missed) = read_all(&mut watcher);
    let late = (0..200).map(|n| (Happened::Created, format!("final{n}/inner/late")));
    assert_eq!((events, missed), (late.collect(), false));
    assert_eq!(f.watched(), 401);
    // And while the messages are being read.
    let at = f.dir.path().to_owned();
    let mover = std::thread::spawn(move || {
        for n in 0..200 {
            fs::create_dir_all(at.join("tmp/inner")).unwrap();
            fs::write(at.join("tmp/inner/early"), "").unwrap();
            fs::rename(at.join("tmp"), at.join(format!("other{n}"))).unwrap();
        }
    });
    while !mover.is_finished() {
        read_all(&mut watcher);
    }
    mover.join().unwrap();
    // The rest.
    read_all(&mut watcher);
    for n in 0..200 {
        fs::write(f.path(&format!("other{n}/inner/late")), "").unwrap();
    }
    let (events, missed) = read_all(&mut watcher);
    assert!(!missed);
    for n in 0..200 {
        let late = (Happened::Created, format!("other{n}/inner/late"));
        assert!(events.contains(&late), "{late:?}");
    }
}

#[test]
fn a_removed_directory_is_forgotten_even_while_it_is_held_open() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", true);
    fs::create_dir(f.path("d")).unwrap();
    read_all(&mut watcher);
    assert_eq!(f.watched(), 2);
    let held = fs::File::open(f.path("d")).unwrap();
    fs::remove_dir(f.path("d")).unwrap();
    assert_eq!(told(&mut watcher), ["removed directory d"]);
    assert_eq!(f.watched(), 1);
    drop(held);
}

#[test]
fn a_tree_that_grows_too_large_ends_its_watch() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", true);
    for n in 0..MAX_DIRECTORIES {
        fs::create_dir(f.path(&n.to_string())).unwrap();
    }
    let refused = loop {
        match watcher.digest(true) {
            Ok(digest) => assert!(digest.more && digest.end.is_none()),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.details["limit"], MAX_DIRECTORIES);
}

#[test]
fn a_digest_ends_in_time_whether_messages_become_events_or_not() {
    let f = Fixture::new();
    let mut watcher = f.watch(".", false);
    let passing = f.path(".bay-0123456789abcdef.tmp");
    for _ in 0..2000 {
        fs::create_dir(&passing).unwrap();
        fs::remove_dir(&passing).unwrap();
    }
    fs::write(f.path("last"), "").unwrap();
    // Time that is over at once leaves one piece of what the kernel has for each digest.
    let mut digests = 1;
    let last = loop {
        let digest = watcher.digest_until(std::time::Instant::now(), false).unwrap();
        if !digest.events.is_empty() {
            break digest;
        }
        assert!(digest.more);
        digests += 1;
    };
    assert_eq!((last.events[0].0, last.events[0].1.path.as_str()), (Happened::Created, "last"));
    assert!(digests > 20, "{digests}");
}

#[test]
fn what_moves_in_with_too_much_in_it_is_told_as_missed() {
    let f = Fixture::new();
    fs::create_dir_all(f.path("out/many")).unwrap();
    fs::create_dir(f.path("in")).unwrap();
    for n in 0..20_001 {
        fs::File::create(f.path(&format!("out/many/{n}"))).unwrap();
    }
    let mut watcher = f.watch("in", true);
    fs::rename(f.path("out/many"), f.path("in/many")).unwrap();
    let digest = watcher.digest(true).unwrap();
    assert!(digest.overflow && digest.stale);
    // Begun anew it is watched.
    let mut watcher = f.watch("in", true);
    fs::write(f.path("in/many/late"), "").unwrap();
    assert_eq!(told(&mut watcher), ["created file in/many/late"]);
}

#[test]
fn an_event_too_deep_for_a_path_is_told_as_missed() {
    let f = Fixture::new();
    let step = "d".repeat(250);
    let mut at = f.dir.path().to_owned();
    let mut inner = fs::File::open(&at).unwrap();
    let mut watcher = f.watch(".", true);
    let mut told_paths = 0;
    for _ in 0..20 {
        rustix::fs::mkdirat(&inner, &step, rustix::fs::Mode::RWXU).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        inner = rustix::fs::openat(&inner, &step, flags, rustix::fs::Mode::empty()).unwrap().into();
        at.push(&step);
        let (events, missed) = read_all(&mut watcher);
        assert_eq!((events.len(), missed), if at_len(&f, &at) <= 4096 { (1, false) } else { (0, true) });
        told_paths += events.len();
    }
    assert_eq!(told_paths, 16);
}

/// The length of a path as events have it.
fn at_len(f: &Fixture, at: &std::path::Path) -> usize {
    at.strip_prefix(f.dir.path()).unwrap().as_os_str().len()
}
