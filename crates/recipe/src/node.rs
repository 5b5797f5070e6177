//! A recipe's text as a tree in which everything knows where it is written.
//!
//! Invariants: the depth of a tree is bounded (the parser refuses deeper ones), so recursion over it is safe; a value
//! that was found faulty once is [`Value::Refused`], and whoever reads it later says nothing more.

use crate::source::{Place, SourceId};
use crate::suggest::shortened;
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// A value with its place; that of a `[table]` is its header.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub place: Place,
}

/// What TOML can say.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Text),
    /// Saturated: no setting takes so much.
    Whole(i128),
    Real(f64),
    Flag(bool),
    Date,
    List(Vec<Node>),
    Table(Table),
    /// Reported already.
    Refused,
}

/// A string, and which text its first character was written in: variables mix them.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub value: String,
    pub begins_in: SourceId,
}

/// Keys, each with its place, and what they are set to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub entries: BTreeMap<String, Entry>,
}

/// One key of a table.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Place,
    pub node: Node,
}

impl Table {
    /// The tree of a parsed document or inline table.
    pub fn of_toml(table: &DeTable<'_>, source: SourceId) -> Self {
        let entries = table.iter().map(|(key, value)| {
            let entry = Entry {
                key: Place::new(source, key.span()),
                node: Node::of_toml(value.get_ref(), value.span(), source),
            };
            (key.get_ref().to_string(), entry)
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key).map(|entry| &entry.node)
    }

    /// What it says, in the order of its keys.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let entries = self.entries.iter();
        entries
            .map(|(key, entry)| (key.clone(), entry.node.value.to_json()))
            .collect()
    }

    /// The table at `key`, if it is one.
    pub fn table(&self, key: &str) -> Option<&Self> {
        self.get(key)?.value.table()
    }
}

impl Node {
    /// The tree of a parsed value at `span` of `source`.
    pub fn of_toml(value: &DeValue<'_>, span: std::ops::Range<usize>, source: SourceId) -> Self {
        let value = match value {
            DeValue::String(text) => Value::Text(Text {
                value: text.to_string(),
                begins_in: source,
            }),
            DeValue::Integer(whole) => {
                let negative = whole.as_str().starts_with('-');
                let extreme = if negative { i128::MIN } else { i128::MAX };
                Value::Whole(i128::from_str_radix(whole.as_str(), whole.radix()).unwrap_or(extreme))
            }
            DeValue::Float(real) => Value::Real(real.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(nodes) => Value::List(
                nodes
                    .iter()
                    .map(|node| Self::of_toml(node.get_ref(), node.span(), source))
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(Table::of_toml(table, source)),
        };
        Self {
            value,
            place: Place::new(source, span),
        }
    }

    /// Says of the whole tree that it is written at `place`: an argument is underlined as one.
    pub fn place_all(&mut self, place: Place) {
        self.place = place;
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.place_all(place)),
            Value::Table(table) => table.entries.values_mut().for_each(|entry| {
                entry.key = place;
                entry.node.place_all(place);
            }),
            Value::Text(_) | Value::Whole(_) | Value::Real(_) | Value::Flag(_) | Value::Date | Value::Refused => {}
        }
    }

    /// A string that was written as it is, without quotes.
    pub fn of_text(text: &str, place: Place) -> Self {
        let text = Text {
            value: text.to_owned(),
            begins_in: place.source,
        };
        Self {
            value: Value::Text(text),
            place,
        }
    }
}

impl Value {
    /// The string, if it is one.
    pub fn text(&self) -> Option<&Text> {
        let Self::Text(text) = self else { return None };
        Some(text)
    }

    /// The whole number, if it is one.
    pub fn whole(&self) -> Option<i128> {
        let Self::Whole(whole) = self else { return None };
        Some(*whole)
    }

    /// The number, whole or not, if it is a finite one. There is no minus zero: it would be another setting than zero.
    pub fn real(&self) -> Option<f64> {
        match self {
            Self::Whole(whole) => Some(*whole as f64),
            Self::Real(real) => real.is_finite().then_some(*real + 0.0),
            Self::Text(_) | Self::Flag(_) | Self::Date | Self::List(_) | Self::Table(_) | Self::Refused => None,
        }
    }

    /// The truth value, if it is one.
    pub fn flag(&self) -> Option<bool> {
        let Self::Flag(flag) = self else { return None };
        Some(*flag)
    }

    /// The list, if it is one.
    pub fn list(&self) -> Option<&[Node]> {
        let Self::List(nodes) = self else { return None };
        Some(nodes)
    }

    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        let Self::Table(table) = self else { return None };
        Some(table)
    }

    /// What it says. Numbers that JSON lacks are strings.
    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.value.clone().into(),
            Self::Whole(whole) => i64::try_from(*whole).map_or_else(|_| whole.to_string().into(), Into::into),
            Self::Real(real) => {
                let number = serde_json::Number::from_f64(*real);
                number.map_or_else(|| real.to_string().into(), Into::into)
            }
            Self::Flag(flag) => (*flag).into(),
            Self::List(nodes) => nodes.iter().map(|node| node.value.to_json()).collect(),
            Self::Table(table) => table.to_json().into(),
            Self::Date | Self::Refused => serde_json::Value::Null,
        }
    }

    /// For a message: `the string "3"`.
    pub fn described(&self) -> String {
        match self {
            Self::Text(text) => format!("the string \"{}\"", shortened(&text.value)),
            Self::Whole(i128::MIN | i128::MAX) => "a number of too many digits".to_owned(),
            Self::Whole(whole) => format!("the number {whole}"),
            Self::Real(real) if real.is_nan() => "nan".to_owned(),
            Self::Real(real) => format!("the number {real:?}"),
            Self::Flag(flag) => format!("{flag}"),
            Self::Date => "a date".to_owned(),
            Self::List(nodes) if nodes.is_empty() => "an empty list".to_owned(),
            Self::List(nodes) => format!("a list of {}", nodes.len()),
            Self::Table(_) => "a table".to_owned(),
            Self::Refused => "nothing to use".to_owned(),
        }
    }
}
