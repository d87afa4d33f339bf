//! What the images are made of.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};

use super::{Docker, file, hash};
use crate::privilege::Root;
use crate::{setup, suite, workspace};

/// The image that everybody has who reaches the usual registry.
const PYTHON: &str = "python:3.13-slim";

/// A base for the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// An image that is on the engine or can be pulled.
    Image(String),
    /// A Debian made here, where no registry can be reached.
    Bootstrap,
}

impl Base {
    /// In the order in which they are tried.
    pub(super) fn usual() -> Vec<Self> {
        vec![Self::Image(PYTHON.to_owned()), Self::Bootstrap]
    }

    /// What it is called on an engine.
    fn name(&self) -> anyhow::Result<String> {
        match self {
            Self::Image(name) => Ok(name.clone()),
            Self::Bootstrap => Ok(format!("bay/base:{}", hash(&self.identity()?)?)),
        }
    }

    /// What makes it this base and no other.
    pub(super) fn identity(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = format!("{}\n", std::env::consts::ARCH).into_bytes();
        match self {
            Self::Image(name) => bytes.extend(name.as_bytes()),
            Self::Bootstrap => bytes.extend(std::fs::read(script()).context("cannot read bootstrap.sh")?),
        }
        Ok(bytes)
    }
}

/// Makes sure that the engine has one of these, and tells which and its name there.
pub(super) fn obtain(docker: &Docker, bases: &[Base], saved: &Path) -> anyhow::Result<(Base, String)> {
    for base in bases {
        let name = base.name()?;
        if docker.has(&name)? {
            return Ok((base.clone(), name));
        }
    }
    for base in bases {
        let name = base.name()?;
        match base {
            Base::Image(_) if docker.pull(&name)? => {}
            Base::Image(_) => {
                println!("{name} is not on the engine and cannot be pulled");
                continue;
            }
            Base::Bootstrap => {
                let (_, hash) = name.rsplit_once(':').context("a base without a hash")?;
                let file = file(saved, "base", hash);
                if !docker.load(&file)? {
                    bootstrap(docker, &name)?;
                    docker.save(&name, &file)?;
                }
            }
        }
        return Ok((base.clone(), name));
    }
    bail!("no base for the images; `--bootstrap` makes one, with root and debootstrap")
}

/// Makes a Debian and hands it to the engine.
fn bootstrap(docker: &Docker, name: &str) -> anyhow::Result<()> {
    setup::setup(setup::For::Bootstrapping)?;
    println!("bootstrapping a Debian as {name}: a minute or two");
    let script = std::fs::read_to_string(script())?;
    let mut debian = suite::contained(Root::find(), &script)?.stdout(Stdio::piped()).spawn()?;
    let archive = debian.stdout.take().context("no pipe to read")?;
    let imported = docker.import(archive);
    let made = debian.wait()?;
    let image = imported?;
    if !made.success() {
        // Half of a Debian, which must not be found under a name.
        docker.remove(&image)?;
        bail!("debootstrap ended with {made}");
    }
    docker.tag(&image, name)
}

fn script() -> std::path::PathBuf {
    workspace::root().join("ship/images/bootstrap.sh")
}
