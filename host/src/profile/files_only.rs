//! The profile by which a locker's files are served without any of its sandboxes: an ordinary one, cut down.

use std::collections::BTreeMap;

use super::types::{Container, Profile, Resources};
use crate::config::{Size, Span};
use crate::driver::Network;

/// The one capability that is left.
pub const FILESYSTEM: &str = "filesystem";
/// How long it is kept warm.
const WARM: Span = Span::secs(60);
/// A runtime that moves files of 8 MiB at most needs no more.
const MEMORY: Size = Size::mib(256);
/// Its own threads, with room.
const PIDS: u64 = 64;

/// The container that serves files, alone, with no network, no environment and little of everything. Null where the
/// profile has no such container.
pub fn files_only(profile: &Profile) -> Option<Profile> {
    let serves = |c: &&Container| c.capabilities.iter().any(|x| x == FILESYSTEM);
    let first_choice = |c: &&Container| c.primary_for.iter().any(|x| x == FILESYSTEM);
    let with = || profile.containers.iter().filter(serves);
    let container = with().find(first_choice).or_else(|| with().next())?;
    let resources = Resources {
        cpus: container.resources.cpus.min(1.0),
        memory: container.resources.memory.min(MEMORY),
        pids: container.resources.pids.min(PIDS),
        output: container.resources.output.min(Size::mib(1)),
    };
    let container = Container {
        capabilities: vec![FILESYSTEM.to_owned()],
        primary_for: Vec::new(),
        resources,
        network: Network::None,
        env: BTreeMap::new(),
        ..container.clone()
    };
    Some(Profile {
        idle_timeout: WARM,
        max_ttl: None,
        env: BTreeMap::new(),
        containers: vec![container],
        ..profile.clone()
    })
}
