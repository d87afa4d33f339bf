//! What every container answers.

use bay_ship_api::init::Isolation;
use bay_ship_tests::Place;
use serde_json::json;

crate::cases! { health_and_meta_say_what_is_there, capabilities_say_what_meta_says }

pub(crate) fn health_and_meta_say_what_is_there(place: &dyn Place) {
    let client = &mut place.client();
    assert_eq!(client.get("/health").json(), json!({"status": "healthy"}));
    let meta = client.get("/meta").json();
    let wanted = if place.isolation() == Isolation::TwoUid { "two_uid" } else { "nested_pid" };
    assert_eq!(meta["isolation"], wanted);
    assert_eq!(meta["runtime"]["name"], "ship");
    assert_eq!(meta["workspace"]["mount_path"], "/workspace");
    for capability in ["filesystem", "python", "shell"] {
        assert!(meta["capabilities"][capability]["operations"].is_array(), "{capability}");
    }
    client.python_ok("1");
    assert_eq!(client.get("/meta").json()["capabilities"]["python"]["engine"], "ipython");
}

pub(crate) fn capabilities_say_what_meta_says(place: &dyn Place) {
    let client = &mut place.client();
    client.python_ok("1");
    assert_eq!(
        client.get("/capabilities").json()["capabilities"],
        client.get("/meta").json()["capabilities"]
    );
}
