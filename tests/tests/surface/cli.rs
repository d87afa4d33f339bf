//! The command line.

use bay_tests::{bay_command, golden};

fn said(args: &[&str]) -> String {
    let out = bay_command().args(args).output().expect("run bay");
    assert!(out.status.success(), "bay {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn help_is_as_written_down() {
    let mut whole = String::new();
    let top = said(&["--help"]);
    whole.push_str(&format!("$ bay --help\n{top}"));
    for command in subcommands(&top) {
        let help = said(&[&command, "--help"]);
        whole.push_str(&format!("\n$ bay {command} --help\n{help}"));
        for deeper in subcommands(&help) {
            whole.push_str(&format!(
                "\n$ bay {command} {deeper} --help\n{}",
                said(&[&command, &deeper, "--help"])
            ));
        }
    }
    assert!(!whole.contains("bay launch"), "the local driver's launcher is not for people");
    // Where data goes by default depends on who asks.
    assert!(!whole.contains("/home/") && !whole.contains("/root"), "{whole}");
    golden::compare("cli.txt", &whole);
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(said(&["--version"]).trim(), format!("bay {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_the_command_line_does_not_know_is_refused() {
    for args in [&["fly"][..], &["serve", "--nope"], &["serve", "--config", "/does/not/exist.toml"]] {
        let out = bay_command().args(args).output().expect("run bay");
        assert!(!out.status.success(), "{args:?}");
        assert!(!out.stderr.is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn a_configuration_is_checked_without_being_used() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../bay.example.toml");
    assert!(said(&["config", "check", "--config", example]).contains("good"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bad = dir.path().join("bay.toml");
    std::fs::write(&bad, "data_dir = \"data\"\n[server]\nlisen = \"127.0.0.1:1\"\n").expect("write bay.toml");
    let out = bay_command().args(["config", "check", "--config"]).arg(&bad).output().expect("run bay");
    let words = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{words}");
    assert!(words.contains("bay.toml:3:1") && words.contains("did you mean `listen`?"), "{words}");
    assert!(!dir.path().join("data").exists(), "looking makes nothing");
}

fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1);
    list.take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|w| *w != "help")
        .map(str::to_owned)
        .collect()
}
