//! Ending all that one spawn left behind, also what moved to other groups and sessions.
//!
//! A process belongs to a spawn when it carries the spawn's mark (a supplementary group that user code cannot
//! shed), or, where there are no marks, when it is in its session, its group, or descends from one that is. One
//! that left its session *and* lost its parents cannot be told from others there: the end of the container ends it.

use std::fs;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Enough for a fork bomb at the process limit to be outrun; each round kills all it sees.
const ROUNDS: usize = 32;

/// Kills everything that belongs to the spawn `leader`. `reap` is called between rounds, so that the dead free
/// their places. `unreaped`: the leader's id is still its own.
pub(crate) fn kill_all(
    leader: Pid,
    unreaped: bool,
    mark: Option<u32>,
    spare: &[Pid],
    mut reap: impl FnMut(),
) {
    if unreaped {
        // Just forked, it has neither a group of its own nor its mark, and is alone.
        let _ = kill_process(leader, Signal::KILL);
    }
    for _ in 0..ROUNDS {
        // Atomic against forks, unlike the walk below.
        let _ = kill_process_group(leader, Signal::KILL);
        reap();
        let found = members(leader, mark, spare);
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every living process but the calling one and `spare`: where it is process 1, all user code.
pub(crate) fn everyone(spare: &[Pid]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    entries
        .flatten()
        .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
        .filter_map(|seen| Pid::from_raw(seen.pid))
        .filter(|pid| *pid != own && !spare.contains(pid))
        .collect()
}

/// What the walk learns of one process.
struct Seen {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

fn members(leader: Pid, mark: Option<u32>, spare: &[Pid]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut all = Vec::new();
    let mut found: Vec<i32> = Vec::new();
    let own = rustix::process::getpid();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own.as_raw_pid() || spare.iter().any(|p| p.as_raw_pid() == pid) {
            continue;
        }
        if mark.is_some_and(|mark| marked(pid, mark)) {
            found.push(pid);
        }
        all.extend(look(pid));
    }
    if mark.is_none() {
        let leader = leader.as_raw_pid();
        let mut grown = true;
        while grown {
            grown = false;
            for seen in &all {
                let belongs = seen.session == leader || seen.group == leader || found.contains(&seen.parent);
                if belongs && !found.contains(&seen.pid) {
                    found.push(seen.pid);
                    grown = true;
                }
            }
        }
    }
    // The dead (which `look` skips) only wait to be reaped.
    found.retain(|pid| all.iter().any(|seen| seen.pid == *pid));
    found.into_iter().filter_map(Pid::from_raw).collect()
}

fn marked(pid: i32, mark: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .is_some_and(|groups| groups.split_whitespace().any(|g| g.parse() == Ok(mark)))
}

/// Parent, group and session from `/proc/<pid>/stat`; nothing for the gone and the dead.
fn look(pid: i32) -> Option<Seen> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&stat))
}

fn parse_stat(pid: i32, stat: &str) -> Option<Seen> {
    // The name, in brackets, may hold anything, brackets too: what counts follows the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    let mut number = || fields.next()?.parse().ok();
    Some(Seen { pid, parent: number()?, group: number()?, session: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_does_not_fool_the_reader() {
        let seen = parse_stat(7, "7 (a) S 1 1 1) R 4 5 6 0 -1").unwrap();
        assert_eq!((seen.parent, seen.group, seen.session), (4, 5, 6));
    }

    #[test]
    fn a_process_that_has_no_group_and_no_mark_yet_is_killed() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        kill_all(Pid::from_child(&child), true, Some(59_999), &[], || {});
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn the_dead_and_the_unreadable_are_skipped() {
        assert!(parse_stat(7, "7 (x) Z 1 1 1").is_none());
        assert!(parse_stat(7, "nonsense").is_none());
        assert!(parse_stat(7, "7 (x) S one 1 1").is_none());
    }
}
