//! A TOML file that is wrong is shown with file, line and caret, and what to write instead.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// Largest configuration file: a mistaken path to something huge is refused rather than read.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a file, drawn for a terminal or a log, without colours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rendered}")]
pub struct TomlError {
    /// Several lines: message, place, caret, help.
    pub rendered: String,
}

/// A file's text with its name, so that whatever is found wrong later can point into it.
#[derive(Debug, Clone)]
pub struct TomlFile {
    path: PathBuf,
    text: String,
}

impl TomlFile {
    /// Reads a file of at most 1 MiB.
    pub fn read(path: &Path) -> Result<Self, TomlError> {
        let io =
            |e: std::io::Error| TomlError { rendered: format!("error: cannot read {}: {e}", path.display()) };
        let mut text = String::new();
        File::open(path).map_err(io)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_FILE {
            let rendered =
                format!("error: {} is larger than 1 MiB, so it is no configuration", path.display());
            return Err(TomlError { rendered });
        }
        Ok(Self { path: path.to_owned(), text })
    }

    /// Text from elsewhere, under the name that errors give it.
    pub fn of(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Its path, or the name that stands for one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it as a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, TomlError> {
        let deserializer = toml::Deserializer::parse(&self.text).map_err(|e| self.draw(&e, None))?;
        serde_path_to_error::deserialize(deserializer).map_err(|e| {
            let path = e.path().to_string();
            self.draw(e.inner(), Some(path).filter(|p| p != "."))
        })
    }

    /// Something that only a later check found wrong, at the value that `at` leads to (keys, and numbers for
    /// places in arrays), or at the nearest thing around it that is there.
    pub fn wrong(&self, at: &[&str], message: &str, help: Option<&str>) -> TomlError {
        self.render(message, self.locate(at), None, help)
    }

    fn draw(&self, error: &toml::de::Error, path: Option<String>) -> TomlError {
        let message = error.message();
        let help = suggestion(message);
        self.render(message, error.span(), path.as_deref(), help.as_deref())
    }

    fn render(
        &self,
        message: &str,
        span: Option<Range<usize>>,
        label: Option<&str>,
        help: Option<&str>,
    ) -> TomlError {
        let path = self.path.display().to_string();
        let mut snippet = Snippet::source(self.text.as_str()).path(path);
        if let Some(span) = span.filter(|s| s.end <= self.text.len()) {
            // A whole table as the place of a missing key is too much to underline: its first line will do.
            let line = self.text.get(span.clone()).and_then(|t| t.find('\n'));
            let end = line.map_or(span.end, |n| span.start + n);
            snippet = snippet.annotation(AnnotationKind::Primary.span(span.start..end).label(label));
        }
        let mut group = Level::ERROR.primary_title(message).element(snippet);
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help));
        }
        TomlError { rendered: Renderer::plain().render(&[group]) }
    }

    /// Whether it has this very value.
    pub(super) fn has(&self, at: &[&str]) -> bool {
        self.walk(at).is_some_and(|(_, whole)| whole)
    }

    fn locate(&self, at: &[&str]) -> Option<Range<usize>> {
        Some(self.walk(at)?.0)
    }

    /// As far as the file goes along `at`: where that is, and whether it is the whole way.
    fn walk(&self, at: &[&str]) -> Option<(Range<usize>, bool)> {
        let table = DeTable::parse(&self.text).ok()?;
        let (first, rest) = at.split_first()?;
        let mut value = table.get_ref().get(*first)?;
        for step in rest {
            let next = match value.get_ref() {
                DeValue::Table(table) => table.get(*step),
                DeValue::Array(array) => step.parse::<usize>().ok().and_then(|i| array.get(i)),
                _ => None,
            };
            match next {
                Some(next) => value = next,
                None => return Some((value.span(), false)),
            }
        }
        Some((value.span(), true))
    }
}

/// For an unknown key or variant: the nearest of those that serde lists.
fn suggestion(message: &str) -> Option<String> {
    let (wrong, known) = message.split_once("expected").filter(|_| message.starts_with("unknown"))?;
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let wrong = quoted(wrong).into_iter().next()?;
    let known = quoted(known);
    let near = nearest(&wrong, known.iter().map(String::as_str))?;
    Some(format!("did you mean `{near}`?"))
}

/// The candidate that is a slip of the keyboard away from `wrong`.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(wrong, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            let cheapest = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            left = cheapest;
            *cell = cheapest;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
