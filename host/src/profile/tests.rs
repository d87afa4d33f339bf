use std::path::Path;

use crate::auth::Tenant;
use crate::config::{Bound, QuotaConfig, TomlFile};
use crate::driver::Network;
use crate::store::Quota;

use super::types::matches;
use super::*;

fn known() -> KnownPlugins {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    KnownPlugins {
        needs_image: false,
        rules: set(&["rules-default", "acme-guard"]),
        routers: set(&["router-default"]),
        adapters: [
            ("adapter-ship".to_owned(), set(&["python", "shell", "filesystem", "terminal"])),
            ("adapter-other".to_owned(), set(&["acme_browse", "filesystem"])),
        ]
        .into(),
    }
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

const GOOD: &str = r#"
id = "one"
[[container]]
name = "ship"
adapter = "adapter-ship"
capabilities = ["python", "filesystem"]
primary_for = ["filesystem"]
resources = { cpus = 0.5, memory = "512m" }
network = "egress"
"#;

fn build(profiles: &[&str], tenants: &[&str]) -> Result<ProfileSet, ProfileErrors> {
    let files = |kind: &str, texts: &[&str]| {
        texts.iter().enumerate().map(|(n, text)| TomlFile::of(format!("{kind}{n}.toml"), *text)).collect()
    };
    ProfileSet::build(files("p", profiles), files("t", tenants), &known())
}

fn refused(profiles: &[&str], tenants: &[&str]) -> String {
    build(profiles, tenants).expect_err("should be refused").to_string()
}

#[test]
fn the_embedded_profiles_are_good() {
    let set = ProfileSet::load(None, &known()).unwrap();
    let anyone = Tenant::default_tenant();
    let ids: Vec<_> = set.list(&anyone).iter().map(|p| p.id.clone()).collect();
    assert_eq!(ids, ["python-default", "python-offline"]);
    let default = set.default_for(&anyone).unwrap();
    assert_eq!(default.id, DEFAULT_PROFILE);
    assert_eq!(default.capabilities(), ["filesystem", "python", "shell", "terminal"]);
    assert_eq!(default.containers[0].network, Network::Egress);
    assert_eq!(default.containers[0].resources.memory.bytes(), 1 << 30);
    assert_eq!(set.get(&anyone, "python-offline").unwrap().containers[0].network, Network::None);
    assert!(set.get(&anyone, "nope").is_none());
}

#[test]
fn what_is_left_out_is_the_careful_choice() {
    let set = build(&[&GOOD.replace("network = \"egress\"\n", "")], &[]).unwrap();
    let profile = set.get(&tenant("any"), "one").unwrap();
    assert_eq!(profile.containers[0].network, Network::None);
    assert_eq!(profile.containers[0].resources.pids, 256);
    assert_eq!(profile.rules, ["rules-default"]);
    assert_eq!(profile.idle_timeout.as_secs(), 1800);
    assert!(profile.offers("python") && !profile.offers("shell"));
    // Nobody's default is a profile that is not there.
    assert!(set.default_for(&tenant("any")).is_none());
}

#[test]
fn a_driver_that_runs_images_needs_one_in_every_container() {
    let known = KnownPlugins { needs_image: true, ..known() };
    let build = |text: &str| ProfileSet::build(vec![TomlFile::of("p0.toml", text)], Vec::new(), &known);
    let error = build(GOOD).unwrap_err().to_string();
    assert!(error.contains("a container without an image") && error.contains("p0.toml:4:8"), "{error}");
    build(&GOOD.replace("name = \"ship\"", "name = \"ship\"\nimage = \"python:3.13-slim\"")).unwrap();
}

#[test]
fn what_the_docker_driver_would_be_refused_is_refused_here() {
    let with = |more: &str| build(&[&format!("{GOOD}\n{more}")], &[]);
    assert!(with("[container.docker]\nruntime = \"runsc\"\ntmp = \"64m\"").is_ok());
    for (more, words) in [
        ("[container.docker]\nruntime = \"a b\"", "not the name of an OCI runtime"),
        ("[container.docker]\ntmp = \"1k\"", "from 1m to 64g"),
    ] {
        let error = with(more).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = build(&[&GOOD.replace("name = \"ship\"", "name = \"ship\"\nimage = \"a b\"")], &[]);
    assert!(error.unwrap_err().to_string().contains("not the name of an image"));
}

#[test]
fn mistakes_are_shown_in_their_place() {
    for (from, to, parts) in [
        ("id = \"one\"", "id = \"One\"", ["p0.toml:2:6", "not a profile id"].as_slice()),
        (
            "id = \"one\"",
            "id = \"one\"\nidel_timeout = \"1m\"",
            &["p0.toml:3:1", "did you mean `idle_timeout`?"],
        ),
        ("\"512m\"", "512", &["`512` has no unit", "p0.toml:8:36"]),
        ("\"512m\"", "\"1m\"", &["from 32m to 4t", "p0.toml:8:36"]),
        ("cpus = 0.5", "cpus = 0.0", &["from 0.01", "p0.toml:8:22"]),
        ("cpus = 0.5", "cpus = nan", &["from 0.01", "p0.toml:8:22"]),
        (
            "\"adapter-ship\"",
            "\"adapter-shop\"",
            &["there is no adapter", "did you mean `adapter-ship`?", "p0.toml:5:11"],
        ),
        (
            "[\"python\",",
            "[\"browser\",",
            &["does not offer `browser`", "it offers `filesystem`", "p0.toml:6:17"],
        ),
        (
            "primary_for = [\"filesystem\"]",
            "primary_for = [\"shell\"]",
            &["not among its capabilities", "p0.toml:7:16"],
        ),
        ("\"egress\"", "\"everything\"", &["unknown variant", "`internal`", "p0.toml:9:11"]),
        ("name = \"ship\"", "name = \"../ship\"", &["not a container name", "p0.toml:4:8"]),
        (
            "name = \"ship\"",
            "name = \"ship\"\nenv = { \"A B\" = \"1\" }",
            &["not a name of a variable", "p0.toml:5"],
        ),
        ("name = \"ship\"", "name = \"ship\"\nport = 0", &["no port", "p0.toml:5:8"]),
        (
            "name = \"ship\"",
            "name = \"ship\"\nlocal = { rootfs = \"x/y\" }",
            &["absolute path", "p0.toml:5:20"],
        ),
        (
            "id = \"one\"",
            "id = \"one\"\nrules = [\"x\"]",
            &["there is no rules plugin `x`", "there are `acme-guard`"],
        ),
        (
            "id = \"one\"",
            "id = \"one\"\nrules = [\"acme-guard\", \"acme-guard\"]",
            &["listed twice", "p0.toml:3:24"],
        ),
        ("id = \"one\"", "id = \"one\"\nrouter = \"r\"", &["there is no router `r`", "p0.toml:3:10"]),
        ("id = \"one\"", "id = \"one\"\nidle_timeout = \"0s\"", &["at once", "p0.toml:3:16"]),
        ("id = \"one\"\n", "", &["missing field `id`"]),
        (
            "[\"python\", \"filesystem\"]\nprimary_for = [\"filesystem\"]",
            "[]",
            &["never used", "p0.toml:6:16"],
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let text = refused(&[&GOOD.replace(from, to)], &[]);
        for part in parts {
            assert!(text.contains(part), "{to}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn two_containers_cannot_be_primary_for_one_thing_nor_share_a_name() {
    let second = r#"
[[container]]
name = "ship"
adapter = "adapter-other"
capabilities = ["filesystem"]
primary_for = ["filesystem"]
"#;
    let text = refused(&[&format!("{GOOD}{second}")], &[]);
    assert!(
        text.contains("`ship` is primary for `filesystem` already") && text.contains("p0.toml:15:15"),
        "{text}"
    );
    assert!(text.contains("two containers are called `ship`"), "{text}");
    let fine = second.replace("primary_for = [\"filesystem\"]", "").replace("\"ship\"", "\"other\"");
    build(&[&format!("{GOOD}{fine}")], &[]).unwrap();
}

#[test]
fn one_id_is_one_profile_and_every_mistake_is_told_at_once() {
    let text = refused(&[GOOD, GOOD, "id = 5"], &["id = \"Not a tenant\""]);
    for part in
        ["defined in p0.toml already", "p1.toml:2:6", "p2.toml:1:6", "t0.toml:1:6", "not a tenant name"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_tenant_uses_what_its_file_says_and_one_without_a_file_everything() {
    let two = GOOD.replace("\"one\"", "\"acme-two\"");
    let file = r#"
id = "acme"
profiles = ["acme-*"]
default_profile = "acme-two"
[plugins.acme-guard]
config = { blocked_words = ["rm -rf /"] }
"#;
    let set = build(&[GOOD, &two], &[file]).unwrap();
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert!(set.get(&acme, "one").is_none());
    assert_eq!(set.default_for(&acme).unwrap().id, "acme-two");
    assert_eq!(set.list(&acme).len(), 1);
    assert_eq!(set.list(&other).len(), 2);
    let [(who, plugin, config)] = &set.tenant_plugins()[..] else { panic!("one plugin") };
    assert_eq!((who, plugin.as_str()), (&acme, "acme-guard"));
    assert_eq!(config["blocked_words"][0], "rm -rf /");
    for (from, to, part) in [
        ("[\"acme-*\"]", "[\"acne-*\"]", "there is no profile `acne-*`"),
        ("[\"acme-*\"]", "[\"one\"]", "may not use its default profile"),
        ("\"acme-two\"", "\"three\"", "there is no profile `three`"),
        ("plugins.acme-guard", "plugins.acme-gard", "did you mean `acme-guard`?"),
        ("{ blocked_words = [\"rm -rf /\"] }", "1", "write a table"),
    ] {
        let text = refused(&[GOOD, &two], &[&file.replace(from, to)]);
        assert!(text.contains(part) && text.contains("t0.toml"), "{to}: {text}");
    }
}

#[test]
fn a_directory_is_read_with_its_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("one.toml", GOOD);
    write(".hidden.toml", "not toml at all");
    write("README.md", "nor this");
    std::fs::create_dir(dir.path().join("directory.toml")).unwrap();
    assert_eq!(ProfileSet::load(Some(dir.path()), &known()).unwrap().all().count(), 1);
    std::fs::create_dir(dir.path().join("tenants")).unwrap();
    write("tenants/acme.toml", "id = \"acme\"\nprofiles = []");
    let set = ProfileSet::load(Some(dir.path()), &known()).unwrap();
    assert!(set.list(&tenant("acme")).is_empty());
    write("bad.toml", "id =");
    let text = ProfileSet::load(Some(dir.path()), &known()).unwrap_err().to_string();
    assert!(text.contains("bad.toml:1:5"), "{text}");
}

#[test]
fn a_directory_that_is_missing_or_empty_is_said() {
    let text = ProfileSet::load(Some(Path::new("/nonexistent")), &known()).unwrap_err().to_string();
    assert!(text.contains("cannot read profiles from /nonexistent"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let text = ProfileSet::load(Some(dir.path()), &known()).unwrap_err().to_string();
    assert!(text.contains("there is no profile"), "{text}");
}

#[test]
fn patterns() {
    for (pattern, text) in
        [("*", "x"), ("*", ""), ("a", "a"), ("a-*", "a-b"), ("*-b", "a-b"), ("a*c*e", "abcde"), ("a**", "a")]
    {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in
        [("a", "ab"), ("a-*", "a"), ("*-b", "a-c"), ("a*a", "a"), ("", "a"), ("a*c*e", "aec")]
    {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

#[test]
fn a_tenants_file_bounds_what_it_may_have() {
    let file = "id = \"acme\"\nmax_ttl = \"1h\"\n[quota]\nsandboxes = 3\nstreams = \"unlimited\"\nrequests_per_second = 5";
    let set = build(&[&format!("max_ttl = \"1d\"\n{GOOD}")], &[file]).unwrap();
    let all =
        QuotaConfig { sandboxes: Some(Bound::At(7)), running: Some(Bound::At(2)), ..QuotaConfig::default() };
    let quotas = set.quotas(all);
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert_eq!(quotas.of(&acme).of(Quota::Sandboxes), Some(3));
    assert_eq!(quotas.of(&acme).of(Quota::Running), Some(2));
    assert_eq!(quotas.of(&acme).of(Quota::Streams), None);
    assert_eq!(quotas.of(&other).of(Quota::Sandboxes), Some(7));
    assert_eq!(set.rate(&acme, all).map(|rate| rate.burst.get()), Some(5));
    assert_eq!(set.rate(&other, all), None);
    let profile = set.get(&acme, "one").unwrap();
    assert_eq!(set.max_ttl(&acme, &profile).map(|ttl| ttl.as_secs()), Some(3600));
    assert_eq!(set.max_ttl(&other, &profile).map(|ttl| ttl.as_secs()), Some(86_400));
    for (from, to, parts) in [
        ("sandboxes = 3", "sandboxes = -3", ["cannot be negative", "t0.toml:4:13"]),
        ("sandboxes = 3", "sandbox = 3", ["did you mean `sandboxes`?", "t0.toml:4:1"]),
        ("_second = 5", "_second = 0", ["at least 1", "t0.toml:6:23"]),
        ("\"1h\"", "\"0s\"", ["at once", "t0.toml:2:11"]),
    ] {
        let text = refused(&[GOOD], &[&file.replace(from, to)]);
        for part in parts {
            assert!(text.contains(part), "{to}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn one_file_is_checked_alone_and_a_tenants_with_its_profiles() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tenants")).unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = write("one.toml", GOOD);
    write("bad.toml", "id =");
    assert_eq!(ProfileSet::load_file(&good, &known()).unwrap().all().count(), 1);
    let acme = write("tenants/acme.toml", "id = \"acme\"\nprofiles = [\"one\"]");
    let text = ProfileSet::load_file(&acme, &known()).unwrap_err().to_string();
    assert!(text.contains("bad.toml:1:5"), "{text}");
    std::fs::remove_file(dir.path().join("bad.toml")).unwrap();
    let set = ProfileSet::load_file(&acme, &known()).unwrap();
    assert_eq!(set.tenants().map(Tenant::as_str).collect::<Vec<_>>(), ["acme"]);
}
