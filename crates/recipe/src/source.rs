//! The texts that a recipe is made of (its file and the command line's arguments) and places in them.
//!
//! Invariants: source 0 is the file; a place lies within its source; offsets are of the text as it was read. The text
//! kept for display has its control characters replaced byte by byte, so that a recipe cannot write to the terminal
//! and offsets still hold.

use miette::NamedSource;
use std::sync::Arc;

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceId(usize);

impl SourceId {
    /// The recipe's file.
    pub const FILE: Self = Self(0);

    /// Whether the text is an argument of the command line.
    pub fn is_command_line(self) -> bool {
        self != Self::FILE
    }
}

/// A range of bytes in a text. The order of places is that in which their diagnostics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub source: SourceId,
    pub start: usize,
    pub end: usize,
}

impl Place {
    pub fn new(source: SourceId, span: std::ops::Range<usize>) -> Self {
        Self {
            source,
            start: span.start,
            end: span.end,
        }
    }

    /// A range of the recipe's file.
    pub fn in_file(span: std::ops::Range<usize>) -> Self {
        Self::new(SourceId::FILE, span)
    }

    /// The beginning of the recipe's file: for what is missing altogether.
    pub fn top() -> Self {
        Self::in_file(0..0)
    }
}

/// All texts.
#[derive(Debug)]
pub(crate) struct Sources {
    texts: Vec<Arc<NamedSource<String>>>,
}

impl Sources {
    /// The sources of a recipe in the file called `name`.
    pub fn of_file(name: &str, text: &str) -> Self {
        let mut sources = Self { texts: Vec::new() };
        sources.add(name, text);
        sources
    }

    /// Adds an argument of the command line; `name` is its flag.
    pub fn add(&mut self, name: &str, text: &str) -> SourceId {
        self.texts.push(Arc::new(NamedSource::new(name, printable(text))));
        SourceId(self.texts.len() - 1)
    }

    /// The text with its name.
    pub fn get(&self, id: SourceId) -> &Arc<NamedSource<String>> {
        &self.texts[id.0]
    }

    /// Line of the first byte of `place`, from 1.
    pub fn line(&self, place: Place) -> usize {
        let text = self.get(place.source).inner().as_bytes();
        1 + text[..place.start].iter().filter(|byte| **byte == b'\n').count()
    }

    /// `file:line`, or the flag and its text.
    pub fn written_at(&self, place: Place) -> String {
        let source = self.get(place.source);
        if place.source.is_command_line() {
            format!("{} {}", source.name(), source.inner())
        } else {
            format!("{}:{}", source.name(), self.line(place))
        }
    }
}

/// `text` without control characters other than line ends and tabs, of the same length in bytes.
fn printable(text: &str) -> String {
    let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if shown(c) {
            result.push(c);
        } else {
            result.extend(std::iter::repeat_n('?', c.len_utf8()));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        let sources = Sources::of_file("r.toml", "a\r\nb\r\nc");
        let place = Place::new(SourceId::FILE, 6..7);
        assert_eq!(sources.written_at(place), "r.toml:3");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = "a\u{1b}[31m\u{9b}b\n";
        let shown = printable(text);
        assert_eq!(shown, "a?[31m??b\n");
        assert_eq!(shown.len(), text.len());
    }
}
