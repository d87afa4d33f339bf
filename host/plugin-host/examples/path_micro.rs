//! How long rules, router and adapter take for one call, each in a fresh instance: medians and 95th percentiles.
//!
//! ```text
//! cargo run --release -p bay-plugin-host --example path_micro [-- CALLS [CACHE]]
//! ```
//!
//! With CACHE, a directory that is kept, a second run shows what is resident where nothing had to be compiled.
//!
//! The runtime is a canned answer, so that only plugins and plugin host are measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bay_plugin_host::{
    Admission, Call, CallContext, ContainerFacts, ForwardEnd, HostOptions, Outcome, Performer,
    PlannedRequest, PlannedResponse, Plugin, PluginHost, PluginSpec, RouteAnswer, RouteRequest, Source,
    Verdict,
};
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Canned(Vec<u8>);

#[async_trait]
impl Performer for Canned {
    async fn request(&self, _: PlannedRequest) -> Result<PlannedResponse, String> {
        Ok(PlannedResponse { status: 200, headers: Vec::new(), body: self.0.clone() })
    }

    async fn forward(&self, _: PlannedRequest) -> Result<ForwardEnd, String> {
        Err("nothing here is forwarded".into())
    }
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at =
        |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    {
        println!("| {what} | {:.1} | {:.1} | {} |", at(50), at(95), times.len());
    }
}

/// Resident, and how much of it is not backed by a file, in KiB.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    (field("VmRSS:").unwrap_or(0), field("RssAnon:").unwrap_or(0))
}

fn main() -> Result<(), Failure> {
    let calls = std::env::args().nth(1).map_or(Ok(5000), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // In a task of its own: from the main thread each wake-up of a worker would be part of the time.
    runtime.block_on(async move {
        if let Some(kept) = std::env::args_os().nth(2) {
            return tokio::spawn(measure(kept.into(), calls)).await?;
        }
        let dir = std::env::temp_dir().join(format!("bay-path-micro-{}", std::process::id()));
        let result = tokio::spawn(measure(dir.clone(), calls)).await;
        let _ = std::fs::remove_dir_all(&dir);
        result?
    })
}

async fn load(host: &PluginHost, name: &str, bytes: &'static [u8]) -> Result<Plugin, Failure> {
    Ok(host.load(PluginSpec::new(name, Source::Embedded(bytes), json!({}))).await?)
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
async fn measure(dir: PathBuf, calls: usize) -> Result<(), Failure> {
    // The first host compiles; what is measured has its code from the cache, as after the first start.
    let mut loading = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        let host = PluginHost::new(HostOptions::new(&dir))?;
        for (name, bytes) in bay_embedded::COMPONENTS {
            load(&host, name, bytes).await?;
        }
        loading.push(started.elapsed());
    }
    let host = PluginHost::new(HostOptions::new(&dir))?;
    let Plugin::Rules(rules) = load(&host, "rules-default", bay_embedded::RULES_DEFAULT).await? else {
        return Err("rules-default is no rules plugin".into());
    };
    let Plugin::Router(router) = load(&host, "router-default", bay_embedded::ROUTER_DEFAULT).await? else {
        return Err("router-default is no router".into());
    };
    let Plugin::Adapter(adapter) = load(&host, "adapter-ship", bay_embedded::ADAPTER_SHIP).await? else {
        return Err("adapter-ship is no adapter".into());
    };
    let performer = Canned(python_answer());
    let (admission, request, call) = (admission(), request(), call());
    let [mut all, mut first, mut second, mut third] = [const { Vec::new() }; 4];
    for n in 0..calls + calls / 10 {
        let started = Instant::now();
        if rules.admit(&admission).await? != Verdict::Allow {
            return Err("not allowed".into());
        }
        let admitted = Instant::now();
        let RouteAnswer::Route(_) = router.route(&request).await? else { return Err("not routed".into()) };
        let routed = Instant::now();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(45);
        let Outcome::Reply(_) = adapter.run(call.clone(), &performer, deadline).await? else {
            return Err("no reply".into());
        };
        let ended = Instant::now();
        // The first tenth warms the pool's slots.
        if n >= calls / 10 {
            first.push(admitted - started);
            second.push(routed - admitted);
            third.push(ended - routed);
            all.push(ended - started);
        }
    }
    println!("| what | median µs | p95 µs | n |\n|---|---|---|---|");
    row("rules", first);
    row("router", second);
    row("adapter (start, one request, resume)", third);
    row("together", all);
    let (rss, anon) = resident();
    println!("\nload, at first: {:?}; from the cache: {:?}", loading[0], loading[1]);
    println!("resident: {rss} KiB, of which anonymous: {anon} KiB");
    Ok(())
}

fn admission() -> Admission {
    let input = json!({ "code": "print(1)", "timeout": 30, "include_code": false });
    Admission { action: "capability.python.exec".into(), input, ..Admission::default() }
}

fn request() -> RouteRequest {
    let capabilities: Vec<String> = ["python", "shell", "filesystem"].map(str::to_owned).into();
    let ship = ContainerFacts {
        name: "ship".into(),
        adapter: "adapter-ship".into(),
        capabilities: capabilities.clone(),
        primary_for: vec!["filesystem".into()],
        healthy: Some(true),
    };
    RouteRequest {
        capability: "python".into(),
        operation: "exec".into(),
        containers: vec![ship],
        ..RouteRequest::default()
    }
}

fn call() -> Call {
    Call {
        capability: "python".into(),
        operation: "exec".into(),
        input: json!({ "code": "print(1)", "timeout": 30, "include_code": false }),
        context: CallContext { request_id: "r".into(), sandbox_id: "sbx_1".into(), ..CallContext::default() },
    }
}

fn python_answer() -> Vec<u8> {
    json!({
        "success": true, "output": "1\n", "error": null, "error_detail": null,
        "data": { "execution_count": 3, "output": { "text": "1\n", "images": [], "results": [] } },
        "execution_id": "exe_1", "session_seq": 1, "kernel_seq": 1, "timed_out": false, "truncated": false,
        "execution_time_ms": 1, "queued_ms": 0, "code": null,
    })
    .to_string()
    .into_bytes()
}
