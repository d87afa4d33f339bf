//! Values that stand in files of their own, as containers are given secrets. What is in one is never in a message.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::sections::PluginConfig;
use super::toml_file::TomlError;

/// Largest such file: a mistaken path to something huge is refused rather than read.
const MAX_SECRET: u64 = 64 << 10;

/// A file's text without the line ends at its end.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut text = String::new();
    File::open(path).map_err(cannot)?.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_SECRET {
        return Err(format!("{} is larger than 64 KiB", path.display()));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

/// Lays what plugins' files say over their configuration.
pub(super) fn lay_over(plugins: &mut BTreeMap<String, PluginConfig>) -> Result<(), TomlError> {
    for plugin in plugins.values_mut().filter(|plugin| plugin.enabled) {
        let (Some(path), Value::Object(config)) = (&plugin.config_file, &mut plugin.config) else { continue };
        let text = read(path).map_err(|why| TomlError { rendered: format!("error: {why}") })?;
        // The parser's own message would show the line.
        let more: Map<String, Value> = toml::from_str(&text).map_err(|_| TomlError {
            rendered: format!(
                "error: {} is not TOML; what is in it may be secret and is not shown",
                path.display()
            ),
        })?;
        config.extend(more);
    }
    Ok(())
}
