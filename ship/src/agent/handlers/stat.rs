//! `GET /stat`: what Ship uses, what runs, what room the locker has.

use std::fs;

use bay_ship_api::WORKSPACE;
use bay_ship_api::http::{AgentStat, ProcessStat, Stat, WorkspaceStat};

use crate::agent::Ship;
use crate::agent::http::{Answer, ok};

pub(in crate::agent) async fn stat(ship: &Ship) -> Answer {
    // On a thread of the pool: a file system may take its time.
    let workspace = ship.pool.run(|| Ok(rustix::fs::statvfs(WORKSPACE)?)).await.ok();
    let (running, background) = ship.shell.as_ref().map_or((0, 0), |shell| shell.at_work());
    ok(&Stat {
        uptime_ms: u64::try_from(ship.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        agent: agent(),
        processes: ProcessStat { running: running as u64, background: background as u64 },
        workspace: workspace.map(|stat| WorkspaceStat {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        }),
    })
}

/// From the kernel's own files, which never block.
fn agent() -> AgentStat {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    AgentStat {
        rss_kb: figure("VmRSS:"),
        // One of them is the listing's own.
        fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        threads: figure("Threads:"),
    }
}
