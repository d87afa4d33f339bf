//! One binary for all targets: `BAY_FUZZ_TARGET` names the one that runs, the rest is libFuzzer's own command line.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fn target() -> bay_fuzz::Target {
    static TARGET: OnceLock<bay_fuzz::Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("BAY_FUZZ_TARGET").unwrap_or_default();
        match bay_fuzz::target(&name) {
            Some(target) => *target,
            None => panic!("BAY_FUZZ_TARGET={name:?} is no target; there are {:?}", bay_fuzz::TARGETS),
        }
    })
}

fuzz_target!(|data: &[u8]| (target().run)(data));
