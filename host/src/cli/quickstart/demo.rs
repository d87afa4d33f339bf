//! The demonstration: each step says what it shows, sends one request, and checks the answer.

use std::io::Write;

use serde_json::{Value, json};

use super::client::{Answer, Call, Client};
use super::{QuickstartError, io, show};

/// Has the internet; needs a network that not every machine can give.
const PROFILE: &str = "python-default";
/// The same without one.
const OFFLINE: &str = "python-offline";

/// Seconds for an image that has to be fetched first.
const FETCH: u32 = 90;

/// What the file step writes and reads back.
const FILE: &str = "harbour/notes.txt";
const TEXT: &str = "Ships come and go.\nThe locker stays.\n";

/// Shows everything; the id of the sandbox it made, or deleted again where `clean_up` says so.
pub(super) async fn demonstrate(
    client: &Client,
    clean_up: bool,
    screen: &mut impl Write,
) -> Result<String, QuickstartError> {
    let id = create(client, screen).await?;
    let shown = steps(client, &id, screen).await;
    if clean_up {
        // Also after a failed step: a sandbox outlives Bay, so nobody else would end this one.
        let call = Call::new("DELETE", format!("/v1/sandboxes/{id}"));
        let step = "delete the sandbox, its processes and its files";
        let deleted = perform(client, step, &call, screen).await;
        shown?;
        expect_status(step, &deleted?, 204)?;
    } else {
        shown?;
    }
    Ok(id)
}

async fn create(client: &Client, screen: &mut impl Write) -> Result<String, QuickstartError> {
    let step = "make a sandbox, and wait until it runs";
    let mut answer = perform(client, step, &creation(PROFILE), screen).await?;
    let status = |answer: &Answer, is: &str| answer.body["status"] == is;
    let id = answer.body["id"].as_str().filter(|id| is_id(id)).map(str::to_owned);
    if let Some(id) = id.as_ref().filter(|_| status(&answer, "starting")) {
        // An image that is fetched takes longer than a creation waits.
        let wait = Call::new("GET", format!("/v1/sandboxes/{id}?wait=ready&timeout={FETCH}"));
        answer.body = client.send(&wait).await?.body;
    }
    if let (Some(id), Some(missing)) = (id, missing_engine(&answer)) {
        client.send(&Call::new("DELETE", format!("/v1/sandboxes/{id}"))).await?;
        return Err(missing);
    }
    if !lacks_network(&answer) {
        return ready_sandbox(step, &answer);
    }
    show::remark(
        screen,
        "this machine cannot give sandboxes a network of their own, so the demonstration goes on without one",
    )
    .map_err(io("cannot write to the terminal"))?;
    if let Some(id) = answer.body["id"].as_str() {
        client.send(&Call::new("DELETE", format!("/v1/sandboxes/{id}"))).await?;
    }
    let step = "make a sandbox without a network";
    let answer = perform(client, step, &creation(OFFLINE), screen).await?;
    ready_sandbox(step, &answer)
}

fn creation(profile: &str) -> Call {
    Call::json(
        "POST",
        "/v1/sandboxes",
        json!({ "profile": profile, "labels": { "made-by": "quickstart" }, "start": "wait" }),
    )
}

/// What is not there of a Docker engine, where that is why nothing starts.
fn missing_engine(answer: &Answer) -> Option<QuickstartError> {
    let reason = answer.body["status_reason"].as_object()?;
    if reason.get("code")? != "unavailable" {
        return None;
    }
    let reason = reason.get("message")?.as_str()?.to_owned();
    let remedy = if reason.starts_with("image ") {
        "The images that Bay's own profiles name are made by: cargo xtask images"
    } else {
        "Start the Docker engine (DOCKER_HOST says where it is), then run this again."
    };
    Some(QuickstartError::Docker { reason, remedy })
}

/// Refused at once, or found out during the start.
fn lacks_network(answer: &Answer) -> bool {
    let reason = "network_unavailable";
    answer.body["error"]["code"] == reason || answer.body["status_reason"]["code"] == reason
}

fn ready_sandbox(step: &'static str, answer: &Answer) -> Result<String, QuickstartError> {
    expect_status(step, answer, 201)?;
    expect(step, &answer.body, "status", &answer.body["status"], &json!("ready"))?;
    let id = answer.body["id"].as_str().unwrap_or_default();
    if is_id(id) { Ok(id.to_owned()) } else { Err(wrong(step, format!("`{id}` is not the id of a sandbox"))) }
}

/// It becomes part of paths and of lines to paste: only what the contract says an id is.
fn is_id(id: &str) -> bool {
    id.strip_prefix("sbx_").is_some_and(|rest| {
        rest.len() == 26 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

async fn steps(client: &Client, id: &str, screen: &mut impl Write) -> Result<(), QuickstartError> {
    let python =
        |code: &str| Call::json("POST", format!("/v1/sandboxes/{id}/python/exec"), json!({ "code": code }));
    let files = format!("/v1/sandboxes/{id}/filesystem/files");

    let step = "run Python: a real IPython kernel";
    let answer = perform(client, step, &python("x = 6 * 7\nprint('x is', x)"), screen).await?;
    expect_success(step, &answer, true)?;
    expect_text(step, &answer, "output", "x is 42")?;

    let step = "and again: what the first call set is still there";
    let answer = perform(client, step, &python("x + 1"), screen).await?;
    expect_success(step, &answer, true)?;
    expect_text(step, &answer, "output", "43")?;

    let step = "an exception is an answer, not a failed request";
    let answer = perform(client, step, &python("1 / 0"), screen).await?;
    expect_success(step, &answer, false)?;
    expect(
        step,
        &answer.body,
        "error_detail.name",
        &answer.body["error_detail"]["name"],
        &json!("ZeroDivisionError"),
    )?;

    let step = "run a shell command, as an unprivileged user of the sandbox";
    let shell = Call::json(
        "POST",
        format!("/v1/sandboxes/{id}/shell/exec"),
        json!({ "command": "id -u; pwd; uname -s" }),
    );
    let answer = perform(client, step, &shell, screen).await?;
    expect_success(step, &answer, true)?;
    expect(step, &answer.body, "stdout", &answer.body["stdout"], &json!("1000\n/workspace\nLinux\n"))?;
    expect(step, &answer.body, "exit_code", &answer.body["exit_code"], &json!(0))?;

    let step = "write a file";
    let write = Call::json("PUT", files.as_str(), json!({ "path": FILE, "content": TEXT }));
    let answer = perform(client, step, &write, screen).await?;
    expect_status(step, &answer, 200)?;
    expect(step, &answer.body, "size", &answer.body["size"], &json!(TEXT.len()))?;

    let step = "read it back";
    let read = Call::new("GET", format!("{files}?path={FILE}"));
    let answer = perform(client, step, &read, screen).await?;
    expect_status(step, &answer, 200)?;
    expect(step, &answer.body, "content", &answer.body["content"], &json!(TEXT))?;

    let step = "Python sees the same file";
    let code = format!("print(open('{FILE}').read().upper())");
    let answer = perform(client, step, &python(&code), screen).await?;
    expect_success(step, &answer, true)?;
    expect_text(step, &answer, "output", "THE LOCKER STAYS.")
}

async fn perform(
    client: &Client,
    step: &'static str,
    call: &Call,
    screen: &mut impl Write,
) -> Result<Answer, QuickstartError> {
    let terminal = || io("cannot write to the terminal");
    show::request(screen, step, client.address, call).map_err(terminal())?;
    let answer = client.send(call).await?;
    show::answer(screen, &answer).map_err(terminal())?;
    Ok(answer)
}

fn expect_success(step: &'static str, answer: &Answer, success: bool) -> Result<(), QuickstartError> {
    expect_status(step, answer, 200)?;
    expect(step, &answer.body, "success", &answer.body["success"], &json!(success))
}

fn expect_status(step: &'static str, answer: &Answer, status: u16) -> Result<(), QuickstartError> {
    if answer.status == status {
        return Ok(());
    }
    let said = answer.body["error"]["message"].as_str().unwrap_or("with no message");
    Err(wrong(step, format!("status {} instead of {status}: {said}", answer.status)))
}

fn expect_text(
    step: &'static str,
    answer: &Answer,
    field: &'static str,
    text: &str,
) -> Result<(), QuickstartError> {
    if answer.body[field].as_str().is_some_and(|got| got.contains(text)) {
        return Ok(());
    }
    Err(wrong(step, format!("`{field}` should contain {text:?} and is {}", answer.body[field])))
}

fn expect(
    step: &'static str,
    whole: &Value,
    field: &str,
    got: &Value,
    wanted: &Value,
) -> Result<(), QuickstartError> {
    if got == wanted {
        return Ok(());
    }
    // A sandbox that would not start says why.
    let reason = whole["status_reason"]["message"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
    Err(wrong(step, format!("`{field}` should be {wanted} and is {got}{reason}")))
}

fn wrong(step: &'static str, what: String) -> QuickstartError {
    QuickstartError::Wrong { step, what }
}
