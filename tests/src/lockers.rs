//! Lockers that a test makes, and keys for their files.

use std::time::Duration;

use serde_json::Value;

use crate::api::{Call, Client};
use crate::bay::Bay;
use crate::form;

/// An external locker that is deleted when it goes out of scope: declare it before the sandboxes that have it.
#[derive(Debug)]
pub struct Locker {
    client: Client,
    /// `lkr_…`
    pub id: String,
    /// The answer that made it.
    pub made: Value,
}

impl Client {
    /// Makes a locker.
    #[track_caller]
    pub fn locker(&self, body: Value) -> Locker {
        let made = self.post("/v1/lockers", &body).send().expect(201);
        let id = made["id"].as_str().unwrap_or_default().to_owned();
        assert!(form::is_id("lkr_", &id), "{made}");
        Locker { client: self.clone(), id, made }
    }

    /// A call on a locker's files: `read`, `write`, `list` or `delete`.
    pub fn locker_files(&self, locker: &str, operation: &str, body: &Value) -> Call {
        self.post(&format!("/v1/lockers/{locker}/files/{operation}"), body)
    }
}

impl Locker {
    /// A call on the locker itself.
    pub fn call(&self, method: &str) -> Call {
        self.client.call(method, &format!("/v1/lockers/{}", self.id))
    }

    /// The object.
    #[track_caller]
    pub fn show(&self) -> Value {
        self.call("GET").send().expect(200)
    }

    /// A call on its files.
    pub fn files(&self, operation: &str, body: &Value) -> Call {
        self.client.locker_files(&self.id, operation, body)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // A failure shows where it matters: `Bay` looks for what is left behind.
        let _ = self.call("DELETE").limit(Duration::from_secs(20)).try_send();
    }
}

impl Bay {
    /// Makes a key of this scope alone; a client with it.
    #[track_caller]
    pub fn scoped_key(&self, tenant: &str, scope: &str) -> Client {
        Client::new(self.addr(), Some(&self.key_with(tenant, scope)))
    }
}
