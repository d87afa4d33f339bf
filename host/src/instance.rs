//! What makes this Bay this Bay: an id for names and labels, a secret from which handshake tokens derive, and
//! the runtime binary on disk. All beneath the data directory.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use sha2::{Digest, Sha256};

/// Bytes of the secret.
const SECRET_LEN: usize = 32;
/// The instance's file: the secret, raw.
const SECRET_FILE: &str = "instance.secret";
/// Where runtime binaries are, by digest.
const BIN_DIR: &str = "bin";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// The secret is not what Bay wrote.
    #[error("{0} is damaged; restore it, or remove it if no sandbox of this Bay runs any more")]
    Secret(String),
}

/// This Bay.
pub struct Instance {
    /// 8 hex digits of the secret's hash: names cgroups, interfaces, labels.
    pub id: String,
    /// Handshake tokens derive from it. Never logged, never stored elsewhere.
    pub secret: Vec<u8>,
    dir: Dir,
    path: PathBuf,
}

impl Instance {
    /// Opens the data directory, making it (mode 0700) and its secret (0600) at first use.
    pub fn open(data_dir: &Path) -> Result<Self, InstanceError> {
        let io = |what: &str| {
            let what = format!("{what} {}", data_dir.display());
            move |source| InstanceError::Io { what, source }
        };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(data_dir).map_err(io("cannot make the data directory"))?;
        let path = data_dir.canonicalize().map_err(io("cannot resolve the data directory"))?;
        let dir = Dir::open_ambient_dir(&path, ambient_authority())
            .map_err(io("cannot open the data directory"))?;
        dir.set_permissions(".", Permissions::from_mode(0o700))
            .map_err(io("cannot make the data directory private:"))?;
        let secret = match dir.open(SECRET_FILE) {
            Ok(file) => {
                let mut secret = Vec::with_capacity(SECRET_LEN);
                file.take(SECRET_LEN as u64 + 1)
                    .read_to_end(&mut secret)
                    .map_err(io("cannot read the secret in"))?;
                secret
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_secret(&dir).map_err(io("cannot write the secret in"))?
            }
            Err(error) => return Err(io("cannot open the secret in")(error)),
        };
        if secret.len() != SECRET_LEN {
            return Err(InstanceError::Secret(path.join(SECRET_FILE).display().to_string()));
        }
        let digest = Sha256::digest(&secret);
        let id = hex::encode(digest.get(..4).unwrap_or_default());
        Ok(Self { id, secret, dir, path })
    }

    /// Puts the embedded runtime on disk, executable, once per digest, and says where.
    pub fn install_ship(&self, bytes: &[u8]) -> Result<PathBuf, InstanceError> {
        let name = format!("ship-{}", &hex::encode(Sha256::digest(bytes))[..16]);
        let io = |source| InstanceError::Io { what: format!("cannot install the runtime {name}"), source };
        self.dir.create_dir_all(BIN_DIR).map_err(io)?;
        let bin = self.dir.open_dir(BIN_DIR).map_err(io)?;
        let whole = bin.metadata(&name).is_ok_and(|m| m.is_file() && m.len() == bytes.len() as u64);
        if !whole {
            let temporary = format!("{name}.new");
            let _stale = bin.remove_file(&temporary);
            write_new(&bin, &temporary, bytes, 0o755).map_err(io)?;
            bin.rename(&temporary, &bin, &name).map_err(io)?;
        }
        Ok(self.path.join(BIN_DIR).join(name))
    }

    /// The data directory, resolved.
    pub fn data_dir(&self) -> &Path {
        &self.path
    }
}

fn make_secret(dir: &Dir) -> std::io::Result<Vec<u8>> {
    let mut secret = vec![0; SECRET_LEN];
    getrandom::fill(&mut secret).map_err(|e| std::io::Error::other(e.to_string()))?;
    write_new(dir, SECRET_FILE, &secret, 0o600)?;
    Ok(secret)
}

fn write_new(dir: &Dir, name: &str, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = dir.open_with(name, OpenOptions::new().write(true).create_new(true).mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_identity_and_its_secret_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let first = Instance::open(&data).unwrap();
        let again = Instance::open(&data).unwrap();
        assert_eq!((&first.id, &first.secret), (&again.id, &again.secret));
        let mode =
            |p: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(p).unwrap().permissions());
        assert_eq!(mode(&data) & 0o777, 0o700);
        assert_eq!(mode(&data.join(SECRET_FILE)) & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_secret_is_refused_rather_than_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Instance::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(SECRET_FILE), b"short").unwrap();
        assert!(matches!(Instance::open(dir.path()), Err(InstanceError::Secret(_))));
    }

    #[test]
    fn the_runtime_is_installed_once_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::open(dir.path()).unwrap();
        let path = instance.install_ship(b"\x7fELF").unwrap();
        assert_eq!(instance.install_ship(b"\x7fELF").unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"\x7fELF");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o111, 0o111);
    }
}
