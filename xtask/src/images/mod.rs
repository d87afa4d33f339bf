//! `cargo xtask images`: the images that sandboxes run in, built once for what is in `ship/images`.
//!
//! What an image is made of gives it a name, `bay/ship:HASH`. Where an engine has that name there is nothing to do;
//! else it is loaded from what an earlier build left in `~/.cache/bay/images`; else it is built, and left there.

mod base;
mod context;
mod docker;
mod measure;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub(crate) use base::Base;
use context::Context;
pub(crate) use docker::Docker;

use crate::run;

/// One image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// What the others are made of, as `bay/base:latest`.
    Base,
    /// Python and ipykernel.
    Slim,
    /// What the default profile runs.
    Ship,
}

impl Target {
    pub(crate) const ALL: [Self; 3] = [Self::Base, Self::Slim, Self::Ship];

    /// By what is typed, and what the Dockerfile calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Slim => "slim",
            Self::Ship => "ship",
        }
    }

    /// The name that people and profiles use.
    fn known_as(self) -> &'static str {
        match self {
            Self::Base => "bay/base:latest",
            Self::Slim => "bay/ship:slim",
            Self::Ship => "bay/ship:latest",
        }
    }

    /// What was typed.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }
}

/// `images`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) targets: Vec<Target>,
    /// Nothing: `python:3.13-slim` where it can be had, else a bootstrapped Debian.
    pub(crate) base: Option<Base>,
    /// Certificates that the images trust beside the usual.
    pub(crate) ca: Option<PathBuf>,
    /// Tell how big they are and how fast they start.
    pub(crate) measure: bool,
}

impl Options {
    /// What the tests need.
    pub(crate) fn for_tests() -> Self {
        // Not what they are made of: where they have been saved, it need not be had.
        Self { targets: vec![Target::Slim, Target::Ship], base: None, ca: None, measure: false }
    }
}

/// Variables that name certificates, in the order in which they are believed: our own, then those by which a person
/// behind a proxy has told other programs.
const CA_VARIABLES: [&str; 5] =
    ["BAY_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Makes the images on the engine that the `docker` command finds.
pub(crate) fn images(options: &Options) -> anyhow::Result<()> {
    let docker = Docker::found()?;
    make(&docker, options)?;
    if options.measure {
        let names: Vec<&str> =
            options.targets.iter().filter(|t| **t != Target::Base).map(|t| t.known_as()).collect();
        measure::measure(&docker, &names)?;
    }
    Ok(())
}

/// Makes sure that an engine has the images.
pub(crate) fn make(docker: &Docker, options: &Options) -> anyhow::Result<()> {
    let saved = saved_images()?;
    let context = Context::read(certificates(options.ca.as_deref()).as_deref())?;
    let bases = options.base.clone().map_or_else(Base::usual, |base| vec![base]);
    for target in &options.targets {
        let name = match target {
            Target::Base => base::obtain(docker, &bases, &saved)?.1,
            Target::Slim | Target::Ship => built(docker, &context, *target, &bases, &saved)?,
        };
        docker.tag(&name, target.known_as())?;
        println!("{} is {name}", target.known_as());
    }
    Ok(())
}

fn built(
    docker: &Docker,
    context: &Context,
    target: Target,
    bases: &[Base],
    saved: &Path,
) -> anyhow::Result<String> {
    let mut hashes = Vec::new();
    for base in bases {
        let hash = context.hash(target.name(), base)?;
        if docker.has(&name(&hash))? {
            return Ok(name(&hash));
        }
        hashes.push(hash);
    }
    for hash in &hashes {
        if docker.load(&file(saved, target.name(), hash), &name(hash))? {
            return Ok(name(hash));
        }
    }
    let (base, from) = base::obtain(docker, bases, saved)?;
    let hash = context.hash(target.name(), &base)?;
    println!("building {} from {from}", target.known_as());
    context.build(docker, target.name(), &from, &name(&hash))?;
    docker.save(&name(&hash), &file(saved, target.name(), &hash))?;
    Ok(name(&hash))
}

fn name(hash: &str) -> String {
    format!("bay/ship:{hash}")
}

/// Where an image is kept for the next fresh engine.
fn file(saved: &Path, target: &str, hash: &str) -> PathBuf {
    saved.join(format!("{target}-{hash}.tar"))
}

fn saved_images() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    let folder = PathBuf::from(home).join(".cache/bay/images");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn certificates(typed: Option<&Path>) -> Option<PathBuf> {
    if let Some(typed) = typed {
        return Some(typed.to_owned());
    }
    let (variable, file) = CA_VARIABLES
        .into_iter()
        .filter_map(|name| Some((name, PathBuf::from(std::env::var_os(name)?))))
        .find(|(_, file)| file.is_file())?;
    println!("images: they trust the certificates of {} ({variable})", file.display());
    Some(file)
}

/// The first twelve digits of what identifies these bytes.
fn hash(bytes: &[u8]) -> anyhow::Result<String> {
    let said = run::answer(run::command("sha256sum").arg("-"), bytes)?;
    said.get(..12).map(str::to_owned).context("sha256sum printed no hash")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_known_by_its_name() {
        for target in Target::ALL {
            assert_eq!(Target::named(target.name()), Some(target));
        }
        assert_eq!(Target::named("latest"), None);
    }

    #[test]
    fn a_hash_is_the_content_and_nothing_else() {
        assert_eq!(hash(b"").unwrap(), "e3b0c44298fc");
        assert_ne!(hash(b"a").unwrap(), hash(b"b").unwrap());
    }
}
