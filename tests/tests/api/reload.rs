//! Profiles, tenants and quotas that change while Bay runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bay_tests::{Bay, Options, until};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);

fn profiles(client: &bay_tests::Client) -> Vec<String> {
    let list = client.get("/v1/profiles").send().expect(200);
    let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
    list["items"].as_array().expect("a list").iter().map(id).collect()
}

/// What `bay profile check` says of this Bay's profiles, and whether they are good.
fn check_profiles(bay: &Bay) -> (bool, String) {
    let mut command = bay_tests::bay_command();
    let out = command.args(["profile", "check", "--config"]).arg(bay.home().join("bay.toml")).output();
    let out = out.expect("run bay profile check");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_new_profile_appears_a_broken_file_changes_nothing_and_no_request_fails() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let shell = std::fs::read_to_string(bay.home().join("profiles/shell-only.toml")).expect("a profile");
    let put = |name: &str, text: &str| {
        std::fs::write(bay.home().join("profiles").join(name), text).expect("write a profile");
    };
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    api.get("/v1/profiles").send().expect(200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let steps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            put("shell-new.toml", &shell.replace("\"shell-only\"", "\"shell-new\""));
            until("the new profile is there", LONG, || {
                profiles(&api).contains(&"shell-new".to_owned()).then_some(())
            });
            drop(api.sandbox(json!({ "profile": "shell-new", "start": "lazy" })));

            put("shell-new.toml", "id = \"shell-new\"\nidel_timeout = \"1m\"\n");
            until("the log says what is wrong", LONG, || {
                let log = bay.log();
                (log.contains("shell-new.toml:2:1") && log.contains("did you mean `idle_timeout`?"))
                    .then_some(())
            });
            assert!(profiles(&api).contains(&"shell-new".to_owned()), "the old set stays whole");
            let (good, said) = check_profiles(&bay);
            assert!(
                !good && said.contains("shell-new.toml:2:1"),
                "`bay profile check` says the same: {said}"
            );

            std::fs::remove_file(bay.home().join("profiles/shell-new.toml")).expect("remove a profile");
            until("it is gone", LONG, || (!profiles(&api).contains(&"shell-new".to_owned())).then_some(()));
            api.post("/v1/sandboxes", &json!({ "profile": "shell-new", "start": "lazy" }))
                .error(404, "not_found");
        }));
        ended.store(true, Ordering::Relaxed);
        if let Err(panic) = steps {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(asked.load(Ordering::Relaxed) > 10, "hardly anybody asked meanwhile");
}

#[test]
fn a_tenants_file_comes_changes_and_goes_and_a_hangup_is_a_reload_too() {
    let bay = Bay::start(Options::default().tenant("acme").tenant("other"));
    let (acme, other) = (bay.as_tenant("acme"), bay.as_tenant("other"));
    let all = profiles(&acme);
    assert_eq!(all, ["python-default", "shell-only"]);
    let dir = bay.home().join("profiles/tenants");
    std::fs::create_dir(&dir).expect("make tenants/");
    let put = |text: &str| std::fs::write(dir.join("acme.toml"), text).expect("write a tenant");

    put(
        "id = \"acme\"\nprofiles = [\"shell-*\"]\ndefault_profile = \"shell-only\"\nmax_ttl = \"1m\"\n[quota]\nsandboxes = 1\n",
    );
    until("acme sees its own profiles only", LONG, || (profiles(&acme) == ["shell-only"]).then_some(()));
    assert_eq!(profiles(&other), all);
    acme.post("/v1/sandboxes", &json!({ "profile": "python-default", "start": "lazy" }))
        .error(404, "not_found");
    acme.post("/v1/sandboxes", &json!({ "start": "lazy", "ttl": 61 })).bad_fields(&["ttl"]);
    let one = acme.sandbox(json!({ "start": "lazy" }));
    let made = acme.get(&format!("/v1/sandboxes/{}", one.id)).send().expect(200);
    assert_eq!(made["profile"], "shell-only");
    assert!(made["expires_at"].is_string(), "the tenant's bound is the default: {made}");
    let error = acme.post("/v1/sandboxes", &json!({ "start": "lazy" })).error(429, "quota_exceeded");
    assert_eq!(error["details"], json!({ "quota": "sandboxes", "limit": 1, "used": 1 }));

    put(
        "id = \"acme\"\nprofiles = [\"shell-*\"]\ndefault_profile = \"shell-only\"\n[quota]\nsandboxes = 2\n",
    );
    let two = until("the quota has grown", LONG, || {
        let answer = acme.post("/v1/sandboxes", &json!({ "start": "lazy" })).send();
        (answer.status == 201).then(|| answer.json()["id"].as_str().expect("an id").to_owned())
    });
    acme.call("DELETE", &format!("/v1/sandboxes/{two}")).send().expect(204);

    // A directory that is not there for a moment takes nothing along.
    let away = bay.home().join("profiles/tenants.away");
    std::fs::rename(&dir, &away).expect("move tenants/ away");
    until("it is missed", LONG, || bay.log().contains("is no longer there").then_some(()));
    assert_eq!(profiles(&acme), ["shell-only"]);
    std::fs::rename(&away, &dir).expect("move tenants/ back");

    std::fs::remove_file(dir.join("acme.toml")).expect("remove the tenant's file");
    until("acme sees every profile again", LONG, || (profiles(&acme) == all).then_some(()));

    let told = |log: &str| log.matches("SIGHUP").count();
    let before = told(&bay.log());
    let pid = rustix::process::Pid::from_raw(bay.pid()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("signal Bay");
    until("the hangup is in the log", LONG, || (told(&bay.log()) > before).then_some(()));
    assert_eq!(profiles(&acme), all);
}
