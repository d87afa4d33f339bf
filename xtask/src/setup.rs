//! Finds what is missing on this machine and installs it, or says exactly what to type.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure};

use crate::privilege::Root;
use crate::{run, workspace};

/// What the machine is made ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Building and running Bay.
    Running,
    /// And running its tests.
    Testing,
    /// And a Docker engine of the tests' own.
    TestingContainers,
    /// Only making a base for images.
    Bootstrapping,
}

/// A tool, the Debian package that has it, and why it is needed.
struct Tool {
    package: &'static str,
    why: &'static str,
    present: fn() -> bool,
}

const TOOLS: &[Tool] = &[
    Tool { package: "gcc", why: "compiles SQLite", present: || on_path("cc") },
    Tool {
        package: "libc6-dev",
        why: "what everything is linked with",
        present: || multiarch_file("crt1.o") || Path::new("/usr/lib/crt1.o").exists(),
    },
    Tool {
        package: "bubblewrap",
        why: "makes the sandboxes of the local driver",
        present: || on_path("bwrap"),
    },
    Tool {
        package: "python3",
        why: "what `python` in a sandbox runs",
        // Not the first on the path: sandboxes see /usr, not somebody's home.
        present: || Path::new(SYSTEM_PYTHON).exists(),
    },
    Tool {
        package: "python3-venv",
        why: "holds ipykernel, apart from the system's Python",
        present: || run::succeeds(run::command(SYSTEM_PYTHON).args(["-c", "import venv, ensurepip"])),
    },
    Tool { package: "iproute2", why: "gives sandboxes a network, as root", present: || on_path("ip") },
    Tool { package: "nftables", why: "NAT for that network", present: || on_path("nft") },
    Tool { package: "iptables", why: "NAT where nftables cannot", present: || on_path("iptables") },
    Tool {
        package: "passt",
        why: "gives sandboxes a network, as a normal user",
        present: || on_path("pasta"),
    },
];

/// What only the tests need.
const TEST_TOOLS: &[Tool] = &[
    Tool { package: "util-linux", why: "runs tests as another user", present: || on_path("setpriv") },
    Tool { package: "passwd", why: "makes that user", present: || on_path("useradd") },
];

/// What an engine of the tests' own needs.
const ENGINE_TOOLS: &[Tool] = &[
    Tool { package: "docker.io", why: "runs containers", present: || on_path("dockerd") },
    // The engine asks it for the processes of a container.
    Tool { package: "procps", why: "lists what runs in a container", present: || on_path("ps") },
    Tool {
        package: "apparmor",
        why: "loads the engine's profile, without which it starts no container here",
        present: || !apparmor_is_on() || on_path("apparmor_parser"),
    },
    // In newer releases a package of its own.
    Tool { package: "docker-cli", why: "speaks to the engine", present: || on_path("docker") },
    Tool {
        package: "docker-registry",
        why: "has images for it to fetch",
        present: || on_path("docker-registry"),
    },
];

const BOOTSTRAP_TOOLS: &[Tool] = &[
    Tool { package: "debootstrap", why: "makes the base of images", present: || on_path("debootstrap") },
    Tool {
        package: "debian-archive-keyring",
        why: "tells Debian's packages from others",
        present: || Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
    },
];

pub(crate) const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// Keeps packages from starting services while it runs apt.
const APT: &str = include_str!("apt.sh");

/// What Debian's packages ask whether they may start a service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Finds and installs. Quiet and quick when nothing is missing.
pub(crate) fn setup(purpose: For) -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "Bay's local driver needs Linux (namespaces); this is something else");
    if purpose == For::Bootstrapping {
        return packages(BOOTSTRAP_TOOLS.iter());
    }
    rust_targets()?;
    packages(TOOLS.iter())?;
    if purpose != For::Running {
        packages(TEST_TOOLS.iter())?;
        nextest()?;
    }
    if purpose == For::TestingContainers {
        // The one after the other: the first brings both on releases that have no such second package.
        packages(ENGINE_TOOLS.iter().take(1))?;
        packages(ENGINE_TOOLS.iter().skip(1))?;
    }
    println!("setup: everything needed is here");
    Ok(())
}

fn rust_targets() -> anyhow::Result<()> {
    let sysroot = PathBuf::from(run::output(run::command("rustc").args(["--print", "sysroot"]))?.trim());
    let musl = workspace::musl_target();
    // Looked up in the sysroot, so that a toolchain without rustup is fine as long as it has them.
    let missing: Vec<&str> = [workspace::WASM_TARGET, musl.as_str()]
        .into_iter()
        .filter(|target| !sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: adding Rust targets: {}", missing.join(", "));
    if !on_path("rustup") {
        bail!(
            "this Rust has no rustup; add the targets {} the way you installed it, then run this again",
            missing.join(" and ")
        );
    }
    run::checked(run::command("rustup").args(["target", "add"]).args(&missing))
}

fn packages<'a>(tools: impl Iterator<Item = &'a Tool>) -> anyhow::Result<()> {
    let missing: Vec<&Tool> = tools.filter(|tool| !(tool.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        println!("setup: {} is missing ({})", tool.package, tool.why);
    }
    let names: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let apt = on_path("apt-get");
    let root = Root::find();
    if !apt || root == Root::No {
        bail!("{}", what_to_type(&names, apt));
    }
    // The package lists of a new machine may be empty or old: a first failure is a reason to fetch them.
    let install = || apt_get(root, &[&["install", "--yes", "--no-install-recommends"][..], &names].concat());
    if install().is_err() {
        apt_get(root, &["update"])?;
        install()?;
    }
    let still: Vec<&str> = missing.iter().filter(|tool| !(tool.present)()).map(|tool| tool.package).collect();
    ensure!(still.is_empty(), "installed, but still not usable: {}", still.join(", "));
    Ok(())
}

fn apt_get(root: Root, words: &[&str]) -> anyhow::Result<()> {
    let Some(mut command) = root.command("sh") else { bail!("not root") };
    // A package that asks a question would wait for ever without an input. The run level keeps those with a service
    // from starting it where no systemd is in charge: nobody would stop it.
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"];
    // Not the whole script on the screen, as `run::checked` would.
    println!("$ apt-get {}", words.join(" "));
    let status = command.args(["-c", APT, "apt", SERVICE_POLICY]).args(apt).args(words).status()?;
    ensure!(status.success(), "`apt-get {}` ended with {status}", words.join(" "));
    Ok(())
}

fn what_to_type(names: &[&str], apt: bool) -> String {
    let names = names.join(" ");
    if apt {
        format!(
            "this needs root, and sudo asks for a password. Type:\n\n    \
             sudo apt-get update && sudo apt-get install --no-install-recommends {names}\n\n\
             and then the same command again"
        )
    } else {
        format!(
            "this machine has no apt. Install what provides these Debian packages, then type the same command \
             again:\n\n    {names}\n"
        )
    }
}

fn nextest() -> anyhow::Result<()> {
    if run::succeeds(run::cargo().args(["nextest", "--version"])) {
        return Ok(());
    }
    println!("setup: cargo-nextest runs the tests; building it once");
    run::checked(tool_environment(run::cargo().args(["install", "--locked", "cargo-nextest"])))
}

/// Tools are built for this machine, whatever the caller set for the project's own builds.
pub(crate) fn tool_environment(command: &mut Command) -> &mut Command {
    // And not into the project's target directory, which it would only fill.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command
}

/// True when a program of this name can be run, by us or by root.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

/// True where the kernel confines programs by AppArmor.
fn apparmor_is_on() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.trim() == "Y")
}

fn multiarch_file(name: &str) -> bool {
    Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_without_root_is_told_one_line_to_type() {
        let text = what_to_type(&["bubblewrap", "passt"], true);
        assert!(text.contains("sudo apt-get install --no-install-recommends bubblewrap passt"));
        assert!(!what_to_type(&["bubblewrap"], false).contains("sudo"));
    }

    #[test]
    fn packages_may_start_no_service_unless_the_machine_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        let run = |code: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", APT, "apt"]).arg(&policy).args(["sh", "-c", code, "sh"]).arg(&policy);
            command.status().unwrap().code()
        };
        assert_eq!(run(r#""$1"; [ $? = 101 ]"#), Some(0), "it is there meanwhile, and refuses");
        assert!(!policy.exists());
        assert_eq!(run("exit 7"), Some(7), "a failure is told");
        assert!(!policy.exists(), "and removes it, too");
        run("kill -KILL $PPID");
        assert!(policy.exists(), "nothing removes it then");
        assert_eq!(run("true"), Some(0));
        assert!(!policy.exists(), "but the next run does");
        std::fs::write(&policy, "the machine's\n").unwrap();
        assert_eq!(run("true"), Some(0));
        assert_eq!(std::fs::read_to_string(&policy).unwrap(), "the machine's\n");
    }

    #[test]
    fn a_program_is_found_where_the_system_keeps_it() {
        assert!(on_path("sh"));
        assert!(!on_path("surely-no-such-program"));
    }
}
