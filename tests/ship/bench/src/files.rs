//! One large file in and out, over what the machine's own tools do with it in the same sandbox.

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bay_bench_report::Row;
use bay_ship_tests::{Client, Container};

use crate::{container, figure, megabytes, put};

/// Bytes of the file.
const SIZE: u64 = 1 << 30;
/// Subject and baseline take turns this often.
const TURNS: usize = 4;
/// Bytes read at once by whoever receives.
const PIECE: usize = 256 << 10;
const FILES: &str = include_str!("inside/files.sh");

/// A file of random bytes in the workspace, shared by both.
struct Bench {
    container: Container,
    client: Client,
    size: u64,
}

#[expect(clippy::cast_precision_loss, reason = "a gigabyte is far below 2^52")]
fn speed(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds
}

impl Bench {
    /// MB/s of the machine's own tools.
    fn bare(&mut self, what: &str) -> anyhow::Result<f64> {
        let said = self.client.shell_ok(&format!("bash bench/files.sh {what} large"));
        Ok(speed(self.size, said.parse().with_context(|| said.clone())?))
    }

    fn download(&mut self) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.client.try_send(b"GET /fs/download?path=large HTTP/1.1\r\nhost: ship\r\n\r\n")?;
        let mut body = self.client.begin()?;
        ensure!(body.status == 200, "{}", body.head);
        let (mut piece, mut total) = (vec![0; PIECE], 0);
        loop {
            match body.read(&mut piece)? {
                0 => break,
                count => total += count as u64,
            }
        }
        ensure!(total == self.size, "{total} bytes came");
        Ok(speed(total, began.elapsed().as_secs_f64()))
    }

    fn upload(&mut self) -> anyhow::Result<f64> {
        let from = File::open(self.container.setup.workspace().join("large"))?;
        let began = Instant::now();
        let answer = self.client.upload_from("/fs/upload?path=uploaded", self.size, from)?;
        let took = began.elapsed().as_secs_f64();
        ensure!(answer.status == 200, "{} {}", answer.head, String::from_utf8_lossy(&answer.body));
        Ok(speed(self.size, took))
    }
}

pub(crate) fn rows(share: usize) -> anyhow::Result<Vec<Row>> {
    // A container of its own, whose agent has done nothing else: its peak is of this.
    let container = container()?;
    let mut client = container.client();
    put(&mut client, "bench/files.sh", FILES)?;
    let size = SIZE / share as u64;
    client.shell_ok(&format!("head -c {size} /dev/urandom > large && sync large"));
    let meta = client.get("/meta").json();
    let endpoint = &meta["capabilities"]["filesystem"]["endpoints"]["upload"];
    let uploads = endpoint == "POST /fs/upload";
    let mut bench = Bench { container, client, size };
    let (mut down, mut cat, mut null) = (Vec::new(), Vec::new(), Vec::new());
    let (mut up, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..(TURNS / share).max(1) {
        down.push(bench.download()?);
        cat.push(bench.bare("cat")?);
        null.push(bench.bare("null")?);
        if uploads {
            up.push(bench.upload()?);
            copy.push(bench.bare("copy")?);
        }
    }
    let mib = size >> 20;
    let mut rows = vec![
        Row::against(&format!("download {mib} MiB; baseline: cat FILE | cat"), "MB/s", &down, &cat)
            .at_least_times(0.6),
        Row::against(
            "the same; baseline: cat FILE >/dev/null, which hands it to nobody",
            "MB/s",
            &down,
            &null,
        ),
    ];
    if uploads {
        rows.push(
            Row::against(&format!("upload {mib} MiB; baseline: cp + sync FILE"), "MB/s", &up, &copy)
                .at_least_times(0.6),
        );
    } else {
        eprintln!("upload not measured: this Ship has no POST /fs/upload (its meta says {endpoint})");
    }
    let agent = bench.container.agent();
    let peak = megabytes(&bench.container, agent, "VmHWM:");
    rows.push(figure("Ship's agent at its peak during all that", "MB", peak).at_most(16.0));
    Ok(rows)
}
