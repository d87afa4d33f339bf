//! What a call costs through Bay, against the same without Bay in the same sandbox.

use std::path::Path;

use anyhow::{Context as _, ensure};
use bay_tests::{Bay, Options, Sandbox};
use serde_json::{Value, json};

use crate::client::Client;
use crate::memory;
use bay_bench_report::Row;

/// What every Python row runs.
const CODE: &str = "print(1)";
/// Subject and baseline take turns this often.
const TURNS: usize = 20;
/// Calls of each in one turn.
const CALLS: usize = 25;
/// Before the first turn, and for a baseline's own client in each turn.
const WARM: usize = 10;
/// Starts of a sandbox or a kernel.
const STARTS: usize = 12;

/// The programs that run inside, and where they are put in the sandbox.
const INSIDE: [(&str, &str); 3] = [
    ("bench/execute.py", include_str!("inside/execute.py")),
    ("bench/kernel.py", include_str!("inside/kernel.py")),
    ("bench/echo.sh", include_str!("inside/echo.sh")),
];

/// Starts a Bay with its default plugins and measures.
pub(crate) fn rows(binary: &Path) -> anyhow::Result<Vec<Row>> {
    ensure!(
        std::env::var_os("BAY_TEST_BIN").is_some_and(|named| named == binary.as_os_str()),
        "BAY_TEST_BIN must name the same binary as --bay"
    );
    let bay = Bay::start(Options::default());
    let idle = memory::of_bay(&bay)?;
    let client = Client::new(bay.addr(), bay.key());
    let api = bay.api();
    let sandbox = api.sandbox(json!({ "profile": "python-default", "start": "wait" }));
    sandbox.ready();
    for (path, text) in INSIDE {
        sandbox.write(path, text);
    }
    let mut rows = Vec::new();
    rows.extend(python(&client, &sandbox)?);
    rows.extend(shell(&client, &sandbox)?);
    rows.extend(starts(&client, &sandbox)?);
    rows.push(memory::row("Bay resident, idle, default plugins loaded", idle).at_most(60.0));
    rows.push(memory::row("Bay resident, after this bench", memory::of_bay(&bay)?));
    let ship = memory::of_ship(&bay.processes_of(&sandbox.locker))?;
    rows.push(memory::row("Ship resident, init and agent together", ship).at_most(8.0));
    Ok(rows)
}

fn python(client: &Client, sandbox: &Sandbox) -> anyhow::Result<[Row; 2]> {
    let tail = format!("/{}/python/exec", sandbox.id);
    let body = json!({ "code": CODE });
    let once = || -> anyhow::Result<f64> {
        let (answer, took) = client.post(&tail, &body)?;
        ensure!(answer["output"] == "1\n", "python/exec answered {answer}");
        Ok(took)
    };
    for _ in 0..WARM {
        once()?;
    }
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for _ in 0..CALLS {
            through.push(once()?);
        }
        let command = format!("python3 -P -s bench/execute.py '{CODE}' {CALLS} {WARM}");
        direct.extend(inside(sandbox, &command)?);
    }
    Ok([
        Row::against(
            "warm python/exec print(1) through Bay; baseline: jupyter_client in the sandbox",
            "ms",
            &through,
            &direct,
        ),
        Row::added("Bay's overhead on it: through Bay minus jupyter_client", "ms", &through, &direct)
            .at_most(1.0),
    ])
}

fn shell(client: &Client, sandbox: &Sandbox) -> anyhow::Result<[Row; 2]> {
    let tail = format!("/{}/shell/exec", sandbox.id);
    let once = |command: &str| -> anyhow::Result<(String, f64)> {
        let (answer, took) = client.post(&tail, &json!({ "command": command }))?;
        let stdout = answer["stdout"].as_str().context("no stdout")?.trim_end().to_owned();
        Ok((stdout, took))
    };
    // The very shell that Ship starts, asked of itself.
    let (shell, _) = once("readlink /proc/$$/exe")?;
    ensure!(shell.starts_with('/') && !shell.contains('\''), "the shell says it is {shell}");
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        for _ in 0..CALLS {
            let (stdout, took) = once("echo hi")?;
            ensure!(stdout == "hi", "shell/exec printed {stdout}");
            // The first turn warms both up.
            if turn > 0 {
                through.push(took);
            }
        }
        let times = inside(sandbox, &format!("bash bench/echo.sh {CALLS} '{shell}'"))?;
        if turn > 0 {
            bare.extend(times);
        }
    }
    Ok([
        Row::against(
            "warm shell/exec echo hi through Bay; baseline: the same bare in the sandbox",
            "ms",
            &through,
            &bare,
        ),
        Row::added("added by Bay to it", "ms", &through, &bare).at_most(2.0),
    ])
}

fn starts(client: &Client, sandbox: &Sandbox) -> anyhow::Result<[Row; 2]> {
    let first = |tail: &str, body: &Value, field: &str, wanted: &str| -> anyhow::Result<f64> {
        let (made, making) = client.post("", &json!({ "profile": "python-default" }))?;
        let id = made["id"].as_str().context("no id")?;
        let (answer, running) = client.post(&format!("/{id}{tail}"), body)?;
        client.delete(id)?;
        ensure!(answer[field] == wanted, "{tail} answered {answer}");
        Ok(making + running)
    };
    let (mut shell, mut python, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        shell.push(first("/shell/exec", &json!({ "command": "echo hi" }), "stdout", "hi\n")?);
        python.push(first("/python/exec", &json!({ "code": CODE }), "output", "1\n")?);
        bare.extend(inside(sandbox, &format!("python3 -P -s bench/kernel.py '{CODE}'"))?);
    }
    Ok([
        Row::alone("create → first shell output", "ms", &shell).at_most(60.0),
        Row::against(
            "create → first Python output; baseline: ipykernel started bare in the sandbox",
            "ms",
            &python,
            &bare,
        )
        .at_most_times(1.1),
    ])
}

/// Runs one of the programs in the sandbox; the list of times that it prints.
fn inside(sandbox: &Sandbox, command: &str) -> anyhow::Result<Vec<f64>> {
    let ran = sandbox.post("shell/exec", &json!({ "command": command, "timeout": 120 })).send().expect(200);
    let stdout = ran["stdout"].as_str().unwrap_or_default();
    serde_json::from_str(stdout).with_context(|| format!("`{command}` answered {ran}"))
}
