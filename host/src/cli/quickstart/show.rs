//! How requests and answers look on the terminal.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Answer, Call};
use super::server::Server;

/// Longest text of one answer that is shown whole.
const MAX_SHOWN: usize = 2_000;

/// A step's title and the line that a person could paste.
pub(super) fn request(
    screen: &mut impl Write,
    step: &str,
    address: SocketAddr,
    call: &Call,
) -> io::Result<()> {
    writeln!(screen, "\n# {step}\n{}", curl(address, call))?;
    // What comes next may take a moment: show what is being waited for.
    screen.flush()
}

/// The answer, and how long it took.
pub(super) fn answer(screen: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut text = match &answer.body {
        Value::Null => String::new(),
        body => format!("{body:#}\n"),
    };
    if text.len() > MAX_SHOWN {
        let end = (0..=MAX_SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("…\n");
    }
    writeln!(screen, "{text}→ {} in {:.1} ms", answer.status, answer.took.as_secs_f64() * 1e3)
}

/// Something a person should know before reading on.
pub(super) fn remark(screen: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(screen, "\nNote: {text}.")
}

/// What is left running, and how to end it.
pub(super) fn farewell(
    screen: &mut impl Write,
    bay: &Server,
    sandbox: &str,
    stopped: bool,
    once: bool,
) -> io::Result<()> {
    if stopped {
        return writeln!(screen, "\nEverything worked. Bay is stopped and the sandbox is gone.");
    }
    let client = bay.client();
    writeln!(screen, "\nEverything worked. Bay runs on http://{} (pid {}).", client.address, bay.pid())?;
    if once {
        return writeln!(screen, "It ran before this demonstration, so it runs on; the sandbox is gone.");
    }
    let delete = Call::new("DELETE", format!("/v1/sandboxes/{sandbox}"));
    writeln!(
        screen,
        "\n  its log        {}\n  its data       {}\n  your key       export BAY_API_KEY=\"$(cat {})\"\n  the sandbox    \
         {sandbox}, yours to play with\n\nTo end the sandbox, and then Bay:\n\n  {}\n  kill {}\n\nThe order matters: \
         sandboxes run on without Bay, and Bay finds them again when it starts.",
        bay.log().display(),
        bay.data_dir().display(),
        quoted(&bay.key_file().to_string_lossy()),
        curl(client.address, &delete),
        bay.pid(),
    )
}

/// The request as a command line. The key is never in it.
pub(super) fn curl(address: SocketAddr, call: &Call) -> String {
    let mut line = String::from("curl -sS");
    if call.method != "GET" {
        line.push_str(" -X ");
        line.push_str(call.method);
    }
    line.push_str(&format!(" {}", quoted(&format!("http://{address}{}", call.target))));
    line.push_str(" \\\n  -H \"Authorization: Bearer $BAY_API_KEY\"");
    if let Some(body) = &call.body {
        line.push_str(" -H 'Content-Type: application/json' \\\n  -d ");
        line.push_str(&quoted(&body.to_string()));
    }
    line
}

/// One word for a POSIX shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
