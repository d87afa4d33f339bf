//! Which role and version of the interface a component speaks, read from its export names before anything is
//! compiled, so that a mismatch is told in words and not by a linker.

use wasmparser::{Encoding, Parser, Payload};

/// The versions this Bay speaks: one folder beneath `wit/` each.
pub(crate) const SPOKEN: &[&str] = &["0.1.0"];

/// What Bay's package is called in WIT.
const PACKAGE: &str = "bay:plugin/";
/// The interfaces that WASI 0.2 has and an empty context can serve.
const WASI: &[&str] =
    &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// Longest name that is repeated in a message.
const MAX_NAME: usize = 200;

/// The three roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Rules,
    Router,
    Adapter,
}

/// Reads the role, or says what is missing, newer or unknown.
pub(crate) fn role(component: &[u8]) -> Result<Role, String> {
    let names = root_names(component)?;
    let mut roles = Vec::new();
    for export in &names.exports {
        let Some(rest) = export.strip_prefix(PACKAGE) else { continue };
        roles.push(spoken_role(rest)?);
    }
    let role = match roles.as_slice() {
        [] => return Err(no_role(&names.exports)),
        [role] => *role,
        _ => return Err("exports several roles of `bay:plugin`; one component plays one role".into()),
    };
    match names.imports.iter().find(|i| !provided(i)) {
        Some(import) => Err(format!(
            "imports `{}`, which Bay does not provide: a plugin may import only `bay:plugin/types@{}` and WASI 0.2",
            shown(import),
            SPOKEN.join("`, `bay:plugin/types@"),
        )),
        None => Ok(role),
    }
}

/// `rest` is what follows the package's name, for instance `rules@0.1.0`.
fn spoken_role(rest: &str) -> Result<Role, String> {
    let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
    let role = match name {
        "rules" => Role::Rules,
        "router" => Role::Router,
        "adapter" => Role::Adapter,
        _ => {
            return Err(format!(
                "exports `{PACKAGE}{}`, a role that Bay does not know; it knows `rules`, `router` and `adapter`",
                shown(rest)
            ));
        }
    };
    if SPOKEN.contains(&version) {
        return Ok(role);
    }
    let spoken = SPOKEN.join(", ");
    if version.is_empty() {
        return Err(format!("exports `{PACKAGE}{name}` without a version; Bay speaks {spoken}"));
    }
    let advice = match (parse(version), SPOKEN.iter().filter_map(|v| parse(v)).max()) {
        (Some(theirs), Some(ours)) if theirs > ours => {
            "upgrade Bay, or build the plugin against an older `wit/` folder"
        }
        _ => "build the plugin against a `wit/` folder of this Bay",
    };
    Err(format!("speaks version {} of `{PACKAGE}{name}`; this Bay speaks {spoken}: {advice}", shown(version)))
}

fn no_role(exports: &[String]) -> String {
    let found = match exports {
        [] => "nothing".to_owned(),
        some => some.iter().take(5).map(|e| format!("`{}`", shown(e))).collect::<Vec<_>>().join(", "),
    };
    format!(
        "is a component but not a plugin: it must export one of `bay:plugin/rules`, `bay:plugin/router`, \
         `bay:plugin/adapter`, version {}; it exports {found}",
        SPOKEN.join(" or "),
    )
}

fn provided(import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    if name == "bay:plugin/types" {
        return SPOKEN.contains(&version);
    }
    WASI.iter().any(|w| name.starts_with(w)) && version.starts_with("0.2.")
}

fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.split(['-', '+']).next()?.split('.').map(|p| p.parse::<u64>().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// A name whose version was split in two, as newer tools may do, in one piece.
fn full(name: wasmparser::ComponentExternName<'_>) -> String {
    format!("{}{}", name.name, name.version_suffix.unwrap_or_default())
}

#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Import and export names at the component's root; whatever is nested is skipped unread.
fn root_names(bytes: &[u8]) -> Result<Names, String> {
    let bad = |e: wasmparser::BinaryReaderError| format!("is not a WebAssembly component: {e}");
    let mut parser = Parser::new(0);
    let mut names = Names::default();
    let mut rest = bytes;
    loop {
        let (consumed, payload) = match parser.parse(rest, true).map_err(bad)? {
            wasmparser::Chunk::Parsed { consumed, payload } => (consumed, payload),
            wasmparser::Chunk::NeedMoreData(_) => return Err("is cut off in the middle".into()),
        };
        rest = rest.get(consumed..).unwrap_or_default();
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                return Err("is a core module, not a component: build it for `wasm32-wasip2`".into());
            }
            Payload::ModuleSection { unchecked_range, .. }
            | Payload::ComponentSection { unchecked_range, .. } => {
                let length = unchecked_range.end.saturating_sub(unchecked_range.start);
                // The parser has counted them already: it expects what follows.
                rest = rest.get(length..).ok_or("is cut off in the middle")?;
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    names.imports.push(full(import.map_err(bad)?.name));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    names.exports.push(full(export.map_err(bad)?.name));
                }
            }
            Payload::End(_) => return Ok(names),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "version_tests.rs"]
mod tests;
