//! Just enough of Rust's syntax to tell code from text.

use std::path::Path;

/// The source with comments and the inside of literals blanked, line for line.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        // The end of a name is not the beginning of a raw string: `bar"` is no `r"`.
        let in_name = is_word(previous) && is_word(first);
        let length = if in_name { None } else { text_length(rest) };
        let (piece, after) = rest.split_at(length.unwrap_or(first.len_utf8()));
        if length.is_some() {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            previous = ' ';
        } else {
            out.push(first);
            previous = first;
        }
        rest = after;
    }
    out
}

/// The length of the comment or literal that begins here, if one does.
fn text_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if let Some(body) = rest.strip_prefix('"') {
        return Some(1 + quoted(body, '"'));
    }
    if let Some(after) = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if let Some(body) = after[hashes..].strip_prefix('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let before = rest.len() - body.len();
            return Some(before + body.find(&close).map_or(body.len(), |at| at + close.len()));
        }
    }
    character(rest)
}

/// A character literal, as opposed to a lifetime.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    if body.starts_with('\\') {
        return Some(1 + quoted(body, '\''));
    }
    let first = body.chars().next()?;
    body[first.len_utf8()..].starts_with('\'').then(|| 2 + first.len_utf8())
}

/// Bytes up to and with the closing quote.
fn quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + character.len_utf8(),
            _ => {}
        }
    }
    body.len()
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// True where `word` stands as a whole word.
pub(crate) fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// True where a function called `name` is called, not where one is defined.
pub(crate) fn calls(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = &line[..at];
        let whole = !before.chars().next_back().is_some_and(is_word);
        whole && line[at + name.len()..].starts_with('(') && !before.ends_with("fn ")
    })
}

/// True for a file that holds nothing but tests.
pub(crate) fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    // Benches measure time, so they may let it pass.
    let bench = path.starts_with("tests/bench");
    !bench
        && (path.components().any(|part| part.as_os_str() == "tests")
            || stem == "tests"
            || stem.ends_with("_tests")
            || stem.ends_with("_test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked_and_lines_stay() {
        let text = "let a = \"x\\\"y\"; // z\nlet b = r#\"\"q\"#; let c = '\"'; let d: &'static str = b\"s\";\n/* e /* f */ g */ let h = 1;";
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count());
        for gone in ["x", "y", "z", "q", "f", "s\""] {
            let left = code.replace("static str", "");
            assert!(!left.contains(gone), "{gone} is left in {code:?}");
        }
        assert!(code.contains("let c = ") && code.contains("&'static str") && code.contains("let h = 1;"));
    }

    #[test]
    fn a_name_that_ends_in_r_begins_no_raw_string() {
        let code = code_only("m!(bar\"in\"); car(\"in\"); after()");
        assert!(!code.contains("in"), "{code}");
        assert!(code.contains("after()"));
    }

    #[test]
    fn only_whole_words_count() {
        assert!(names("use wasmtime::Engine;", "wasmtime"));
        assert!(!names("use wasmtime_like::Engine;", "wasmtime"));
        assert!(calls("std::thread::sleep(x)", "sleep"));
        assert!(!calls("fn sleep(x: u8) {}", "sleep"));
        assert!(!calls("Action::Sleep(5)", "sleep"));
    }
}
