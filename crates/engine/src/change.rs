//! The difference between two key documents, told in words: why an action has another key than last time.
//!
//! Invariant: [`changes`] is empty if and only if the two documents have the same key, for it compares the very list
//! that the key is the digest of.

use crate::key::{InputDigest, KeyDocument, Leaf, Place, Segment};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Longer values are cut off when they are told.
const MAX_VALUE_CHARS: usize = 60;

/// One difference. Values are told as people write them; `None` is where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The meaning of key documents themselves.
    Schema {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The action is of another kind.
    Kind {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The kind's semantics have another version.
    KindVersion {
        /// The kind now.
        kind: String,
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The seed.
    Seed {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The numerics class.
    Numerics {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// One parameter.
    Parameter {
        /// Its path, such as `training.learning_rate` or `layers[2]`.
        path: String,
        /// Before.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The content of one input.
    Input {
        /// The role.
        role: String,
        /// Before.
        old: Option<InputDigest>,
        /// Now.
        new: Option<InputDigest>,
    },
}

/// What differs between `old` and `new`, in the order of the key's encoding.
#[must_use]
pub fn changes(old: &KeyDocument, new: &KeyDocument) -> Vec<Change> {
    let (old_leaves, new_leaves) = (old.leaves(), new.leaves());
    let (mut olds, mut news) = (old_leaves.iter().peekable(), new_leaves.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old_leaf = if order.is_le() { olds.next() } else { None };
        let new_leaf = if order.is_ge() { news.next() } else { None };
        let before = old_leaf.map(|(_, leaf)| leaf);
        let after = new_leaf.map(|(_, leaf)| leaf);
        if let Some((place, _)) = old_leaf.or(new_leaf)
            && before != after
        {
            found.push(change(place, before, after, new));
        }
    }
}

fn change(place: &Place<'_>, before: Option<&Leaf<'_>>, after: Option<&Leaf<'_>>, now: &KeyDocument) -> Change {
    let plain = |leaf: Option<&Leaf<'_>>| match leaf {
        Some(Leaf::Text(text)) => (*text).to_owned(),
        Some(leaf) => value_in_words(leaf),
        None => String::new(),
    };
    let (old, new) = (plain(before), plain(after));
    match place {
        Place::Schema => Change::Schema { old, new },
        Place::Kind => Change::Kind { old, new },
        Place::KindVersion => Change::KindVersion {
            kind: now.kind.name.clone(),
            old,
            new,
        },
        Place::Seed => Change::Seed { old, new },
        Place::Numerics => Change::Numerics { old, new },
        Place::Parameter(way) => Change::Parameter {
            path: path_in_words(way),
            old: before.map(value_in_words),
            new: after.map(value_in_words),
        },
        Place::Input(role) => {
            let digest = |leaf: Option<&Leaf<'_>>| match leaf {
                Some(Leaf::Input(digest)) => Some(*digest),
                _ => None,
            };
            Change::Input {
                role: (*role).to_owned(),
                old: digest(before),
                new: digest(after),
            }
        }
    }
}

fn path_in_words(way: &[Segment<'_>]) -> String {
    let mut path = String::new();
    for segment in way {
        match segment {
            Segment::Member(name) if path.is_empty() => path.push_str(name),
            Segment::Member(name) => path.extend([".", name]),
            Segment::Element(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if path.is_empty() { "parameters".to_owned() } else { path }
}

fn value_in_words(leaf: &Leaf<'_>) -> String {
    match leaf {
        Leaf::Null => "none".to_owned(),
        Leaf::EmptyList => "[]".to_owned(),
        Leaf::EmptyMap => "{}".to_owned(),
        Leaf::Bool(value) => value.to_string(),
        Leaf::Integer(value) => value.to_string(),
        Leaf::Float(bits) => {
            let value = f64::from_bits(*bits);
            let is_plain = value == 0.0 || (1e-3..1e7).contains(&value.abs());
            if is_plain {
                format!("{value:?}")
            } else {
                format!("{value:e}")
            }
        }
        Leaf::Text(text) => {
            let is_short = text.chars().nth(MAX_VALUE_CHARS).is_none();
            let shown: String = text.chars().take(MAX_VALUE_CHARS).collect();
            format!("{shown:?}{}", if is_short { "" } else { "…" })
        }
        Leaf::Input(digest) => digest_in_words(digest),
    }
}

fn digest_in_words(input: &InputDigest) -> String {
    match input {
        InputDigest::Artifact(digest) => format!("artifact {}", digest.short()),
        InputDigest::File { digest, size } => format!("file {} of {size} bytes", digest.short()),
    }
}

/// Text from a key document, which anybody may have written, on one line and without what a terminal would obey or not show.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\'' | '\\' => write!(f, "{c}")?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turn = |f: &mut fmt::Formatter<'_>, what: &str, old: &str, new: &str| {
            write!(f, "{} {} → {}", Shown(what), Shown(old), Shown(new))
        };
        match self {
            Self::Schema { old, new } => turn(f, "key schema", old, new),
            Self::Kind { old, new } => turn(f, "kind", old, new),
            Self::KindVersion { kind, old, new } => turn(f, &format!("kind {kind} version"), old, new),
            Self::Seed { old, new } => turn(f, "seed", old, new),
            Self::Numerics { old, new } => turn(f, "numerics", old, new),
            Self::Parameter { path, old, new } => {
                let (old, new) = (old.as_deref().unwrap_or("unset"), new.as_deref().unwrap_or("unset"));
                turn(f, path, old, new)
            }
            Self::Input { role, old, new } => {
                let what = match (old, new) {
                    (Some(_), Some(_)) => "changed",
                    (None, _) => "is new",
                    (_, None) => "is gone",
                };
                write!(f, "input {} {what}", Shown(role))
            }
        }
    }
}
