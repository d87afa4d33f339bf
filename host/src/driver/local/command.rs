//! Runs a tool of the host to its end: with a constant environment, a bound on time and a bound on output.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::identity;

/// Output beyond this is read and dropped.
const MAX_OUTPUT: u64 = 64 * 1024;

/// Where tools are looked for, whatever Bay's own PATH says: administrators' tools are often not on a user's.
pub(super) const TOOL_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The full path of a tool.
pub(super) fn find(tool: &str) -> Option<PathBuf> {
    TOOL_DIRS.iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.is_file())
}

/// A command with the constant environment that every tool gets: nothing of Bay's own.
pub(super) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", super::bwrap::PATH).env("LANG", "C.UTF-8").current_dir("/");
    command
}

/// Runs a tool and returns what it printed. A failure carries the end of what it complained of. Blocks.
pub(super) fn run(
    tool: &str,
    args: &[impl AsRef<OsStr>],
    input: Option<&str>,
    limit: Duration,
) -> io::Result<String> {
    let program = find(tool)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{tool} is not installed")))?;
    let mut command = clean(&program);
    command.args(args);
    run_command(command, input, limit)
}

/// The same for a command that is already put together.
pub(super) fn run_command(mut command: Command, input: Option<&str>, limit: Duration) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut output = tempfile_in_memory("output")?;
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or_else(|| io::Error::other("no pid"))?, PidfdFlags::empty())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Texts here are below a pipe's 64 KiB; a tool that ended already has said why.
        let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
    }
    let in_time = identity::wait_ended(&pidfd, limit)?;
    if !in_time {
        identity::signal(&pidfd, Signal::KILL)?;
    }
    let status = child.wait()?;
    let text = read_back(&mut output)?;
    if !in_time {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} took longer than {limit:?}")));
    }
    if status.success() {
        return Ok(text);
    }
    let tail: String = text.trim().chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
    Err(io::Error::other(format!("{name} ended with {status}: {tail}")))
}

/// A file without a name: unlike a pipe, it needs nobody to read along.
fn tempfile_in_memory(name: &str) -> io::Result<std::fs::File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

fn read_back(file: &mut std::fs::File) -> io::Result<String> {
    use std::io::Seek;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure_come_back() {
        assert_eq!(run("cat", &["-"], Some("hello"), Duration::from_secs(10)).unwrap(), "hello");
        let error = run("sh", &["-c", "echo no >&2; exit 3"], None, Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("exit status: 3: no"), "{error}");
        let missing = run("no-such-tool", &[""; 0], None, Duration::from_secs(1)).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_tool_that_does_not_end_is_ended() {
        let error = run("sleep", &["600"], None, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn tools_see_nothing_of_our_environment() {
        let text = run("env", &[""; 0], None, Duration::from_secs(10)).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.iter().all(|name| ["PATH", "LANG", "PWD"].contains(name)), "{names:?}");
    }
}
