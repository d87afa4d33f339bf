//! How big the images are and how fast they start.

use std::time::{Duration, Instant};

use super::Docker;

/// How often each is started; what is told is the one in the middle.
const ROUNDS: usize = 5;

/// A kernel, and the first thing it prints. What speaks to it is in the image, too, and counted in.
const FIRST_PRINT: &str = "from jupyter_client.manager import KernelManager\n\
     manager = KernelManager(transport='ipc', ip='/tmp/kernel')\n\
     manager.start_kernel()\n\
     client = manager.client()\n\
     client.start_channels()\n\
     client.wait_for_ready(timeout=60)\n\
     client.execute_interactive('print(1)', timeout=60)\n\
     manager.shutdown_kernel(now=True)\n";

pub(super) fn measure(docker: &Docker, images: &[&str]) -> anyhow::Result<()> {
    println!("\n{:<18} {:>9} {:>16} {:>24}", "image", "size", "container", "and first print(1)");
    for image in images {
        let bare = middle(|| docker.python(image, ""))?;
        let printed = middle(|| docker.python(image, FIRST_PRINT))?;
        let megabytes = docker.size(image)? / 1_000_000;
        println!(
            "{image:<18} {megabytes:>6} MB {:>14.2} s {:>22.2} s",
            bare.as_secs_f64(),
            printed.as_secs_f64()
        );
    }
    Ok(())
}

fn middle(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work()?;
        took.push(began.elapsed());
    }
    took.sort();
    Ok(took[ROUNDS / 2])
}
