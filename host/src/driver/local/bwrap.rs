//! The sandbox as a list of bubblewrap's arguments, and nothing else: what is visible inside is what is here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bay_ship_api::{BAY_DIR, SHIP_PATH, SPOOL_DIR, USER_ID, WORKSPACE};

/// Where the Python virtual environment is inside.
pub(super) const PYTHON_DIR: &str = "/opt/bay/python";

/// The constant search path of a container.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories beside `/usr` that belong to the system: on most hosts links into it.
const SYSTEM: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Sizes of the file systems in memory: enough for tools, too little to hurt.
const TMP_BYTES: u64 = 1 << 30;
const RUN_BYTES: u64 = 64 << 20;

/// Where the parts of a container are as bubblewrap sees them.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// Generated `/etc`.
    pub(super) etc: PathBuf,
    /// The locker.
    pub(super) workspace: PathBuf,
    /// The runtime binary.
    pub(super) ship: PathBuf,
    /// The agent's folder for output, if there is one.
    pub(super) spool: Option<PathBuf>,
    /// The virtual environment, if there is one.
    pub(super) python: Option<PathBuf>,
    /// The root file system of which `/usr` and its companions are shown.
    pub(super) rootfs: PathBuf,
}

/// How the container's users and network are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// The launcher made the user namespace: uids 0 to 65535 exist inside.
    pub(super) two_uid: bool,
    /// The launcher made the network namespace, so bubblewrap must not.
    pub(super) own_network: bool,
    /// Init sets network rules before it drops the capability to.
    pub(super) net_admin: bool,
    /// Bytes of memory for the whole container; file systems in memory stay below it.
    pub(super) memory: u64,
}

/// A list of arguments under construction.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<const N: usize>(&mut self, parts: [&dyn AsRef<std::ffi::OsStr>; N]) {
        self.0.extend(parts.iter().map(|part| part.as_ref().to_owned()));
    }

    fn tmpfs(&mut self, mode: &str, bytes: u64, at: &str) {
        self.add([&"--perms", &mode, &"--size", &bytes.to_string(), &"--tmpfs", &at]);
    }
}

/// Bubblewrap's arguments for a container; `rootfs` is where Bay itself sees its root file system.
pub(super) fn arguments(shape: Shape, parts: &Parts, rootfs: &Path) -> io::Result<Vec<OsString>> {
    let mut args = Arguments::default();
    namespaces(&mut args, shape);
    system(&mut args, &parts.rootfs, rootfs)?;
    args.add([&"--ro-bind", &parts.etc, &"/etc"]);
    args.add([&"--proc", &"/proc"]);
    if shape.two_uid {
        // Uid 0 inside owns its network and IPC namespaces and may write their switches; nobody needs to. Not in
        // the other case: there nobody inside is their owner, and a covered /proc keeps the nested one from mounting.
        args.add([&"--ro-bind", &"/proc/sys", &"/proc/sys"]);
    }
    args.add([&"--dev", &"/dev"]);
    let tmp = TMP_BYTES.min(shape.memory / 2).max(1 << 20);
    args.tmpfs("1777", tmp, "/dev/shm");
    args.tmpfs("1777", tmp, "/tmp");
    args.tmpfs("0755", RUN_BYTES.min(tmp), "/run");
    args.tmpfs("1777", tmp, "/var/tmp");
    args.add([&"--symlink", &"/run", &"/var/run"]);
    args.add([&"--bind", &parts.workspace, &WORKSPACE]);
    // Directories that bubblewrap makes on the way to a mount are for uid 0 alone; the agent must pass this one.
    args.add([&"--perms", &"0755", &"--dir", &BAY_DIR]);
    args.add([&"--ro-bind", &parts.ship, &SHIP_PATH]);
    if let Some(spool) = &parts.spool {
        args.add([&"--bind", spool, &SPOOL_DIR]);
    }
    if let Some(python) = &parts.python {
        // And user code these.
        for parent in ["/opt", "/opt/bay"] {
            args.add([&"--perms", &"0755", &"--dir", &parent]);
        }
        args.add([&"--ro-bind", python, &PYTHON_DIR]);
    }
    // The root and /dev are file systems in memory too, of no bounded size: nobody writes there.
    args.add([&"--remount-ro", &"/dev", &"--remount-ro", &"/"]);
    args.add([&"--chdir", &"/", &"--", &SHIP_PATH, &"init"]);
    Ok(args.0)
}

fn namespaces(args: &mut Arguments, shape: Shape) {
    args.add([&"--unshare-pid", &"--unshare-ipc", &"--unshare-uts", &"--unshare-cgroup-try"]);
    if !shape.own_network {
        args.add([&"--unshare-net"]);
    }
    args.add([&"--hostname", &"sandbox", &"--new-session", &"--as-pid-1", &"--cap-drop", &"ALL"]);
    if shape.two_uid {
        for capability in ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"] {
            args.add([&"--cap-add", &capability]);
        }
        if shape.net_admin {
            args.add([&"--cap-add", &"CAP_NET_ADMIN"]);
        }
    } else {
        let id = USER_ID.to_string();
        args.add([&"--unshare-user", &"--uid", &id, &"--gid", &id]);
    }
}

/// `/usr` and what belongs to it: the same links or directories as the root file system has.
fn system(args: &mut Arguments, shown: &Path, rootfs: &Path) -> io::Result<()> {
    args.add([&"--ro-bind", &shown.join("usr"), &"/usr"]);
    for name in SYSTEM {
        let source = rootfs.join(name);
        let inside = Path::new("/").join(name);
        match fs::symlink_metadata(&source) {
            Ok(metadata) if metadata.is_symlink() => {
                args.add([&"--symlink", &fs::read_link(&source)?, &inside]);
            }
            Ok(metadata) if metadata.is_dir() => args.add([&"--ro-bind", &shown.join(name), &inside]),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(shape: Shape) -> Vec<String> {
        let parts = Parts {
            etc: "/s/etc".into(),
            workspace: "/s/workspace".into(),
            ship: "/s/ship".into(),
            spool: Some("/s/spool".into()),
            python: Some("/s/python".into()),
            rootfs: "/".into(),
        };
        arguments(shape, &parts, Path::new("/"))
            .unwrap()
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    const ROOT: Shape = Shape { two_uid: true, own_network: false, net_admin: false, memory: 1 << 30 };

    fn has(args: &[String], wanted: &[&str]) -> bool {
        args.windows(wanted.len()).any(|window| window == wanted)
    }

    #[test]
    fn nothing_ties_a_sandbox_to_the_life_of_bay() {
        for two_uid in [true, false] {
            let args = build(Shape { two_uid, ..ROOT });
            assert!(!args.iter().any(|arg| arg == "--die-with-parent"));
            assert!(has(&args, &["--new-session"]) && has(&args, &["--as-pid-1"]));
        }
    }

    #[test]
    fn init_holds_the_four_capabilities_and_the_fifth_only_for_network_rules() {
        let capabilities =
            |args: &[String]| args.iter().filter(|arg| arg.starts_with("CAP_")).cloned().collect::<Vec<_>>();
        assert_eq!(capabilities(&build(ROOT)), ["CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"]);
        let with_network = build(Shape { own_network: true, net_admin: true, ..ROOT });
        assert_eq!(capabilities(&with_network).last().unwrap(), "CAP_NET_ADMIN");
        assert!(!with_network.iter().any(|arg| arg == "--unshare-net"));
        assert!(capabilities(&build(Shape { two_uid: false, ..ROOT })).is_empty());
    }

    #[test]
    fn the_hosts_network_is_never_shared() {
        assert!(build(ROOT).iter().any(|arg| arg == "--unshare-net"));
        assert!(!build(ROOT).iter().any(|arg| arg == "--share-net"));
    }

    #[test]
    fn only_the_workspace_and_the_agents_folder_are_writable_from_the_host() {
        let args = build(ROOT);
        let writable: Vec<_> =
            args.windows(3).filter(|window| window[0] == "--bind").map(|w| &w[2]).collect();
        assert_eq!(writable, [WORKSPACE, SPOOL_DIR]);
        assert!(!args.iter().any(|arg| arg == "--dev-bind"));
        assert!(has(&args, &["--remount-ro", "/"]));
    }

    #[test]
    fn a_normal_user_may_still_nest_a_user_namespace() {
        let args = build(Shape { two_uid: false, ..ROOT });
        assert!(has(&args, &["--unshare-user", "--uid", "1000", "--gid", "1000"]));
        assert!(!args.iter().any(|arg| arg == "--disable-userns" || arg == "/proc/sys"));
    }
}
