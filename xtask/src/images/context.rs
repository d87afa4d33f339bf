//! What goes into a build: the files of `ship/images`, and certificates.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{Base, Docker, hash};
use crate::workspace;

/// Passed on to a build where they are set; an engine knows them and leaves them out of the image.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

/// More than any machine trusts: a bound on what a wrong file could become.
const MAX_CERTIFICATES: usize = 1000;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The files of a build, by their path in it.
pub(super) struct Context {
    files: BTreeMap<String, Vec<u8>>,
}

impl Context {
    /// Reads them. `ca`: certificates beside those of the folder.
    pub(super) fn read(ca: Option<&Path>) -> anyhow::Result<Self> {
        let folder = workspace::root().join("ship/images");
        let mut files = BTreeMap::new();
        for (prefix, folder) in [("", folder.clone()), ("ca/", folder.join("ca"))] {
            for entry in
                std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
            {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_file() && !name.starts_with('.') && name != "bootstrap.sh" {
                    files.insert(format!("{prefix}{name}"), std::fs::read(entry.path())?);
                }
            }
        }
        if let Some(ca) = ca {
            let text =
                std::fs::read_to_string(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            let certificates = certificates(&text);
            ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", ca.display());
            ensure!(certificates.len() <= MAX_CERTIFICATES, "{} holds too many certificates", ca.display());
            for (index, certificate) in certificates.into_iter().enumerate() {
                files.insert(format!("ca/extra-{index:03}.crt"), certificate.into_bytes());
            }
        }
        Ok(Self { files })
    }

    /// Names what these files become as `target` on `base`.
    pub(super) fn hash(&self, target: &str, base: &Base) -> anyhow::Result<String> {
        let mut bytes = format!("{target}\n").into_bytes();
        let base = base.identity()?;
        for (name, content) in self.files.iter().map(|(name, c)| (name.as_str(), c)).chain([("base", &base)])
        {
            bytes.extend(format!("{name} {}\n", content.len()).into_bytes());
            bytes.extend(content);
        }
        hash(&bytes)
    }

    /// Builds `target` on the image `from` and calls it `name`.
    pub(super) fn build(&self, docker: &Docker, target: &str, from: &str, name: &str) -> anyhow::Result<()> {
        let folder = workspace::target_dir()?.join("xtask").join(format!("images-{}", std::process::id()));
        let built = self.write(&folder).and_then(|()| {
            let mut arguments = vec![format!("BASE_IMAGE={from}")];
            arguments.extend(
                PROXIES
                    .into_iter()
                    .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
                    // The name alone: a proxy's address may hold a password, and the value is taken from here.
                    .map(str::to_owned),
            );
            docker.build(&folder, target, &arguments, name)
        });
        let removed = std::fs::remove_dir_all(&folder);
        built?;
        removed.with_context(|| format!("cannot remove {}", folder.display()))
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder.join("ca"))?;
        for (name, content) in &self.files {
            std::fs::write(folder.join(name), content)?;
        }
        Ok(())
    }
}

/// Each certificate of a bundle: a trust store wants one a file.
fn certificates(text: &str) -> Vec<String> {
    text.split(BEGIN)
        .skip(1)
        .filter_map(|rest| rest.split_once(END))
        .map(|(body, _)| format!("{BEGIN}{body}{END}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_becomes_one_file_a_certificate() {
        let bundle = format!("# one\n{BEGIN}\nAAAA\n{END}\n# two\n{BEGIN}\nBBBB\n{END}\n{BEGIN}\ncut off");
        let found = certificates(&bundle);
        assert_eq!(found, [format!("{BEGIN}\nAAAA\n{END}\n"), format!("{BEGIN}\nBBBB\n{END}\n")]);
        assert!(certificates("nothing").is_empty());
    }

    #[test]
    fn a_hash_changes_with_target_base_and_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, format!("{BEGIN}\nAAAA\n{END}\n")).unwrap();
        let plain = Context::read(None).unwrap();
        let trusting = Context::read(Some(&bundle)).unwrap();
        let image = |name: &str| Base::Image(name.to_owned());
        let all = [
            plain.hash("slim", &image("a")).unwrap(),
            plain.hash("ship", &image("a")).unwrap(),
            plain.hash("slim", &image("b")).unwrap(),
            plain.hash("slim", &Base::Bootstrap).unwrap(),
            trusting.hash("slim", &image("a")).unwrap(),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
        assert_eq!(all[0], Context::read(None).unwrap().hash("slim", &image("a")).unwrap());
    }
}
