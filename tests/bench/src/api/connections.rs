//! Connections that are kept and not used.

use anyhow::{Context as _, ensure};
use bay_bench_report::Row;
use bay_tests::Bay;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::load::{Connection, Wire};
use crate::memory;

/// Connections are opened by so many threads.
const OPENERS: usize = 8;

/// As many open files as the host allows; Bay, which this process starts, inherits it.
pub(crate) fn raise_descriptors() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// What Bay holds while so many clients have asked once and stay.
pub(crate) fn row(bay: &Bay, number: usize) -> anyhow::Result<Row> {
    let client = Wire::new(bay.addr(), bay.key());
    let each = number.div_ceil(OPENERS);
    let held: Vec<Vec<Connection>> = super::load::at_once(OPENERS, |_| {
        (0..each)
            .map(|_| {
                let mut connection = client.connect()?;
                connection.get("/health")?.expect(200)?;
                Ok(connection)
            })
            .collect()
    })?;
    let resident = memory::of_bay(bay)?;
    // Each is still there.
    for mut connection in held.into_iter().flatten() {
        connection
            .get("/health")
            .and_then(|answer| answer.expect(200))
            .context("a connection was not kept")?;
    }
    ensure!(resident > 0.0);
    Ok(memory::row(&format!("Bay resident with {} idle connections", each * OPENERS), resident)
        .at_most(150.0))
}
