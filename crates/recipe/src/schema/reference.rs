//! What docs/recipe.md says of each section and key: descriptions and defaults.
//!
//! A section is the text under its heading; a key is a row of a table with the columns key, type, default, meaning. A
//! default is a value if its cell is nothing but one, or one for training from scratch and one for finetuning.

use serde_json::Value;
use toml::de::DeValue;

use crate::node::{self, Node};
use crate::source::SourceId;

const TEXT: &str = include_str!("../../../../docs/recipe.md");
/// Between the two defaults of a key of trainings.
const FINETUNING: &str = "; finetuning ";

/// The reference, read.
pub(super) struct Reference {
    chapters: Vec<Chapter>,
}

struct Chapter {
    heading: &'static str,
    introduction: String,
    rows: Vec<Row>,
}

struct Row {
    key: &'static str,
    default: &'static str,
    meaning: String,
}

/// What is said of a key.
pub(super) struct About {
    pub description: String,
    pub default: Option<Value>,
}

impl Reference {
    pub fn read() -> Self {
        let mut chapters = Vec::new();
        let mut heading = "";
        let mut lines = Vec::new();
        let mut is_code = false;
        for line in TEXT.lines() {
            is_code ^= line.starts_with("```");
            match line.trim_start_matches('#').strip_prefix(' ') {
                Some(next) if line.starts_with('#') && !is_code => {
                    chapters.push(Chapter::of(heading, &lines));
                    heading = next;
                    lines.clear();
                }
                Some(_) | None => lines.push(line),
            }
        }
        chapters.push(Chapter::of(heading, &lines));
        Self { chapters }
    }

    /// What the section under `heading` is.
    pub fn introduction(&self, heading: &str) -> &str {
        self.chapter(heading).map_or("", |chapter| &chapter.introduction)
    }

    /// What `key` is, by the first of `headings` that has it.
    pub fn key(&self, key: &str, headings: &[String], is_finetuning: bool) -> Option<About> {
        let chapters = headings.iter().filter_map(|heading| self.chapter(heading));
        let row = chapters.flat_map(|chapter| &chapter.rows).find(|row| row.key == key)?;
        let default = row.default_value(is_finetuning);
        let words = plain(row.default);
        let told = default.is_some() || words.is_empty() || words.starts_with("*required*");
        let description = match (row.meaning.is_empty(), told) {
            (_, true) => row.meaning.clone(),
            (true, false) => format!("Default: {words}."),
            (false, false) => format!("{} Default: {words}.", row.meaning),
        };
        Some(About { description, default })
    }

    fn chapter(&self, heading: &str) -> Option<&Chapter> {
        self.chapters.iter().find(|chapter| chapter.heading == heading)
    }
}

impl Chapter {
    fn of(heading: &'static str, lines: &[&'static str]) -> Self {
        let text: Vec<&str> = lines
            .iter()
            .copied()
            .skip_while(|line| line.is_empty())
            .take_while(|line| !line.is_empty() && !line.starts_with('|'))
            .collect();
        Self {
            heading,
            introduction: plain(&text.join(" ")),
            rows: lines.iter().filter_map(|line| Row::of(line)).collect(),
        }
    }
}

impl Row {
    fn of(line: &'static str) -> Option<Self> {
        let cells: Vec<&str> = line
            .strip_prefix('|')?
            .strip_suffix('|')?
            .split('|')
            .map(str::trim)
            .collect();
        let [key, _, default, meaning] = cells[..] else {
            return None;
        };
        let key = key.strip_prefix('`')?.strip_suffix('`')?;
        Some(Self {
            key,
            default,
            meaning: plain(meaning),
        })
    }

    fn default_value(&self, is_finetuning: bool) -> Option<Value> {
        let cell = match self.default.split_once(FINETUNING) {
            Some((_, finetuning)) if is_finetuning => finetuning,
            Some((from_scratch, _)) => from_scratch,
            None => self.default,
        };
        let code = cell.strip_prefix('`')?.strip_suffix('`')?;
        let value = DeValue::parse(code).ok()?;
        json(&Node::of_toml(value.get_ref(), 0..0, SourceId::FILE).value)
    }
}

/// The value as JSON, where JSON has it.
fn json(value: &node::Value) -> Option<Value> {
    match value {
        node::Value::Text(text) => Some(text.value.as_str().into()),
        node::Value::Whole(whole) => i64::try_from(*whole).ok().map(Value::from),
        node::Value::Real(real) => Some(Value::from(*real)),
        node::Value::Flag(flag) => Some(Value::from(*flag)),
        node::Value::List(nodes) => nodes.iter().map(|node| json(&node.value)).collect(),
        node::Value::Date | node::Value::Table(_) | node::Value::Refused => None,
    }
}

/// Markdown without its links, whose targets are not where the schema is read.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        let target = link
            .split_once("](")
            .and_then(|(shown, target)| Some((shown, target.split_once(')')?.1)));
        match target {
            Some((shown, after)) if !shown.contains(['[', ']']) => {
                text.push_str(shown);
                rest = after;
            }
            Some(_) | None => {
                text.push('[');
                rest = link;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_the_cells_that_are_values() {
        let value = |cell: &'static str, is_finetuning| {
            let row = Row {
                key: "k",
                default: cell,
                meaning: String::new(),
            };
            row.default_value(is_finetuning)
        };
        assert_eq!(value("`8`", false), Some(json!(8)));
        assert_eq!(value("`\"cpu\"`", true), Some(json!("cpu")));
        assert_eq!(value("`[300, 100]`", false), Some(json!([300, 100])));
        assert_eq!(value("`3`; finetuning `1`", false), Some(json!(3)));
        assert_eq!(value("`3`; finetuning `1`", true), Some(json!(1)));
        for cell in [
            "",
            "*required*",
            "no limit",
            "4 × `hidden`",
            "`target`",
            "`5e-4` for adamw, `0.05` for sgd",
        ] {
            assert_eq!(value(cell, false), None, "{cell}");
        }
    }

    #[test]
    fn links_become_their_text() {
        assert_eq!(
            plain("see [Training](#training), `[a, b]` and [c]"),
            "see Training, `[a, b]` and [c]"
        );
    }
}
