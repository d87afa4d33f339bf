// Ways to misbehave that every role has; included by each hostile component.

/// The configuration's `mode`.
fn mode(config: &str) -> String {
    let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
    config["mode"].as_str().unwrap_or("behave").to_owned()
}

#[allow(clippy::disallowed_methods, reason = "to misbehave is what this is for")]
/// Misbehaves, where `mode` is one of the common ways; returns otherwise.
fn misbehave(mode: &str) {
    match mode {
        "trap" => panic!("trapped as asked"),
        "spin" => loop {
            std::hint::black_box(());
        },
        "alloc" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "recurse" => {
            std::hint::black_box(recurse(0));
        }
        // Waits in the host, where no epoch reaches.
        "block" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        _ => {}
    }
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "to misbehave is what this is for")]
fn recurse(n: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(n) + 1)) + 1
}

/// 100 MB, made at one go: a copy would already be over the memory bound.
fn huge() -> String {
    String::from_utf8(vec![b'x'; 100_000_000]).unwrap_or_default()
}

/// Larger than an answer may be, smaller than memory.
fn large() -> String {
    String::from_utf8(vec![b'x'; 30_000_000]).unwrap_or_default()
}

/// Nested deeper than anything sane.
#[allow(dead_code, reason = "a router answers no JSON")]
fn deep() -> String {
    format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))
}
