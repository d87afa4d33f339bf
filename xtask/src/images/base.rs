//! What the images are made of.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{Docker, file, hash};
use crate::privilege::Root;
use crate::{setup, suite, workspace};

/// The image that everybody has who reaches the usual registry.
const PYTHON: &str = "python:3.13-slim";

/// The longest a pull may take where there is something else to try: without a registry, some networks never answer.
const TRY_LIMIT: Duration = Duration::from_secs(60);

/// The longest a pull may take that somebody asked for.
const PULL_LIMIT: Duration = Duration::from_secs(600);

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
    // Before any network is asked.
    let saved = |name: &str| {
        let (_, hash) = name.rsplit_once(':').context("a base without a hash")?;
        anyhow::Ok(file(saved, "base", hash))
    };
    if bases.contains(&Base::Bootstrap) {
        let name = Base::Bootstrap.name()?;
        if docker.load(&saved(&name)?, &name)? {
            return Ok((Base::Bootstrap, name));
        }
    }
    for base in bases {
        let name = base.name()?;
        match base {
            Base::Image(_) if docker.pull(&name, if bases.len() > 1 { TRY_LIMIT } else { PULL_LIMIT })? => {}
            Base::Image(_) => {
                println!("{name} is not on the engine and cannot be pulled");
                continue;
            }
            Base::Bootstrap => {
                bootstrap(docker, &name)?;
                docker.save(&name, &saved(&name)?)?;
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
