//! Whether a kernel that was killed was killed for want of memory: said only where something counts such kills.
//!
//! Nobody tells a process that the OOM killer took it: its end is SIGKILL, like that of any kill. The container's
//! control group counts its own kills, where it can be read; the machine counts all of them, which proves little.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use super::kernel::end_words;
use crate::spawner::protocol::End;

/// How old the count may be that a death is compared with. Reading it costs about 0.1 ms, which not every call
/// must pay.
const FRESH: Duration = Duration::from_secs(10);
/// Files of the container's control group, of version 2 and 1, as far as the container mounts them.
const OF_CONTAINER: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
const OF_MACHINE: &str = "/proc/vmstat";

/// Kills for want of memory so far; `None` where that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kills {
    container: Option<u64>,
    machine: Option<u64>,
}

/// Compares the counts before and after.
pub(super) struct OomWatch {
    before: Kills,
    at: Instant,
}

impl OomWatch {
    pub(super) fn new() -> Self {
        Self { before: Kills::now(), at: Instant::now() }
    }

    /// To be called before code runs.
    pub(super) fn refresh(&mut self) {
        if self.at.elapsed() > FRESH {
            *self = Self::new();
        }
    }

    /// An end in words, with its likely cause.
    pub(super) fn words(&self, end: End) -> String {
        words(end, self.before, Kills::now())
    }
}

impl Kills {
    fn now() -> Self {
        let read = |path: &str| count(&fs::read_to_string(path).ok()?);
        Self { container: OF_CONTAINER.into_iter().find_map(read), machine: read(OF_MACHINE) }
    }
}

/// The number behind `oom_kill`.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn words(end: End, before: Kills, after: Kills) -> String {
    let said = end_words(end);
    if end != End::Signal(libc::SIGKILL) {
        return said;
    }
    let rose = |before: Option<u64>, after: Option<u64>| before.zip(after).is_some_and(|(b, a)| a > b);
    if rose(before.container, after.container) {
        format!("{said}: out of memory; the container's limit was reached")
    } else if before.container.is_none() && rose(before.machine, after.machine) {
        format!(
            "{said}: probably out of memory; a process of this machine was killed for want of it meanwhile"
        )
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: End = End::Signal(libc::SIGKILL);

    fn kills(container: Option<u64>, machine: Option<u64>) -> Kills {
        Kills { container, machine }
    }

    #[test]
    fn counts_are_found_in_all_three_forms() {
        assert_eq!(count("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(count("nr_free_pages 1\noom_kill 0\n"), Some(0));
        assert_eq!(count("nothing"), None);
    }

    #[test]
    fn memory_is_named_only_on_evidence() {
        let same = words(KILLED, kills(Some(1), Some(1)), kills(Some(1), Some(1)));
        assert_eq!(same, "signal SIGKILL");
        let unknown = words(KILLED, kills(None, None), kills(None, None));
        assert_eq!(unknown, "signal SIGKILL");
        let certain = words(KILLED, kills(Some(1), Some(1)), kills(Some(2), Some(2)));
        assert_eq!(certain, "signal SIGKILL: out of memory; the container's limit was reached");
        let likely = words(KILLED, kills(None, Some(1)), kills(None, Some(2)));
        assert!(likely.starts_with("signal SIGKILL: probably out of memory"), "{likely}");
    }

    #[test]
    fn the_machine_does_not_speak_against_the_container() {
        let elsewhere = words(KILLED, kills(Some(1), Some(1)), kills(Some(1), Some(9)));
        assert_eq!(elsewhere, "signal SIGKILL");
    }

    #[test]
    fn other_ends_are_no_want_of_memory() {
        for end in [End::Code(1), End::Signal(libc::SIGSEGV)] {
            assert_eq!(words(end, kills(Some(1), Some(1)), kills(Some(2), Some(2))), end_words(end));
        }
    }
}
