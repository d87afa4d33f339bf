//! What is wrong with a profile that types alone do not refuse. Needs only data: no driver, no plugin runs.

use std::collections::BTreeMap;

use crate::config::{TomlError, TomlFile, is_name, nearest};

use super::types::{Container, KnownPlugins, Profile, TenantFile, matches};

/// Most containers of one session: each is a start to wait for.
const MAX_CONTAINERS: usize = 8;
/// Longest chain of rules: every call runs all of it.
const MAX_RULES: usize = 16;
/// Longest name of an image or an OCI runtime.
const MAX_REFERENCE: usize = 255;
/// Most variables of an environment.
const MAX_ENV: usize = 256;

/// Everything found wrong in one file.
pub(super) struct Findings<'a> {
    file: &'a TomlFile,
    found: Vec<TomlError>,
}

impl<'a> Findings<'a> {
    pub(super) fn of(file: &'a TomlFile) -> Self {
        Self { file, found: Vec::new() }
    }

    pub(super) fn add(&mut self, at: &[&str], message: &str, help: Option<&str>) {
        self.found.push(self.file.wrong(at, message, help));
    }

    pub(super) fn into_errors(self) -> Vec<TomlError> {
        self.found
    }

    /// A name that is none of those there are.
    fn unknown<'b>(
        &mut self,
        at: &[&str],
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'b String> + Clone,
    ) {
        let help = match nearest(name, known.clone().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let all: Vec<_> = known.map(|k| format!("`{k}`")).collect();
                match all.as_slice() {
                    [] => format!("there is no {what} at all: name one in [plugins] of bay.toml"),
                    all => format!("there are {}", all.join(", ")),
                }
            }
        };
        self.add(at, &format!("there is no {what} `{name}`"), Some(&help));
    }

    fn env(&mut self, at: &[&str], env: &BTreeMap<String, String>) {
        if env.len() > MAX_ENV {
            self.add(at, &format!("at most {MAX_ENV} variables"), None);
        }
        for (name, value) in env {
            let at = [at, &[name.as_str()]].concat();
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let help = "use letters, digits and `_`, not a digit first";
                self.add(&at, &format!("`{name}` is not a name of a variable"), Some(help));
            }
            if value.contains('\0') {
                self.add(&at, "a variable cannot hold a NUL", None);
            }
        }
    }

    /// Names of plugins or capabilities that appear twice.
    fn repeated(&mut self, at: &[&str], names: &[String]) {
        for (n, name) in names.iter().enumerate() {
            if names.iter().take(n).any(|earlier| earlier == name) {
                let place = n.to_string();
                self.add(&[at, &[place.as_str()]].concat(), &format!("`{name}` is listed twice"), None);
            }
        }
    }
}

/// Checks a profile by itself and against the plugins there are.
pub(super) fn profile(found: &mut Findings<'_>, profile: &Profile, known: &KnownPlugins) {
    if !is_name(&profile.id) {
        found.add(&["id"], "not a profile id", Some("use 1-32 of a-z, 0-9 and `-`"));
    }
    if profile.idle_timeout.as_secs() == 0 {
        found.add(&["idle_timeout"], "a session would end at once", Some("write at least `1s`"));
    }
    if profile.idle_timeout_max.is_some_and(|max| max.as_secs() == 0) {
        found.add(&["idle_timeout_max"], "no client could choose one", Some("leave it out instead"));
    }
    if profile.max_ttl.is_some_and(|ttl| ttl.as_secs() == 0) {
        found.add(&["max_ttl"], "a sandbox would end at once", Some("leave `max_ttl` out for no bound"));
    }
    if profile.rules.len() > MAX_RULES {
        found.add(&["rules"], &format!("at most {MAX_RULES} rules plugins"), None);
    }
    found.repeated(&["rules"], &profile.rules);
    for (n, rule) in profile.rules.iter().enumerate() {
        if !known.rules.contains(rule) {
            found.unknown(&["rules", &n.to_string()], "rules plugin", rule, known.rules.iter());
        }
    }
    if !known.routers.contains(&profile.router) {
        found.unknown(&["router"], "router", &profile.router, known.routers.iter());
    }
    found.env(&["env"], &profile.env);
    if profile.containers.is_empty() || profile.containers.len() > MAX_CONTAINERS {
        let message = format!("a profile has 1 to {MAX_CONTAINERS} containers");
        found.add(&["container"], &message, None);
    }
    for (n, c) in profile.containers.iter().enumerate() {
        let place = n.to_string();
        let at = |key| ["container", place.as_str(), key];
        let earlier = profile.containers.get(..n).unwrap_or_default();
        if earlier.iter().any(|e| e.name == c.name) {
            found.add(&at("name"), &format!("two containers are called `{}`", c.name), None);
        }
        for claimed in &c.primary_for {
            if let Some(first) = earlier.iter().find(|e| e.primary_for.contains(claimed)) {
                let message = format!("`{}` is primary for `{claimed}` already", first.name);
                found.add(&at("primary_for"), &message, Some("let one container claim it"));
            }
        }
        container(found, &place, c, known);
    }
}

fn container(found: &mut Findings<'_>, place: &str, c: &Container, known: &KnownPlugins) {
    let at = |key| ["container", place, key];
    if !is_name(&c.name) {
        found.add(&at("name"), "not a container name", Some("use 1-32 of a-z, 0-9 and `-`"));
    }
    if c.port == 0 {
        found.add(&at("port"), "port 0 is no port", None);
    }
    let adapter = known.adapters.get(&c.adapter);
    if adapter.is_none() {
        found.unknown(&at("adapter"), "adapter", &c.adapter, known.adapters.keys());
    }
    if c.capabilities.is_empty() {
        found.add(&at("capabilities"), "a container without a capability is never used", None);
    }
    found.repeated(&at("capabilities"), &c.capabilities);
    for (n, capability) in c.capabilities.iter().enumerate() {
        if adapter.is_some_and(|covered| !covered.contains(capability)) {
            let covered: Vec<_> = adapter.into_iter().flatten().map(|c| format!("`{c}`")).collect();
            let message = format!("adapter `{}` does not offer `{capability}`", c.adapter);
            let help = format!("it offers {}", covered.join(", "));
            found.add(&["container", place, "capabilities", &n.to_string()], &message, Some(&help));
        }
    }
    for (n, claimed) in c.primary_for.iter().enumerate() {
        if !c.capabilities.contains(claimed) {
            let message = format!("primary for `{claimed}`, which is not among its capabilities");
            found.add(&["container", place, "primary_for", &n.to_string()], &message, None);
        }
    }
    docker(found, place, c, known);
    let resources = |key| ["container", place, "resources", key];
    if !(c.resources.cpus >= 0.01 && c.resources.cpus <= 1024.0) {
        found.add(&resources("cpus"), "must be from 0.01 to 1024 cores", None);
    }
    let mib = c.resources.memory.bytes() >> 20;
    if !(32..=4 << 20).contains(&mib) {
        found.add(&resources("memory"), "must be from 32m to 4t", None);
    }
    let output = c.resources.output.bytes() >> 20;
    if !(1..=64 << 10).contains(&output) {
        found.add(&resources("output"), "must be from 1m to 64g", None);
    }
    if !(16..=65_536).contains(&c.resources.pids) {
        found.add(&resources("pids"), "must be from 16 to 65536: the runtime itself needs a few", None);
    }
    found.env(&at("env"), &c.env);
    for (key, word, value) in [("rootfs", "host", &c.local.rootfs), ("python", "auto", &c.local.python)] {
        if value != word && !std::path::Path::new(value).is_absolute() {
            let help = format!("write \"{word}\", or the absolute path of a directory");
            found.add(&["container", place, "local", key], &format!("`{value}` is neither"), Some(&help));
        }
    }
}

/// What a daemon would refuse at the first start.
fn docker(found: &mut Findings<'_>, place: &str, c: &Container, known: &KnownPlugins) {
    // Both become part of a request to the daemon.
    let named = |text: &str, more: &[u8]| {
        (1..=MAX_REFERENCE).contains(&text.len())
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    match &c.image {
        Some(image) if !named(image, b"._-/:@") => {
            let help = "write it as in \"python:3.13-slim\"";
            found.add(
                &["container", place, "image"],
                &format!("`{image}` is not the name of an image"),
                Some(help),
            );
        }
        None if known.needs_image => {
            let help = "the Docker driver runs images: add image = \"bay/ship:latest\", or another";
            found.add(&["container", place, "name"], "a container without an image", Some(help));
        }
        _ => {}
    }
    let at = |key| ["container", place, "docker", key];
    if let Some(runtime) = c.docker.runtime.as_ref().filter(|runtime| !named(runtime, b"._-")) {
        let help = "write the name that the daemon has for it, as in \"runsc\"";
        found.add(&at("runtime"), &format!("`{runtime}` is not the name of an OCI runtime"), Some(help));
    }
    if !(1..=64 << 10).contains(&(c.docker.tmp.bytes() >> 20)) {
        found.add(&at("tmp"), "must be from 1m to 64g", None);
    }
}

/// Checks a tenant's file against the profiles and plugins there are.
pub(super) fn tenant<'p>(
    found: &mut Findings<'_>,
    tenant: &TenantFile,
    profiles: impl Iterator<Item = &'p String> + Clone,
    known: &KnownPlugins,
) {
    for (n, pattern) in tenant.profiles.iter().enumerate() {
        if !profiles.clone().any(|id| matches(pattern, id)) {
            found.unknown(&["profiles", &n.to_string()], "profile", pattern, profiles.clone());
        }
    }
    if let Some(default) = &tenant.default_profile {
        if !profiles.clone().any(|id| id == default) {
            found.unknown(&["default_profile"], "profile", default, profiles);
        } else if !tenant.allows(default) {
            let help = format!("add \"{default}\" to `profiles`");
            found.add(&["default_profile"], "the tenant may not use its default profile", Some(&help));
        }
    }
    if tenant.max_ttl.is_some_and(|ttl| ttl.as_secs() == 0) {
        found.add(&["max_ttl"], "a sandbox would end at once", Some("leave `max_ttl` out for no bound"));
    }
    if let Err((key, message)) = tenant.quota.check() {
        found.add(&["quota", key], message, None);
    }
    for (name, plugin) in &tenant.plugins {
        if !known.rules.contains(name) {
            found.unknown(&["plugins", name], "rules plugin", name, known.rules.iter());
        }
        if !plugin.config.is_object() {
            let help = "write a table, as in config = { key = \"value\" }";
            found.add(&["plugins", name, "config"], "not a table", Some(help));
        }
    }
}
