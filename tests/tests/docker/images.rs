//! Images that are not there yet, or are not what a profile takes them for.

use bay_tests::config::Profile;
use bay_tests::images::Image;
use bay_tests::{Bay, Options, Sandbox};
use serde_json::{Value, json};

/// A Bay with one more profile, whose image this is.
fn bay_with(profile: Profile, image: &Image) -> Bay {
    Bay::start(Options::default().profile(profile.container(json!({ "image": image.name }))))
}

/// A call that cannot be served, because of what the image is; the answer says so.
#[track_caller]
fn told(sandbox: &Sandbox, tail: &str, body: &Value, words: &[&str]) {
    let error = sandbox.post(tail, body).error(503, "unavailable");
    let message = error["message"].as_str().unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "it names `{word}`: {error}");
    }
    let shown = sandbox.show();
    assert_eq!(shown["status"], "failed", "{shown}");
    let reason = shown["status_reason"]["message"].as_str().unwrap_or_default();
    for word in words {
        assert!(reason.contains(word), "it names `{word}`: {shown}");
    }
}

#[test]
fn an_image_that_is_not_there_is_told_and_works_once_it_is() {
    let image = Image::unheard_of("late");
    let bay = bay_with(Profile::shell().named("late"), &image);
    let sandbox = bay.api().sandbox(json!({ "profile": "late", "start": "lazy" }));
    let command = json!({ "command": "echo here" });
    told(&sandbox, "shell/exec", &command, &[&image.name]);
    assert_eq!(bay.containers().expect("on Docker").all(), [Value::Null; 0], "a start that failed is undone");
    bay.api().sandbox(json!({ "profile": "shell-only" })).unharmed();
    image.appears();
    assert_eq!(sandbox.shell_ok("echo here"), "here");
}

#[test]
fn an_image_that_cannot_be_fetched_is_told() {
    let image = "registry.invalid/nobody/nothing:1";
    let container = json!({ "image": image, "docker": { "image_pull_policy": "if_not_present" } });
    let profile = Profile::shell().named("far").container(container);
    let bay = Bay::start(Options::default().profile(profile));
    let sandbox = bay.api().sandbox(json!({ "profile": "far", "start": "lazy" }));
    told(&sandbox, "shell/exec", &json!({ "command": "true" }), &[image]);
}

#[test]
fn an_image_without_python_runs_commands_and_says_what_it_lacks() {
    let remove = "rm -rf /opt/python; for d in /usr/local/bin /usr/bin /bin; do rm -f $d/python3*; done";
    let image = Image::after("no-python", remove);
    let of_image = json!({ "image": image.name });
    let python = Profile::python().named("wants-python").container(of_image.clone());
    let shell = Profile::shell().named("wants-shell").container(of_image);
    let bay = Bay::start(Options::default().profile(python).profile(shell));
    let sandbox = bay.api().sandbox(json!({ "profile": "wants-shell" }));
    assert_eq!(sandbox.shell_ok("command -v python3 || echo none"), "none");
    let sandbox = bay.api().sandbox(json!({ "profile": "wants-python", "start": "lazy" }));
    told(&sandbox, "python/exec", &json!({ "code": "1" }), &["python", &image.name]);
}

#[test]
fn an_image_whose_uid_1000_is_somebody_else_works() {
    let rename = "grep -v :1000: /etc/passwd > /tmp/p && cat /tmp/p > /etc/passwd && rm /tmp/p && \
                  echo someone:x:1000:1000::/home/someone:/bin/false >> /etc/passwd && mkdir -p -m 700 /home/someone && \
                  chown 1000:1000 /home/someone";
    let image = Image::after("someone", rename);
    let bay = bay_with(Profile::python().named("someone"), &image);
    let sandbox = bay.api().sandbox(json!({ "profile": "someone" }));
    let seen = sandbox.shell_ok("id -u; id -g; id -un; pwd; echo $HOME; touch mine && stat -c %u mine");
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        ["1000", "1000", "someone", "/workspace", "/workspace", "1000"]
    );
    let seen = sandbox.python_ok("import os\nprint(os.getuid(), os.getcwd(), os.environ['HOME'])");
    assert_eq!(seen, "1000 /workspace /workspace");
    sandbox.write("written", "w");
    assert_eq!(sandbox.read("written"), "w");
}

#[test]
fn an_image_with_nothing_in_it_keeps_files_and_says_that_it_has_no_shell() {
    let image = Image::bare("bare");
    let mut files = Profile::shell().named("files-only").container(json!({ "image": image.name }));
    files.capabilities = vec!["filesystem".into()];
    let shell = Profile::shell().named("wants-shell").container(json!({ "image": image.name }));
    let bay = Bay::start(Options::default().profile(files).profile(shell));
    let sandbox = bay.api().sandbox(json!({ "profile": "files-only" }));
    sandbox.write("a/b", "kept");
    assert_eq!(sandbox.read("a/b"), "kept");
    assert_eq!(sandbox.post("stop", &json!({})).send().expect(200)["status"], "stopped");
    assert_eq!(sandbox.read("a/b"), "kept");
    let sandbox = bay.api().sandbox(json!({ "profile": "wants-shell", "start": "lazy" }));
    told(&sandbox, "shell/exec", &json!({ "command": "true" }), &["shell", &image.name]);
}

#[test]
fn an_image_cannot_put_a_program_of_its_own_in_the_place_of_bays() {
    // Its volume is mounted after Bay's, since its path is the longer one, and leads to where Bay's is.
    let plant = "mkdir -p /.bay /a/b; printf '#!/bin/sh\\necho taken over\\n' > /.bay/ship; chmod 755 /.bay/ship; \
                 ln -s /.bay /a/b/c";
    let image = Image::after_with("usurper", plant, "VOLUME /a/b/c");
    let bay = bay_with(Profile::shell().named("usurper"), &image);
    let sandbox = bay.api().sandbox(json!({ "profile": "usurper" }));
    assert_eq!(sandbox.shell_ok("echo mine"), "mine");
}
