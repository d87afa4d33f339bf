//! A locker's volume that is full, or that somebody removed.

use bay_tests::driver::connect;
use bay_tests::{Bay, Engine};
use serde_json::json;

use crate::common::{on, order};

/// By the driver's name for it.
fn volume(locker: &str) -> String {
    let engine = Engine::of_tests();
    let all = engine.get("/volumes");
    let id = locker.trim_start_matches("lkr_");
    let names = all["Volumes"].as_array().into_iter().flatten().filter_map(|v| v["Name"].as_str());
    names.filter(|name| name.ends_with(id)).map(str::to_owned).next().expect("the locker's volume")
}

#[test]
fn a_full_volume_is_told_as_such_and_room_is_all_it_takes() {
    let bay = Bay::start(on(&Engine::host(), &connect()));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.unharmed();
    // The same volume, but small: as if the disk beneath it were.
    let name = volume(&sandbox.locker);
    sandbox.post("stop", &json!({})).send().expect(200);
    let engine = Engine::of_tests();
    let labels = engine.get(&format!("/volumes/{name}"))["Labels"].clone();
    order(&engine, "DELETE", &format!("/volumes/{name}"));
    let small = json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=2m" });
    let wanted = json!({ "Name": name, "Driver": "local", "DriverOpts": small, "Labels": labels });
    engine.call("POST", "/volumes/create", &wanted);

    let big = "x".repeat(3 << 20);
    sandbox.write_with(json!({ "path": "big.txt", "content": big })).error(507, "storage_full");
    sandbox.file("big.txt").error(404, "file_not_found");
    let ran = sandbox.shell("dd if=/dev/zero of=fill bs=1M count=4");
    assert_eq!(ran["success"], false, "{ran}");
    assert!(ran["stderr"].as_str().is_some_and(|e| e.contains("No space left")), "{ran}");
    sandbox.unharmed();
    sandbox
        .write_with(json!({ "path": "more.txt", "content": "more".repeat(1000) }))
        .error(507, "storage_full");
    sandbox.remove("fill").send().expect(200);
    sandbox.write("more.txt", "more");
    assert_eq!(sandbox.read("more.txt"), "more");
}

#[test]
fn a_removed_volume_is_an_empty_locker_and_not_the_end_of_the_sandbox() {
    let bay = Bay::start(on(&Engine::host(), &connect()));
    let sandbox = bay.api().sandbox(json!({ "profile": "shell-only" }));
    sandbox.write("gone.txt", "gone");
    let name = volume(&sandbox.locker);
    let engine = Engine::of_tests();
    let refused = engine.ask("DELETE", &format!("/volumes/{name}?force=true"), None).expect("ask the engine");
    assert_eq!(refused.status, 409, "an engine protects what is in use: {}", refused.brief());
    sandbox.post("stop", &json!({})).send().expect(200);
    order(&engine, "DELETE", &format!("/volumes/{name}"));
    sandbox.file("gone.txt").error(404, "file_not_found");
    sandbox.write("new.txt", "new");
    assert_eq!(sandbox.read("new.txt"), "new");
    // And once more before a deletion, which has nothing to remove then.
    sandbox.post("stop", &json!({})).send().expect(200);
    order(&engine, "DELETE", &format!("/volumes/{name}"));
    sandbox.call("DELETE", "").send().expect(204);
    assert!(!engine.has_volume(&name));
}
