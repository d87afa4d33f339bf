//! The environment over the file: `BAY_SERVER__LISTEN` is `listen` in `[server]`, `BAY_SERVER__LISTEN_FILE` a file with
//! its value.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::ConfigError;
use super::secrets;
use super::sections::Config;

const PREFIX: &str = "BAY_";
/// Keys outside any table, which have no `__` to tell them from variables of other tools.
const TOP_LEVEL: [&str; 2] = ["BAY_DATA_DIR", "BAY_PROFILES_DIR"];

/// Lays every `BAY_…` variable that names a key over `table`. An unknown key or a bad value names the variable.
pub(super) fn apply(
    mut table: Table,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    // In the order of their names, whatever order the environment has.
    let vars: BTreeMap<String, String> = env.into_iter().filter(|(name, _)| is_ours(name)).collect();
    for (name, text) in vars {
        table = set_or_read(&table, &name, &text).map_err(|message| ConfigError::Env { name, message })?;
    }
    Ok(table)
}

fn is_ours(name: &str) -> bool {
    TOP_LEVEL.contains(&name)
        || name.strip_prefix(PREFIX).is_some_and(|key| key.contains("__") && !key.starts_with("TEST_"))
}

/// A variable whose name is no key's but for a `_FILE` at its end names the file that holds the value.
fn set_or_read(table: &Table, name: &str, text: &str) -> Result<Table, String> {
    let key = name.strip_suffix("_FILE").filter(|key| is_ours(key));
    match (set(table, name, text), key) {
        (Err(_), Some(key)) => set(table, key, &secrets::read(text.as_ref())?),
        (result, _) => result,
    }
}

/// The table with one variable set, the first way that fits the key's type: `5` can be a number or a text.
fn set(table: &Table, name: &str, text: &str) -> Result<Table, String> {
    let path: Vec<String> =
        name.trim_start_matches(PREFIX).split("__").map(str::to_ascii_lowercase).collect();
    if path.iter().any(String::is_empty) {
        return Err("a part of the name is empty".to_owned());
    }
    let mut first_error = None;
    for value in readings(text) {
        let mut candidate = table.clone();
        put(&mut candidate, &path, value)?;
        match check(candidate.clone()) {
            Ok(()) => return Ok(candidate),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_default())
}

/// What a variable's text may mean: a TOML value that is not a text, or the text itself.
fn readings(text: &str) -> impl Iterator<Item = Value> {
    let typed = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .filter(|value| !value.is_str() && !value.is_datetime());
    typed.into_iter().chain(std::iter::once(Value::String(text.to_owned())))
}

fn put(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, parents)) = path.split_last() else { return Ok(()) };
    let mut place = table;
    for parent in parents {
        place = place
            .entry(parent)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{parent}` is not a table"))?;
    }
    place.insert(last.clone(), value);
    Ok(())
}

/// Whether the whole is still a configuration; the file's part of it was before.
fn check(table: Table) -> Result<(), String> {
    serde_path_to_error::deserialize::<_, Config>(table)
        .map(|_| ())
        .map_err(|error| error.inner().message().to_owned())
}
