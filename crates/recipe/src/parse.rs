//! From text to a tree, with the TOML parser's complaints as our own.
//!
//! The parser bounds the nesting of its arrays and tables but not the length of a dotted key, whose tree it would free
//! by recursion: such keys are refused before it sees them.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Node, Table};
use crate::source::{Place, SourceId};
use crate::suggest::quoted;
use std::ops::Range;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

/// A recipe of more bytes is refused.
pub(crate) const LARGEST_FILE: usize = 1 << 18;
/// Parts of the longest sensible key, `profile.NAME.step.NAME.KEY`, and some to spare.
const MOST_KEY_PARTS: usize = 8;
/// Syntax errors behind the first few are mostly their consequences.
const MOST_SYNTAX_ERRORS: usize = 3;

/// The tree of a whole document; without one, `problems` say why.
pub(crate) fn document(text: &str, source: SourceId, problems: &mut Problems) -> Option<Table> {
    if let Some(span) = too_long_a_key(text) {
        problems.push(long_key_problem(Place::new(source, span)));
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(Table::of_toml(table.get_ref(), source));
    }
    let mut shown: Vec<Range<usize>> = Vec::new();
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let start = floor(text, span.start);
        let span = start..floor(text, span.end).max(start);
        let follows = shown.iter().any(|earlier| is_consequence(text, earlier, &span));
        if !follows && shown.len() < MOST_SYNTAX_ERRORS {
            problems.push(syntax_problem(text, error.message(), &span, source));
            shown.push(span);
        }
    }
    None
}

/// The value written at `span` of an argument; what is not TOML is taken as the string it is.
pub(crate) fn argument(text: &str, span: Range<usize>, source: SourceId) -> Node {
    let place = Place::new(source, span.clone());
    let written = &text[span.clone()];
    let parsed = match too_long_a_key(written) {
        Some(_) => None,
        None => DeValue::parse(written).ok(),
    };
    match parsed {
        Some(value) => {
            let mut node = Node::of_toml(value.get_ref(), 0..0, source);
            node.place_all(place);
            node
        }
        None => Node::of_text(written, place),
    }
}

/// Whether the error at `later` is on the line of the one at `earlier`, or in the table whose header that one is about.
fn is_consequence(text: &str, earlier: &Range<usize>, later: &Range<usize>) -> bool {
    let start_of_line = text[..earlier.start].rfind('\n').map_or(0, |end| end + 1);
    let Some(between) = text.get(start_of_line..later.start) else {
        return false;
    };
    let header = between.starts_with('[');
    let mut lines = between.split('\n').skip(1).peekable();
    lines.peek().is_none() || header && lines.all(|line| !line.starts_with('['))
}

fn syntax_problem(text: &str, message: &str, span: &Range<usize>, source: SourceId) -> Problem {
    let (label, help) = if message.starts_with("duplicate key") {
        let key = quoted(&text[span.clone()]);
        ("set again here", format!("{key} is set before: keep one of the two"))
    } else if message.contains("string values must be quoted") {
        ("no quotes", "write strings in quotes: `name = \"value\"`".to_owned())
    } else {
        let help = "correct the TOML here; https://toml.io shows its syntax by example";
        ("here", help.to_owned())
    };
    let place = Place::new(source, span.clone());
    Problem::error(format!("not TOML: {message}"), place, label, help)
}

fn long_key_problem(place: Place) -> Problem {
    Problem::error(
        format!("a key of more than {MOST_KEY_PARTS} parts"),
        place,
        "too deep",
        "no key of a recipe is that long: see docs/recipe.md for those there are",
    )
}

/// Where a key of too many parts goes on, by the parser's own lexer.
fn too_long_a_key(text: &str) -> Option<Range<usize>> {
    let mut dots = 0;
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::Whitespace
            | TokenKind::Atom
            | TokenKind::BasicString
            | TokenKind::LiteralString
            | TokenKind::MlBasicString
            | TokenKind::MlLiteralString => {}
            TokenKind::Equals
            | TokenKind::Comma
            | TokenKind::LeftSquareBracket
            | TokenKind::RightSquareBracket
            | TokenKind::LeftCurlyBracket
            | TokenKind::RightCurlyBracket
            | TokenKind::Comment
            | TokenKind::Newline
            | TokenKind::Eof => dots = 0,
        }
        if dots >= MOST_KEY_PARTS {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

/// The nearest character boundary at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    text.floor_char_boundary(index.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        document(text, SourceId::FILE, &mut Problems::default()).is_none()
    }

    #[test]
    fn depth_ends_in_an_error_not_in_a_stack_overflow() {
        let deep = |open: &str, close: &str| format!("x = {}1{}", open.repeat(50_000), close.repeat(50_000));
        assert!(refused(&deep("[", "]")));
        assert!(refused(&deep("{a=", "}")));
        let long = ["a"; 100_000].join(".");
        assert!(refused(&format!("{long} = 1")));
        assert!(refused(&format!("[{long}]")));
        assert!(refused(&format!("[[{long}]]")));
        assert!(refused(&format!("x = {{ {long} = 1 }}")));
        assert!(refused(&["'a'"; 100_000].join(" . ")));
        let set = format!("{{ {long} = 1 }}");
        let node = argument(&set, 0..set.len(), SourceId::FILE);
        assert!(matches!(node.value, crate::node::Value::Text(_)));
    }

    #[test]
    fn dots_outside_keys_are_not_counted() {
        assert!(!refused(
            "# a.b.c.d.e.f.g.h.i.j\nx = \"a.b.c.d.e.f.g.h.i.j\"\ny = [1.0, 1.1, 1.2]\n"
        ));
    }

    #[test]
    fn a_byte_order_mark_and_crlf_are_no_obstacle() {
        let table = document(
            "\u{feff}[recipe]\r\nname = \"x\"\r\n",
            SourceId::FILE,
            &mut Problems::default(),
        );
        assert!(table.expect("valid").table("recipe").is_some());
    }

    #[test]
    fn arguments_are_toml_where_they_can_be() {
        let value = |text: &str| argument(text, 0..text.len(), SourceId::FILE).value.described();
        assert_eq!(value("3"), "the number 3");
        assert_eq!(value("0.5"), "the number 0.5");
        assert_eq!(value("[1, 2]"), "a list of 2");
        assert_eq!(value("true"), "true");
        assert_eq!(value("\"3\""), "the string \"3\"");
        assert_eq!(value("/data/sst2"), "the string \"/data/sst2\"");
        assert_eq!(value("1 2"), "the string \"1 2\"");
        assert_eq!(value(""), "the string \"\"");
        assert_eq!(value("0x10"), "the number 16");
        assert_eq!(value("1_000"), "the number 1000");
        assert_eq!(value("-7"), "the number -7");
        assert_eq!(value("9".repeat(60).as_str()), "a number of too many digits");
    }
}
