//! Fuzz targets: what in Ship reads bytes that somebody else chose, and what must hold whatever they are.
//!
//! Each [`Target`] runs in two ways: as a test, on thousands of seeded mutations of its seeds (see `tests/mutated.rs`),
//! and under libFuzzer (`cargo xtask fuzz`; the binary is in `libfuzzer/`). A new one is a function of bytes that
//! panics when something is wrong, a few seeds, and a row in [`TARGETS`].

mod archive;
mod handshake;
mod kernel;
pub mod mutate;
mod request;
mod start;

/// Something that reads bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As on the command line.
    pub name: &'static str,
    /// Inputs to begin with, which get far.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when what must hold does not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "query", seeds: request::query_seeds, run: request::query },
    Target { name: "range", seeds: request::range_seeds, run: request::range },
    Target { name: "route", seeds: request::route_seeds, run: request::route },
    Target { name: "path", seeds: request::path_seeds, run: request::path },
    Target { name: "body", seeds: request::body_seeds, run: request::body },
    Target { name: "frames", seeds: kernel::stream_seeds, run: kernel::frames },
    Target { name: "kernel_stream", seeds: kernel::stream_seeds, run: kernel::stream },
    Target { name: "kernel_message", seeds: kernel::message_seeds, run: kernel::message },
    Target { name: "handshake_ship", seeds: handshake::ship_seeds, run: handshake::ship },
    Target { name: "handshake_bay", seeds: handshake::bay_seeds, run: handshake::bay },
    Target { name: "archive", seeds: archive::seeds, run: archive::archive },
    Target { name: "start_message", seeds: start::message_seeds, run: start::message },
    Target { name: "spawner", seeds: start::spawner_seeds, run: start::spawner },
];

/// The one of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The text before and after the first line end.
fn halves(bytes: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    (first.to_owned(), second.to_owned())
}

/// Seeds from text.
fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
