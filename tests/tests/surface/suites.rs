//! Which tests run on which driver is written down in `.config/nextest.toml`; what it leaves out there must exist.

use std::path::Path;

#[test]
fn what_the_docker_suite_leaves_out_is_there() {
    let home = std::env::var("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR: run by cargo or nextest");
    let home = Path::new(&home);
    let text =
        std::fs::read_to_string(home.join("../.config/nextest.toml")).expect("nextest's configuration");
    let config: toml::Value = toml::from_str(&text).expect("TOML");
    let filter = config["profile"]["docker"]["default-filter"].as_str().expect("a filter");
    let named: Vec<&str> = filter.split("test(=").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(!named.is_empty(), "{filter}");
    for name in named {
        let (module, function) = name.rsplit_once("::").expect("module::function");
        let binaries = std::fs::read_dir(home.join("tests")).expect("the tests").flatten();
        let is_here = |source: &Path| {
            std::fs::read_to_string(source).is_ok_and(|text| text.contains(&format!("fn {function}(")))
        };
        let found = binaries.into_iter().any(|binary| is_here(&binary.path().join(format!("{module}.rs"))));
        assert!(found, "no test is called {name}: .config/nextest.toml would leave out nothing");
    }
}
