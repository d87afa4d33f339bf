//! `/etc` of a sandbox: generated where it names users, hosts and resolvers, copied from an allow-list where programs
//! need the host's (certificates, linker cache, alternatives), absent otherwise.
//!
//! Directories are named by their content and never change once made: sandboxes that outlive Bay still have theirs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// Entries of the host's `/etc` that hold nothing private and that programs miss.
const ALLOWED: [&str; 24] = [
    "alternatives",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ssl/cert.pem",
    "terminfo",
    "timezone",
];

/// Bounds of the copy: a certificate store is a few hundred entries and a megabyte.
const MAX_ENTRIES: usize = 8192;
const MAX_FILE: u64 = 4 << 20;
const MAX_DEPTH: usize = 8;

const PASSWD: &str = "root:x:0:0:root:/workspace:/usr/sbin/nologin\n\
    bay:x:900:900:Bay:/:/usr/sbin/nologin\n\
    shipyard:x:1000:1000:shipyard:/workspace:/bin/bash\n\
    nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nbay:x:900:\nshipyard:x:1000:\ntty:x:5:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n\
    protocols: files\nnetworks: files\n";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Link(PathBuf),
}

/// What is the same in every sandbox of one root file system.
#[derive(Debug)]
pub(super) struct Template {
    nodes: BTreeMap<PathBuf, Node>,
    /// The directory last made or found and for which resolvers, so that a start need not digest it all again.
    last: Mutex<Option<(Vec<Ipv4Addr>, PathBuf)>>,
}

impl Template {
    /// Reads the allow-list from the `/etc` of a root file system.
    pub(super) fn read(etc: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        for name in ALLOWED {
            collect(etc, Path::new(name), 0, &mut nodes);
        }
        // Debian's Python looks for its site customisation here.
        for entry in fs::read_dir(etc).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with("python3")) {
                collect(etc, Path::new(&entry.file_name()), 0, &mut nodes);
            }
        }
        let generated = [
            ("passwd", PASSWD),
            ("group", GROUP),
            ("hosts", HOSTS),
            ("hostname", "sandbox\n"),
            ("nsswitch.conf", NSSWITCH),
            ("shells", "/bin/sh\n/bin/bash\n"),
        ];
        for (name, text) in generated {
            nodes.insert(name.into(), Node::File(text.as_bytes().to_vec()));
        }
        Self { nodes, last: Mutex::new(None) }
    }

    /// Makes the directory in `run`, or finds the one with this very content, and returns its name.
    pub(super) fn materialise(&self, run: &Path, resolvers: &[Ipv4Addr]) -> io::Result<String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, path)) = last.as_ref()
            && known == resolvers
            && path.parent() == Some(run)
            && path.is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            return Ok(name.to_owned());
        }
        let name = self.make(run, resolvers)?;
        *last = Some((resolvers.to_vec(), run.join(&name)));
        Ok(name)
    }

    fn make(&self, run: &Path, resolvers: &[Ipv4Addr]) -> io::Result<String> {
        let mut nodes = self.nodes.clone();
        let mut resolv: String =
            resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect();
        resolv.push_str("options timeout:3 attempts:2\n");
        nodes.insert("resolv.conf".into(), Node::File(resolv.into_bytes()));
        let name = format!("etc-{}", &digest(&nodes)[..16]);
        let target = run.join(&name);
        if target.is_dir() {
            return Ok(name);
        }
        // Aside, then one rename: nobody finds half of it.
        let aside = tempfile::Builder::new().prefix(".etc-").tempdir_in(run)?;
        write(aside.path(), &nodes)?;
        match fs::rename(aside.path(), &target) {
            Ok(()) => Ok(name),
            // Somebody else was faster with the same content.
            Err(_) if target.is_dir() => Ok(name),
            Err(error) => Err(error),
        }
    }
}

fn collect(etc: &Path, relative: &Path, depth: usize, nodes: &mut BTreeMap<PathBuf, Node>) {
    let path = etc.join(relative);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return };
    if depth > MAX_DEPTH || nodes.len() >= MAX_ENTRIES {
        return;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            collect(etc, &relative.join(entry.file_name()), depth + 1, nodes);
        }
    } else if metadata.is_symlink() {
        let Ok(target) = fs::read_link(&path) else { return };
        if leads_somewhere_inside(relative, &target) {
            nodes.insert(relative.to_owned(), Node::Link(target));
        } else if let Some(bytes) = read_public(&path) {
            nodes.insert(relative.to_owned(), Node::File(bytes));
        }
    } else if let Some(bytes) = read_public(&path) {
        nodes.insert(relative.to_owned(), Node::File(bytes));
    }
}

/// The content of a regular file that everybody on the host may read anyway.
fn read_public(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.mode() & 0o004 == 0 || metadata.len() > MAX_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// True when a link in `/etc` points, read as text, at something in `/usr` or `/etc`, which exist inside too.
fn leads_somewhere_inside(relative: &Path, target: &Path) -> bool {
    let mut parts: Vec<&std::ffi::OsStr> = vec!["etc".as_ref()];
    let parent = relative.parent().unwrap_or(Path::new(""));
    if target.is_absolute() {
        parts.clear();
    } else {
        parts.extend(parent.iter());
    }
    for component in target.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.first().is_some_and(|first| *first == "usr" || *first == "etc")
}

fn digest(nodes: &BTreeMap<PathBuf, Node>) -> String {
    let mut hash = Sha256::new();
    for (path, node) in nodes {
        let (kind, bytes) = match node {
            Node::File(bytes) => (b"f", bytes.as_slice()),
            Node::Link(target) => (b"l", target.as_os_str().as_encoded_bytes()),
        };
        // Lengths keep neighbours apart.
        for part in [kind.as_slice(), path.as_os_str().as_encoded_bytes(), bytes] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}

fn write(root: &Path, nodes: &BTreeMap<PathBuf, Node>) -> io::Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for (path, node) in nodes {
        let mut directory = root.to_owned();
        for part in path.parent().into_iter().flat_map(Path::iter) {
            directory.push(part);
            if !directory.is_dir() {
                fs::create_dir(&directory)?;
                // Whatever Bay's umask is, sandbox users must be able to read it.
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
            }
        }
        let target = root.join(path);
        match node {
            Node::File(bytes) => {
                fs::write(&target, bytes)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
            }
            Node::Link(to) => std::os::unix::fs::symlink(to, &target)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_inside_are_told_from_those_that_do() {
        for (link, target) in [
            ("localtime", "/usr/share/zoneinfo/UTC"),
            ("os-release", "../usr/lib/os-release"),
            ("ssl/certs/a.pem", "b.pem"),
            ("ssl/certs", "../pki/tls/certs"),
        ] {
            assert!(leads_somewhere_inside(Path::new(link), Path::new(target)), "{link}");
        }
        for (link, target) in
            [("a", "/var/lib/a"), ("a", "../home/x"), ("ssl/certs/a", "../../../root/key"), ("a", "/")]
        {
            assert!(!leads_somewhere_inside(Path::new(link), Path::new(target)), "{link}");
        }
    }

    #[test]
    fn only_the_allow_list_and_only_public_files_are_taken() {
        let host = tempfile::tempdir().unwrap();
        let run = tempfile::tempdir().unwrap();
        let etc = host.path();
        fs::create_dir_all(etc.join("ssl/certs")).unwrap();
        fs::create_dir_all(etc.join("ssl/private")).unwrap();
        fs::write(etc.join("ssl/private/key"), "secret").unwrap();
        fs::write(etc.join("ssl/certs/ca.crt"), "public").unwrap();
        fs::write(etc.join("ssl/certs/oops.key"), "secret").unwrap();
        fs::set_permissions(etc.join("ssl/certs/oops.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(etc.join("shadow"), "secret").unwrap();
        fs::write(etc.join("passwd"), "alice:x:1000:1000::/home/alice:/bin/sh\n").unwrap();
        let template = Template::read(etc);
        let name = template.materialise(run.path(), &[Ipv4Addr::new(10, 0, 0, 2)]).unwrap();
        let made = run.path().join(&name);
        assert_eq!(fs::read_to_string(made.join("ssl/certs/ca.crt")).unwrap(), "public");
        for absent in ["ssl/private", "ssl/certs/oops.key", "shadow"] {
            assert!(!made.join(absent).exists(), "{absent}");
        }
        assert!(!fs::read_to_string(made.join("passwd")).unwrap().contains("alice"));
        assert!(fs::read_to_string(made.join("resolv.conf")).unwrap().starts_with("nameserver 10.0.0.2\n"));
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o755);
        // The same content is the same directory, another resolver another.
        assert_eq!(template.materialise(run.path(), &[Ipv4Addr::new(10, 0, 0, 2)]).unwrap(), name);
        assert_ne!(template.materialise(run.path(), &[]).unwrap(), name);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2);
    }

    #[test]
    fn this_hosts_certificates_come_along() {
        let run = tempfile::tempdir().unwrap();
        let name = Template::read(Path::new("/etc")).materialise(run.path(), &[]).unwrap();
        if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
            assert!(run.path().join(&name).join("ssl/certs/ca-certificates.crt").exists());
        }
        assert!(run.path().join(&name).join("ld.so.cache").exists());
    }
}
