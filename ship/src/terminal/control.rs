//! What a client's text frames mean. Without I/O.

use serde::Deserialize;

/// Most columns or rows: a program that keeps a whole screen in memory pays for each cell.
pub(crate) const MAX_SIDE: u16 = 1000;

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It offered `bay.terminal.v1`: binary frames are input, text frames are control messages.
    V1,
    /// It offered nothing of ours: text frames are input too, unless they are a `resize`.
    Plain,
}

/// A terminal's size in characters, each side in 1..=[`MAX_SIDE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    cols: u16,
    rows: u16,
}

impl Size {
    /// `None` where a side is out of bounds.
    pub(crate) fn new(cols: u16, rows: u16) -> Option<Self> {
        let fits = |side| (1..=MAX_SIDE).contains(&side);
        (fits(cols) && fits(rows)).then_some(Self { cols, rows })
    }

    pub(super) fn cols(self) -> u16 {
        self.cols
    }

    pub(super) fn rows(self) -> u16 {
        self.rows
    }
}

/// A text frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// The window has another size now.
    Resize(Size),
    /// A control message of a type unknown here, or a size no terminal can have (a browser's hidden pane has one).
    Ignored,
    /// Bytes for the program.
    Input,
    /// With the subprotocol: no JSON object that names its type.
    Malformed,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Resize {
    cols: u16,
    rows: u16,
}

impl Text {
    /// Reads a frame.
    pub(super) fn read(text: &str, mode: Mode) -> Self {
        // Only objects: serde would take an array for a struct, too.
        let object = text.trim_start().starts_with('{');
        let kind = object.then(|| serde_json::from_str::<Kind>(text).ok()).flatten();
        match (kind, mode) {
            (Some(Kind { kind }), _) if kind == "resize" => serde_json::from_str::<Resize>(text)
                .ok()
                .and_then(|Resize { cols, rows }| Size::new(cols, rows))
                .map_or(Self::Ignored, Self::Resize),
            (Some(_), Mode::V1) => Self::Ignored,
            (None, Mode::V1) => Self::Malformed,
            (_, Mode::Plain) => Self::Input,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(cols: u16, rows: u16) -> Text {
        Text::Resize(Size::new(cols, rows).unwrap())
    }

    #[test]
    fn a_resize_is_one_in_both_modes() {
        for mode in [Mode::V1, Mode::Plain] {
            assert_eq!(Text::read(r#"{"type":"resize","cols":80,"rows":24}"#, mode), size(80, 24));
            assert_eq!(
                Text::read(r#" {"rows":1,"x":[{}],"cols":1000,"type":"resize"} "#, mode),
                size(1000, 1)
            );
        }
    }

    #[test]
    fn a_size_no_terminal_has_is_ignored_and_never_typed_in() {
        for rest in [
            "",
            r#","cols":80"#,
            r#","cols":0,"rows":24"#,
            r#","cols":80,"rows":1001"#,
            r#","cols":-1,"rows":24"#,
            r#","cols":80.5,"rows":24"#,
            r#","cols":"80","rows":24"#,
            r#","cols":null,"rows":null"#,
            r#","cols":99999999999999999999,"rows":24"#,
        ] {
            let text = format!(r#"{{"type":"resize"{rest}}}"#);
            assert_eq!(Text::read(&text, Mode::V1), Text::Ignored, "{text}");
            assert_eq!(Text::read(&text, Mode::Plain), Text::Ignored, "{text}");
        }
    }

    #[test]
    fn other_text_is_ignored_refused_or_input() {
        for unknown in [r#"{"type":"later","cols":"many"}"#, r#"{"type":""}"#, r#"{"type":"Resize"}"#] {
            assert_eq!(Text::read(unknown, Mode::V1), Text::Ignored, "{unknown}");
            assert_eq!(Text::read(unknown, Mode::Plain), Text::Input, "{unknown}");
        }
        let deep = "{\"type\":".repeat(5000);
        for none in ["", "ls\r", "{", "{}", "[\"resize\"]", "\"resize\"", r#"{"type":7}"#, "null", &deep] {
            assert_eq!(Text::read(none, Mode::V1), Text::Malformed, "{none}");
            assert_eq!(Text::read(none, Mode::Plain), Text::Input, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm_and_plain_text_is_never_refused(text: String) {
            let _ = Text::read(&text, Mode::V1);
            prop_assert_ne!(Text::read(&text, Mode::Plain), Text::Malformed);
        }

        #[test]
        fn near_misses_of_a_resize_never_give_a_size_out_of_bounds(
            cols in any::<i64>().prop_map(|n| n % 1200), rows in any::<i64>().prop_map(|n| n % 1200), cut in 0usize..60,
        ) {
            let whole = format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#);
            let fits = |side| (1..=1000).contains(&side);
            let read = Text::read(&whole, Mode::V1);
            prop_assert_eq!(matches!(read, Text::Resize(_)), fits(cols) && fits(rows));
            let cut = &whole[..cut.min(whole.len() - 1)];
            prop_assert_eq!(Text::read(cut, Mode::V1), Text::Malformed);
        }
    }
}
