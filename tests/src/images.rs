//! Images made for one test, from what the engine has: no registry is asked.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::driver;
use crate::engine::Engine;
use crate::http::encode;

/// An image that goes with the test.
#[derive(Debug)]
pub struct Image {
    engine: Engine,
    /// As a profile names it.
    pub name: String,
}

impl Image {
    /// A name that no image has yet.
    pub fn unheard_of(what: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bay-test/{what}:{}-{number}", std::process::id());
        Self { engine: Engine::of_tests(), name }
    }

    /// Gives the name to the image that the tests use.
    pub fn appears(&self) {
        let (repo, tag) = self.parts();
        let of = encode(&driver::image());
        self.engine.call("POST", &format!("/images/{of}/tag?repo={repo}&tag={tag}"), &Value::Null);
    }

    /// The image that the tests use, after this command has been run in it as root.
    pub fn after(what: &str, command: &str) -> Self {
        Self::after_with(what, command, "WORKDIR /")
    }

    /// The same with an instruction of a Dockerfile.
    pub fn after_with(what: &str, command: &str, instruction: &str) -> Self {
        let image = Self::unheard_of(what);
        let (repo, tag) = image.parts();
        let body = json!({
            "Image": driver::image(), "Cmd": ["sh", "-ec", command], "Entrypoint": [], "User": "0:0",
            "HostConfig": { "NetworkMode": "none" },
        });
        let made = image.engine.call("POST", "/containers/create", &body);
        let id = made["Id"].as_str().expect("a container").to_owned();
        image.engine.call("POST", &format!("/containers/{id}/start"), &Value::Null);
        let ended = image.engine.call("POST", &format!("/containers/{id}/wait"), &Value::Null);
        let commit = format!("/commit?container={id}&repo={repo}&tag={tag}&changes={}", encode(instruction));
        image.engine.call("POST", &commit, &json!({}));
        image.engine.call("DELETE", &format!("/containers/{id}?force=true&v=true"), &Value::Null);
        assert_eq!(ended["StatusCode"], 0, "{command}: {ended}");
        image
    }

    /// An image with one empty directory and nothing else.
    pub fn bare(what: &str) -> Self {
        let image = Self::unheard_of(what);
        let (repo, tag) = image.parts();
        let place = format!("/images/create?fromSrc=-&repo={repo}&tag={tag}");
        let made = image.engine.ask("POST", &place, Some(("application/x-tar", one_directory("data/"))));
        let made = made.expect("import an image");
        assert_eq!(made.status, 200, "{}", made.brief());
        image
    }

    fn parts(&self) -> (String, String) {
        let (repo, tag) = self.name.split_once(':').expect("a name with a tag");
        (encode(repo), encode(tag))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.engine.ask("DELETE", &format!("/images/{}?force=true", encode(&self.name)), None);
    }
}

/// A tar archive with one directory in it.
fn one_directory(name: &str) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, "00000000000\0");
    put(136, "00000000000\0");
    // Counted as blanks in its own sum.
    put(148, "        ");
    put(156, "5");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(3 * 512, 0);
    archive
}
