//! What the readers ask of a section, found by running them.
//!
//! A reader may ask for a key only if another one is set. So it is run over the bare section, and once for each value of
//! a small sample of every key that it asked for there. What a key takes is the widest that it took in any of the runs;
//! a key that was refused in all of them has no meaning anywhere, which is a mistake in the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::data;
use crate::diagnostic::Problems;
use crate::node::{Entry, Node, Table, Text, Value};
use crate::path::Folders;
use crate::section::{Record, Section};
use crate::shape::{Interval, Shape};
use crate::source::{Place, SourceId};
use crate::{check, gate, header, model, steps};
use orchestrate_ml::device::DeviceChoice;

/// The parts of a recipe that are read each by a reader of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Root,
    Header,
    Data,
    Model,
    Step,
    Gate,
}

/// What a reader asks of a section.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What each key takes.
    pub keys: BTreeMap<&'static str, Shape>,
    /// The keys that must be there.
    pub required: BTreeSet<&'static str>,
    /// Keys that must be there unless one of some others is.
    pub required_unless: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl Part {
    /// The key that says what the section is, if there are several sorts.
    pub fn tag(self) -> Option<&'static str> {
        match self {
            Self::Data => Some("source"),
            Self::Model => Some("architecture"),
            Self::Step => Some("kind"),
            Self::Root | Self::Header | Self::Gate => None,
        }
    }

    /// The sorts that there are.
    pub fn sorts(self) -> Vec<&'static str> {
        let Some(tag) = self.tag() else { return Vec::new() };
        let asked = self.record(&Table::default()).asked;
        let shape = asked.into_iter().find(|(key, _)| *key == tag);
        match shape {
            Some((_, Some(Shape::Choice(words)))) => words,
            other => unreachable!("`{tag}` is one of some words, not {other:?}"),
        }
    }

    fn read(self, section: Section) {
        let folders = Folders {
            recipe: Default::default(),
            current: Default::default(),
            look: false,
        };
        match self {
            Self::Root => drop(check::Sections::of(section)),
            Self::Header => drop(header::read(section)),
            Self::Data => drop(data::read(section, &folders)),
            Self::Model => drop(model::read(section, &folders)),
            Self::Step => drop(steps::Draft::read(section, DeviceChoice::Cpu)),
            Self::Gate => drop(gate::read(section)),
        }
    }

    fn record(self, table: &Table) -> Record {
        let (mut record, mut problems) = (Record::default(), Problems::default());
        let section = Section::new(String::new(), "", table, Place::top(), &mut problems);
        self.read(section.recorded(&mut record));
        record
    }
}

/// What `part` asks for, where it is of the sort `sort`.
pub(super) fn survey(part: Part, sort: Option<&'static str>) -> Survey {
    let mut table = Table::default();
    let tag = part.tag().zip(sort);
    if let Some((tag, word)) = tag {
        set(&mut table, tag, text(word));
    }
    let bare = part.record(&table);
    let mut runs = vec![(None, part.record(&table))];
    for (key, shape) in &bare.asked {
        let samples = shape.iter().flat_map(samples);
        for sample in samples.filter(|_| tag.is_none_or(|(tag, _)| tag != *key)) {
            let mut table = table.clone();
            set(&mut table, key, sample);
            runs.push((Some(*key), part.record(&table)));
        }
    }
    let mut survey = summed_up(&runs, &bare);
    survey.required.extend(tag.map(|(tag, _)| tag));
    survey
}

fn summed_up(runs: &[(Option<&'static str>, Record)], bare: &Record) -> Survey {
    let mut keys: BTreeMap<&'static str, Option<Shape>> = BTreeMap::new();
    for (key, shape) in runs.iter().flat_map(|(_, run)| &run.asked) {
        let known = keys.entry(key).or_default();
        *known = match (known.take(), shape.clone()) {
            (Some(one), Some(other)) => Some(
                one.widened(other)
                    .unwrap_or_else(|| panic!("`{key}` is read as two different sorts of value")),
            ),
            (one, other) => one.or(other),
        };
    }
    let shape_of = |(key, shape): (&'static str, Option<Shape>)| {
        (
            key,
            shape.unwrap_or_else(|| panic!("no key that is set alone gives `{key}` a meaning")),
        )
    };
    let mut survey = Survey {
        keys: keys.into_iter().map(shape_of).collect(),
        ..Survey::default()
    };
    for key in &bare.missing {
        let instead = runs.iter().filter(|(_, run)| !run.missing.contains(key));
        let instead: BTreeSet<_> = instead.filter_map(|(set, _)| *set).filter(|set| set != key).collect();
        if instead.is_empty() {
            survey.required.insert(key);
        } else {
            survey.required_unless.insert(key, instead);
        }
    }
    survey
}

/// Values that a key of `shape` takes: each word, and the ends of ranges.
fn samples(shape: &Shape) -> Vec<Value> {
    match shape {
        Shape::Whole { least, most } => [*least, *most].map(|whole| Value::Whole(whole.into())).to_vec(),
        Shape::Real(interval) => vec![Value::Real(inside(interval))],
        Shape::Flag => vec![Value::Flag(false), Value::Flag(true)],
        Shape::Text | Shape::Name => vec![text("x")],
        Shape::Choice(words) => words.iter().map(|word| text(word)).collect(),
        Shape::List { each, least, .. } => {
            let element = samples(each).into_iter().next();
            let nodes = element.into_iter().map(node).cycle().take(*least).collect();
            vec![Value::List(nodes)]
        }
        Shape::Table | Shape::Tables | Shape::Records => Vec::new(),
    }
}

fn inside(interval: &Interval) -> f64 {
    let end = |bound: Bound<f64>| match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    };
    match (end(interval.least), end(interval.most)) {
        (Some(least), Some(most)) => (least + most) / 2.0,
        (Some(least), None) => least + 1.0,
        (None, Some(most)) => most - 1.0,
        (None, None) => 0.0,
    }
}

fn set(table: &mut Table, key: &str, value: Value) {
    let entry = Entry {
        key: Place::top(),
        node: node(value),
    };
    table.entries.insert(key.to_owned(), entry);
}

fn node(value: Value) -> Node {
    Node {
        value,
        place: Place::top(),
    }
}

fn text(word: &str) -> Value {
    Value::Text(Text {
        value: word.to_owned(),
        begins_in: SourceId::FILE,
    })
}
