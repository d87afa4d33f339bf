//! The `docker` command.

use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::run;

/// Saved images that are kept of each kind: the one in use, and the one of another branch.
const KEPT: usize = 2;

/// An engine.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    /// Where; what the command finds by itself otherwise.
    host: Option<String>,
    /// What a build runs in, where not in the engine's usual network.
    network: Option<&'static str>,
}

impl Docker {
    /// The one that the `docker` command finds: `DOCKER_HOST`, a context, the usual socket.
    pub(crate) fn found() -> anyhow::Result<Self> {
        ensure!(
            crate::setup::on_path("docker"),
            "there is no `docker` command here: install Docker (Debian's package is docker.io)"
        );
        let docker = Self { host: None, network: None };
        ensure!(
            docker.answers(),
            "no Docker engine answers: start it, or say where it is with DOCKER_HOST; `docker version` says more"
        );
        Ok(docker)
    }

    /// One of our own at an address. Its bridges have no way out (see `engine.sh`), so builds do without.
    pub(crate) fn of_tests(host: String) -> Self {
        Self { host: Some(host), network: Some("host") }
    }

    /// The command for this engine.
    pub(crate) fn command(&self) -> Command {
        self.under("docker", &[])
    }

    /// True when the engine speaks.
    pub(crate) fn answers(&self) -> bool {
        run::succeeds(self.command().args(["version", "--format", "{{.Server.Version}}"]))
    }

    /// True when the engine has an image of this name.
    pub(super) fn has(&self, image: &str) -> anyhow::Result<bool> {
        Ok(self.id(image)?.is_some())
    }

    fn id(&self, image: &str) -> anyhow::Result<Option<String>> {
        let mut command = self.command();
        command.args(["image", "inspect", "--format", "{{.Id}}", image]);
        // It fails where there is no such image; what else may be wrong is met by what follows.
        let found = command.stderr(Stdio::null()).output().context("cannot run docker")?;
        let id = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        Ok((found.status.success() && !id.is_empty()).then_some(id))
    }

    /// Gives an image one more name.
    pub(super) fn tag(&self, image: &str, name: &str) -> anyhow::Result<()> {
        if self.id(image)? == self.id(name)? {
            return Ok(());
        }
        run::checked(self.command().args(["tag", image, name]))
    }

    /// Removes an image that nothing is made of.
    pub(super) fn remove(&self, image: &str) -> anyhow::Result<()> {
        run::checked(self.command().args(["rmi", image]))
    }

    /// True when the image could be pulled within this time.
    pub(super) fn pull(&self, image: &str, limit: Duration) -> anyhow::Result<bool> {
        let mut command = self.under("timeout", &[&limit.as_secs().to_string(), "docker"]);
        Ok(command.args(["pull", image]).status().context("cannot run docker")?.success())
    }

    /// Loads `image` from what [`Docker::save`] wrote. False where there is no such file, or one that is of no use, which
    /// is removed: it would be in the way each time.
    pub(super) fn load(&self, file: &Path, image: &str) -> anyhow::Result<bool> {
        if !file.exists() {
            return Ok(false);
        }
        let loaded = run::checked(self.command().arg("load").arg("--quiet").arg("--input").arg(file));
        if loaded.is_ok() && self.has(image)? {
            return Ok(true);
        }
        // An engine that is away says nothing of the file.
        if !self.answers() {
            loaded?;
        }
        println!("{} does not hold {image}: made anew", file.display());
        std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        Ok(false)
    }

    /// Writes an image to a file that is there whole or not at all, and drops older ones of its kind.
    pub(super) fn save(&self, image: &str, file: &Path) -> anyhow::Result<()> {
        drop_parts(file.parent().context("a file without a folder")?)?;
        let part = file.with_extension(format!("part-{}", std::process::id()));
        let saved = run::checked(self.command().arg("save").arg("--output").arg(&part).arg(image))
            .and_then(|()| Ok(std::fs::rename(&part, file)?));
        if saved.is_err() && part.exists() {
            std::fs::remove_file(&part)?;
        }
        saved?;
        drop_old(file)
    }

    /// Makes an image of an archive of files, without a name, and tells its id.
    pub(super) fn import(&self, archive: ChildStdout) -> anyhow::Result<String> {
        let mut command = self.command();
        // Else it would have neither a shell to run nor a path to find anything by.
        command.args(["import", "--change", "CMD [\"bash\"]", "--change"]);
        command.arg("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(run::output(command.arg("-").stdin(archive))?.trim().to_owned())
    }

    /// Builds a target of the Dockerfile in `folder`.
    pub(super) fn build(
        &self,
        folder: &Path,
        target: &str,
        arguments: &[String],
        name: &str,
    ) -> anyhow::Result<()> {
        let mut command = self.command();
        if !run::succeeds(self.command().args(["buildx", "version"])) {
            // Newer clients only look for the plug-in and refuse; the engine still has the builder of old.
            command.env("DOCKER_BUILDKIT", "0");
        }
        command.args(["build", "--target", target, "--tag", name]);
        if let Some(network) = self.network {
            command.args(["--network", network]);
        }
        for argument in arguments {
            command.args(["--build-arg", argument]);
        }
        run::checked(command.arg(folder))
    }

    /// A command line that ends in `docker`, for this engine.
    fn under(&self, program: &str, words: &[&str]) -> Command {
        let mut command = run::command(program);
        command.args(words);
        if let Some(host) = &self.host {
            // The flag rather than the variable: a context that is set would win over that.
            command.args(["--host", host]);
        }
        command
    }

    /// Runs `code` with the Python of a new container as a sandbox would, and drops what it prints.
    pub(super) fn python(&self, image: &str, code: &str) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args([
            "run",
            "--rm",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--network",
            "none",
            "--env",
            "HOME=/tmp",
        ]);
        command.args([image, "python3", "-P", "-s", "-c", code]);
        let done = command.stdout(Stdio::null()).status().context("cannot run docker")?;
        if !done.success() {
            bail!("Python in {image} ended with {done}");
        }
        Ok(())
    }

    /// How many bytes the image has, unpacked.
    pub(super) fn size(&self, image: &str) -> anyhow::Result<u64> {
        let size = run::output(self.command().args(["image", "inspect", "--format", "{{.Size}}", image]))?;
        size.trim().parse().with_context(|| format!("docker says no size of {image}"))
    }
}

/// Removes what was being written by processes that are gone.
fn drop_parts(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let writer = path.extension().and_then(|end| end.to_str()).and_then(|end| end.strip_prefix("part-"));
        if writer.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Keeps the newest of the files called like this one up to its last hyphen.
fn drop_old(file: &Path) -> anyhow::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        bail!("{} has no folder", file.display())
    };
    let kind = name.rsplit_once('-').map_or(name, |(kind, _)| kind);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        if other.rsplit_once('-').is_some_and(|(of, rest)| of == kind && rest.ends_with(".tar")) {
            kept.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT);
    for (_, path) in kept.into_iter().take(surplus) {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_was_writing_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        // No process has this number: the kernel's largest is far below.
        let names = ["slim-1.tar", &format!("slim-1.part-{}", std::process::id()), "slim-1.part-999999999"];
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        drop_parts(folder.path()).unwrap();
        assert_eq!(names.map(|name| folder.path().join(name).exists()), [true, true, false]);
    }

    #[test]
    fn the_newest_saved_images_of_each_kind_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (age, name) in
            ["slim-1.tar", "slim-2.tar", "ship-1.tar", "slim-3.tar"].into_iter().rev().enumerate()
        {
            let file = std::fs::File::create(path(name)).unwrap();
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * age as u64);
            file.set_modified(then).unwrap();
        }
        drop_old(&path("slim-3.tar")).unwrap();
        let here = ["slim-1.tar", "slim-2.tar", "slim-3.tar", "ship-1.tar"].map(|name| path(name).exists());
        assert_eq!(here, [false, true, true, true]);
    }
}
