use std::path::{Path, PathBuf};

use super::*;

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bay.toml");
    std::fs::write(&path, toml).unwrap();
    let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    let home = [("HOME".to_string(), "/home/someone".to_string())];
    Config::load(Some(&path), home.into_iter().chain(env), &Flags::default())
}

/// The error without the directory, which differs from run to run.
fn refused(toml: &str, env: &[(&str, &str)]) -> String {
    let text = load(toml, env).expect_err(toml).to_string();
    let cut = |line: &str| match line.split_once("--> ") {
        Some((before, path)) => format!("{before}--> {}", path.rsplit('/').next().unwrap()),
        None => line.trim_end().to_owned(),
    };
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_at_all_is_a_good_configuration() {
    let home = [("HOME".to_owned(), "/home/someone".to_owned())];
    let config = Config::load(None, home, &Flags::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8114");
    assert!(!config.server.allow_anonymous);
    assert_eq!(config.sessions.start_wait, Span::secs(30));
    assert_eq!(config.server.max_body, Size::mib(8));
    assert!(config.data_dir.is_absolute(), "{:?}", config.data_dir);
}

#[test]
fn a_user_keeps_data_at_home() {
    let vars = |list: &[(&str, &str)]| -> Vec<_> {
        list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    assert_eq!(data_home(&vars(&[("HOME", "/home/a")])), Some(PathBuf::from("/home/a/.local/share")));
    assert_eq!(data_home(&vars(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "/data")])), Some("/data".into()));
    assert_eq!(
        data_home(&vars(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "rel")])),
        Some("/home/a/.local/share".into())
    );
    assert_eq!(data_home(&vars(&[("XDG_DATA_HOME", "")])), None);
}

#[test]
fn the_file_then_the_environment_then_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bay.toml");
    let toml = r#"
        data_dir = "data"
        profiles_dir = "profiles"
        [server]
        listen = "127.0.0.1:1"
        hosts = ["bay.example.org"]
        [plugins.acme]
        path = "acme.wasm"
        config = { words = ["x"] }
    "#;
    std::fs::write(&path, toml).unwrap();
    let env = [
        ("BAY_SERVER__LISTEN", "127.0.0.1:2"),
        ("BAY_SERVER__ALLOW_ANONYMOUS", "true"),
        ("BAY_SESSIONS__START_WAIT", "5s"),
        ("BAY_HISTORY__PER_SANDBOX", "7"),
        ("BAY_SERVER__HOSTS", r#"["a.example", "b.example"]"#),
        ("BAY_LOG__LEVEL", "5"),
        ("BAY_PROFILES_DIR", "elsewhere"),
        ("BAY_API_KEY", "not ours to read"),
        ("BAY_TEST_BIN", "nor this"),
        ("OTHER__THING", "nor this"),
    ];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let flags = Flags { data_dir: Some("/flag".into()), listen: Some("127.0.0.1:3".parse().unwrap()) };
    let config = Config::load(Some(&path), env.clone(), &flags).unwrap();
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.server.listen.port(), 3);
    let config = Config::load(Some(&path), env, &Flags::default()).unwrap();
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.server.listen.port(), 2);
    assert!(config.server.allow_anonymous);
    assert_eq!(config.sessions.start_wait, Span::secs(5));
    assert_eq!(config.history.per_sandbox, 7);
    assert_eq!(config.server.hosts, ["a.example", "b.example"]);
    assert_eq!(config.log.level, "5");
    assert_eq!(config.profiles_dir.as_deref(), Some(Path::new("elsewhere")));
    assert_eq!(config.plugins["acme"].path, Some(dir.path().join("acme.wasm")));
    assert_eq!(config.plugins["acme"].config["words"][0], "x");
}

#[test]
fn a_mistake_is_shown_in_its_place_with_what_to_write() {
    let text = refused("[server]\nlissen = \"127.0.0.1:1\"\n", &[]);
    for part in ["unknown field `lissen`", "bay.toml:2:1", "lissen = ", "^^^^^^", "did you mean `listen`?"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = refused("[sessions]\n\nstart_wait = 30\n", &[]);
    for part in ["`30` has no unit: write `30s`", "bay.toml:3:14", "^^ sessions.start_wait"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = refused("[server\nlisten = 1", &[]);
    assert!(text.contains("bay.toml:1:8"), "{text}");
    let text = refused("[log]\nformat = \"jsn\"\n", &[]);
    assert!(text.contains("did you mean `json`?") && text.contains("bay.toml:2:10"), "{text}");
    let text = refused("[server]\nlisten = \"localhost\"\n", &[]);
    assert!(text.contains("bay.toml:2:10") && text.contains("socket address"), "{text}");
    let text = refused("data_dir = \"\u{e4}\"\n[driver]\nkind = \"podman\"\n", &[]);
    assert!(text.contains("bay.toml:3:8") && text.contains("`local`"), "{text}");
}

#[test]
fn checks_beyond_types_point_into_the_file_too() {
    let text = refused("[server]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = true\n", &[]);
    for part in ["loopback", "bay.toml:3:19", "listen = \"127.0.0.1:80\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (toml, part) in [
        ("[server]\nmax_body = \"1g\"", "from 1m to 64m"),
        ("[server]\nmax_upload = \"2g\"", "from 1m to 1g"),
        ("[sessions]\nstart_wait = \"0s\"", "from 1s"),
        ("[server]\nhosts = [\"http://x\"]", "write the name alone"),
        ("[plugins.rules-defalt]\nenabled = true", "did you mean `rules-default`?"),
        ("[plugins.mine]\nconfig = { a = 1 }", "path = "),
        ("[plugins.mine]\npath = \"x\"\nconfig = 5", "must be a table"),
        ("[plugins.Mine]\npath = \"x\"", "not a plugin name"),
        ("[history]\nper_sandbox = 0", "at least 1"),
    ] {
        let text = refused(toml, &[]);
        assert!(text.contains(part) && text.contains("bay.toml:"), "{toml}: {text}");
    }
}

#[test]
fn a_default_plugin_may_be_configured_or_taken_away_without_a_path() {
    let config =
        load("[plugins.rules-default]\nconfig = { a = 1 }\n[plugins.adapter-ship]\nenabled = false", &[]);
    let config = config.unwrap();
    assert!(config.plugins["rules-default"].enabled);
    assert!(!config.plugins["adapter-ship"].enabled);
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, part) in [
        ("BAY_SERVER__LISSEN", "127.0.0.1:1", "unknown field `lissen`"),
        ("BAY_SERVER__LISTEN", "nowhere", "socket address"),
        ("BAY_SESSIONS__START_WAIT", "30", "write `30s`"),
        ("BAY_SERVER____X", "1", "empty"),
        ("BAY_NO__SUCH", "1", "unknown field `no`"),
        ("BAY_SERVER__LISTEN__DEEP", "1", "not a table"),
    ] {
        let text = refused("[server]\nlisten = \"127.0.0.1:1\"", &[(name, value)]);
        assert!(text.contains(name) && text.contains(part), "{name}: {text}");
    }
    let text = refused("", &[("BAY_SERVER__ALLOW_ANONYMOUS", "true"), ("BAY_SERVER__LISTEN", "0.0.0.0:1")]);
    assert!(text.contains("server.allow_anonymous") && text.contains("loopback"), "{text}");
}

#[test]
fn a_file_that_is_not_there_or_is_no_configuration_is_said_plainly() {
    let missing = Config::load(Some(Path::new("/nonexistent/bay.toml")), [], &Flags::default()).unwrap_err();
    assert!(missing.to_string().contains("cannot read /nonexistent/bay.toml"), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.toml");
    std::fs::write(&path, "#".repeat(2 << 20)).unwrap();
    let big = Config::load(Some(&path), [], &Flags::default()).unwrap_err();
    assert!(big.to_string().contains("larger than 1 MiB"), "{big}");
}

/// The example, as it stands.
const EXAMPLE: &str = include_str!("../../../bay.example.toml");

/// The example with every setting switched on: those are the lines of which `#` is followed by no space.
fn switched_on() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
}

/// Every key that a table at `at` may have, from what serde says to one that it may not have; none where it is no table
/// of fixed keys.
fn keys_of(at: &str) -> Option<Vec<String>> {
    let text = if at.is_empty() { "zzz = 1".to_owned() } else { format!("[{at}]\nzzz = 1") };
    let error = TomlFile::of("x", text).parse::<Config>().expect_err(at).to_string();
    let known = error.split_once("unknown field `zzz`, expected ")?.1.lines().next()?.to_owned();
    Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

#[test]
fn the_example_says_every_key_there_is_and_is_good() {
    let table: Table = toml::from_str(&switched_on()).unwrap();
    for section in keys_of("").unwrap() {
        assert!(table.contains_key(&section), "the example has no {section}");
        let at = if section == "plugins" { "plugins.acme-guard" } else { section.as_str() };
        let Some(keys) = keys_of(at) else { continue };
        let place = at.split('.').try_fold(&table, |table, key| table.get(key)?.as_table()).unwrap();
        for key in keys {
            assert!(place.contains_key(&key), "the example has no {at}.{key}");
        }
    }
    TomlFile::of("bay.example.toml", EXAMPLE).parse::<Config>().unwrap();
    let config: Config = TomlFile::of("bay.example.toml", switched_on()).parse().unwrap();
    config.check().map_err(|wrong| wrong.message).unwrap();
}

#[test]
fn what_the_example_shows_is_what_holds() {
    // Those that hold only when they are set.
    const SHOWN: [&str; 7] = ["data_dir", "profiles_dir", "quota", "plugins", "plugin_limits", "ship", "tls"];
    let mut table: Table = toml::from_str(&switched_on()).unwrap();
    for key in SHOWN {
        table.remove(key).expect(key);
    }
    for (section, key) in
        [("docker", "host"), ("server", "ops_listen"), ("server", "connections_per_address")]
    {
        table[section].as_table_mut().unwrap().remove(key).expect(key);
    }
    let shown: Config = table.try_into().unwrap();
    assert_eq!(format!("{shown:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn secrets_come_from_files_and_stay_out_of_messages() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let listen = at("listen", "127.0.0.1:9\n");
    let level = at("level", "debug\r\n");
    let vars = [("BAY_SERVER__LISTEN_FILE", listen.as_str()), ("BAY_LOG__LEVEL_FILE", level.as_str())];
    let config = load("", &vars).unwrap();
    assert_eq!((config.server.listen.port(), config.log.level.as_str()), (9, "debug"));
    for (name, value, part) in [
        ("BAY_SERVER__LISTEN_FILE", "/does/not/exist", "cannot read /does/not/exist"),
        ("BAY_SERVER__NOPE_FILE", listen.as_str(), "unknown field `nope`"),
    ] {
        let text = refused("", &[(name, value)]);
        assert!(text.contains(part) && text.contains(name), "{text}");
    }

    let secret = at("guard.toml", "token = \"hush\"");
    let toml =
        format!("[plugins.rules-default]\nconfig = {{ token = \"\", a = 1 }}\nconfig_file = \"{secret}\"");
    let config = load(&toml, &[]).unwrap();
    assert_eq!(config.plugins["rules-default"].config, serde_json::json!({ "token": "hush", "a": 1 }));
    assert!(!format!("{config:?}").contains("hush"));
    at("guard.toml", "token = hush");
    let text = refused(&toml, &[]);
    assert!(text.contains("is not TOML") && !text.contains("hush"), "{text}");
}

#[test]
fn a_quota_of_all_is_checked_in_its_place() {
    let config =
        load("[quota]\nsandboxes = 5\nrunning = \"unlimited\"", &[("BAY_QUOTA__BURST", "7")]).unwrap();
    assert_eq!(config.quota.sandboxes, Some(Bound::At(5)));
    assert_eq!(config.quota.burst, Some(Bound::At(7)));
    let text = refused("[quota]\nrequests_per_second = 0", &[]);
    assert!(text.contains("at least 1") && text.contains("bay.toml:2:23"), "{text}");
    let text = refused("[quota]\nsandbox = 0", &[]);
    assert!(text.contains("did you mean `sandboxes`?"), "{text}");
}

#[test]
fn the_listener_has_bounds_and_says_what_is_wrong() {
    let good = "[server]\nops_listen = \"127.0.0.1:0\"\nidle_timeout = \"2m\"\ncors_origins = [\"https://a.example\"]\n\
                [tls]\ncert = \"c.pem\"\nkey = \"k.pem\"";
    let config = load(good, &[]).unwrap();
    assert_eq!(config.server.idle_timeout, Span::secs(120));
    assert!(config.tls.cert.is_some_and(|path| path.is_absolute()), "relative to the file");
    for (toml, words) in [
        ("[server]\nops_listen = \"0.0.0.0:9114\"", "loopback address"),
        ("[server]\nconnections = 0", "from 1 to"),
        ("[server]\nhead_timeout = \"0s\"", "from 1s to 300s"),
        ("[server]\ncors_origins = [\"*\"]", "is not an origin"),
        ("[server]\ncors_origins = [\"https://a.example/\"]", "is not an origin"),
        ("[tls]\ncert = \"c.pem\"", "is needed beside tls.cert"),
        ("[tls]\nkey = \"k.pem\"", "is needed beside tls.key"),
    ] {
        let text = refused(toml, &[]);
        assert!(text.contains(words), "{toml}: {text}");
    }
}
