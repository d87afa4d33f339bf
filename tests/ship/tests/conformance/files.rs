//! `filesystem`: what is written is what is read, and what leads out is refused.

use bay_ship_tests::Place;
use serde_json::{Value, json};

crate::cases! {
    files_are_written_read_listed_downloaded_and_deleted,
    a_large_file_is_downloaded_whole,
    what_leads_out_or_hangs_is_refused,
}

pub(crate) fn files_are_written_read_listed_downloaded_and_deleted(place: &dyn Place) {
    let client = &mut place.client();
    let write = json!({"path": "dir/a.txt", "content": "one\ntwo\nthree\n", "mode": 0o600});
    let written = client.post("/fs/write_file", &write).unwrap();
    assert_eq!(written["size"], 14);
    assert_eq!(client.shell_ok("stat -c '%a %u %g' dir/a.txt"), "600 1000 1000");
    let read = client.post("/fs/read_file", &json!({"path": "dir/a.txt", "offset": 2, "limit": 1})).unwrap();
    assert_eq!(read["content"], "two\n");
    assert_eq!((&read["size"], &read["etag"]), (&json!(14), &written["etag"]));
    let listed = client.post("/fs/list_dir", &json!({"path": ".", "recursive": true})).unwrap();
    let paths: Vec<&Value> = listed["entries"].as_array().unwrap().iter().map(|e| &e["path"]).collect();
    assert_eq!(paths, ["dir", "dir/a.txt"]);

    let whole = client.get("/fs/download?path=dir%2Fa.txt");
    assert_eq!((whole.status, whole.body.as_slice()), (200, &b"one\ntwo\nthree\n"[..]));
    assert!(whole.head.contains(written["etag"].as_str().unwrap()), "{}", whole.head);
    let part = client.get_with("/fs/download?path=dir/a.txt", "range: bytes=4-6\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &b"two"[..]));
    let outside = client.get_with("/fs/download?path=dir/a.txt", "range: bytes=99-\r\n");
    assert_eq!(outside.result(), Err((416, "range_not_satisfiable".to_owned())));

    client.post("/fs/delete_file", &json!({"path": "dir"})).unwrap();
    assert_eq!(
        client.post("/fs/read_file", &json!({"path": "dir/a.txt"})),
        Err((404, "file_not_found".into()))
    );
}

pub(crate) fn a_large_file_is_downloaded_whole(place: &dyn Place) {
    let client = &mut place.client();
    client.shell_ok("head -c 20000000 /dev/urandom > big; sha256sum big | cut -c1-64 > sum");
    let answer = client.get("/fs/download?path=big");
    assert_eq!(answer.body.len(), 20_000_000);
    let write = json!({"path": "x", "content": "", "append": true});
    client.post("/fs/write_file", &write).unwrap();
    let refused = client.post("/fs/read_file", &json!({"path": "big"}));
    assert_eq!(refused, Err((413, "payload_too_large".into())));
}

pub(crate) fn what_leads_out_or_hangs_is_refused(place: &dyn Place) {
    let client = &mut place.client();
    client
        .shell_ok("ln -s /etc/passwd out; ln -s .. up; mkfifo fifo; ln -s /workspace/ok in; echo fine > ok");
    for (path, status, code) in [
        ("out", 400, "invalid_path"),
        ("up/etc/passwd", 400, "invalid_path"),
        ("../etc/passwd", 400, "invalid_path"),
        ("/etc/passwd", 400, "invalid_path"),
        ("a\0b", 400, "invalid_path"),
        ("", 400, "invalid_path"),
        ("fifo", 400, "validation_error"),
        (".", 400, "is_a_directory"),
    ] {
        let read = client.post("/fs/read_file", &json!({"path": path}));
        assert_eq!(read, Err((status, code.to_owned())), "{path:?}");
    }
    assert_eq!(client.post("/fs/read_file", &json!({"path": "in"})).unwrap()["content"], "fine\n");
    let write = client.post("/fs/write_file", &json!({"path": "out", "content": "x"}));
    assert_eq!(write, Err((400, "invalid_path".into())));
    client.shell_ok("mkdir locked; chmod 0 locked");
    let denied = client.post("/fs/read_file", &json!({"path": "locked/x"}));
    assert_eq!(denied, Err((403, "permission_denied".into())));
}
