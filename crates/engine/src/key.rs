//! The action key, and the document that it is the digest of.
//!
//! Invariant: there is one walk over a document, [`KeyParts::leaves`]. The key hashes what it yields, and
//! [`changes`](crate::changes) compares what it yields, so that two documents have the same key if and only if there is
//! no change to tell.
//!
//! # The encoding
//!
//! The key is blake3 of the tag `orchestrate action key 1\n`, the number of leaves, and the leaves sorted by place. A
//! *place* is a section and the way within it; a *leaf* is what stands there. Numbers are little-endian: lengths and
//! counts 64 bits, tags 8 bits. A text is its length and its UTF-8 bytes.
//!
//! | place | tag | then |
//! |---|---|---|
//! | schema, kind, kind version, seed, numerics | 0, 1, 2, 3, 4 | |
//! | parameter | 5 | number of segments; each is 0 and a text (member), or 1 and a 64-bit index (element) |
//! | input | 6 | the role, a text |
//!
//! | leaf | tag | then |
//! |---|---|---|
//! | null, an empty list, an empty map | 0, 1, 2 | |
//! | boolean | 3 | 0 or 1 |
//! | integer | 4 | 128 bits, two's complement |
//! | float | 5 | the 64 bits of its IEEE 754 form, so that `1` is not `1.0` and `0.0` not `-0.0` |
//! | text | 6 | the text |
//! | artifact | 7 | the digest's 32 bytes |
//! | file | 8 | the digest's 32 bytes and the size, 64 bits |
//!
//! Lists and maps that are not empty have no leaf of their own: the places of what they hold tell them.

use crate::action::{Action, Kind};
use crate::digest::{Digest, ParseDigestError};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Version of the document's own meaning.
pub const KEY_SCHEMA: u32 = 1;

const DOMAIN: &[u8] = b"orchestrate action key 1\n";

/// Names everything that an action's result depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionKey(Digest);

impl ActionKey {
    /// The digest that it is.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The first ten hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ActionKey {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        text.parse().map(Self)
    }
}

/// What is known of an input's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputDigest {
    /// An artifact's tree.
    Artifact(Digest),
    /// An external file.
    File {
        /// Digest of its content.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
}

/// Everything that an action's result depends on: what is hashed, kept beside the key, and explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocument {
    /// [`KEY_SCHEMA`] of the engine that wrote it.
    pub schema: u32,
    /// Kind and version of its semantics.
    pub kind: Kind,
    /// Resolved parameters.
    pub parameters: Value,
    /// Seed.
    pub seed: u64,
    /// Numerics class.
    pub numerics: String,
    /// Role to content.
    pub inputs: BTreeMap<String, InputDigest>,
}

/// A point of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'a> {
    Schema,
    Kind,
    KindVersion,
    Seed,
    Numerics,
    Parameter(Vec<Segment<'a>>),
    Input(&'a str),
}

/// One step on the way into the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment<'a> {
    Member(&'a str),
    Element(usize),
}

/// What stands at a point. Floats are compared by their bits, as they are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf<'a> {
    Null,
    EmptyList,
    EmptyMap,
    Bool(bool),
    Integer(i128),
    Float(u64),
    Text(&'a str),
    Input(InputDigest),
}

impl KeyDocument {
    /// The document of `action`, whose inputs have the content `inputs`.
    #[must_use]
    pub fn new(action: &Action, inputs: BTreeMap<String, InputDigest>) -> Self {
        Self {
            schema: KEY_SCHEMA,
            kind: action.kind.clone(),
            parameters: action.parameters.clone(),
            seed: action.seed,
            numerics: action.numerics.clone(),
            inputs,
        }
    }

    /// The document of `action` with the parameters of its trajectory alone, if it has one.
    pub(crate) fn of_trajectory(&self, action: &Action) -> Option<Self> {
        let parameters = action.trajectory.clone()?;
        Some(Self {
            parameters,
            ..self.clone()
        })
    }

    /// The key; the encoding is described at the head of the module.
    #[must_use]
    pub fn key(&self) -> ActionKey {
        self.parts().key()
    }

    /// The document as a list of what stands where, sorted by place.
    pub(crate) fn leaves(&self) -> Vec<(Place<'_>, Leaf<'_>)> {
        self.parts().leaves()
    }

    fn parts(&self) -> KeyParts<'_> {
        KeyParts {
            schema: self.schema,
            kind: &self.kind,
            parameters: &self.parameters,
            seed: self.seed,
            numerics: &self.numerics,
            inputs: self
                .inputs
                .iter()
                .map(|(role, input)| (role.as_str(), *input))
                .collect(),
        }
    }
}

/// What a [`KeyDocument`] says, where it lies.
pub(crate) struct KeyParts<'a> {
    schema: u32,
    kind: &'a Kind,
    parameters: &'a Value,
    seed: u64,
    numerics: &'a str,
    inputs: Vec<(&'a str, InputDigest)>,
}

impl<'a> KeyParts<'a> {
    /// What the document of `action` says, whose inputs have the content `inputs`, in the order of their roles.
    pub(crate) fn of(action: &'a Action, inputs: &[InputDigest]) -> Self {
        Self {
            schema: KEY_SCHEMA,
            kind: &action.kind,
            parameters: &action.parameters,
            seed: action.seed,
            numerics: &action.numerics,
            inputs: action
                .inputs
                .keys()
                .map(String::as_str)
                .zip(inputs.iter().copied())
                .collect(),
        }
    }

    /// The key of that document.
    pub(crate) fn key(&self) -> ActionKey {
        let leaves = self.leaves();
        let mut bytes = DOMAIN.to_vec();
        number(leaves.len(), &mut bytes);
        for (place, leaf) in &leaves {
            encode_place(place, &mut bytes);
            encode_leaf(leaf, &mut bytes);
        }
        ActionKey(Digest::of_bytes(&bytes))
    }

    fn leaves(&self) -> Vec<(Place<'a>, Leaf<'a>)> {
        let mut leaves = vec![
            (Place::Schema, Leaf::Integer(self.schema.into())),
            (Place::Kind, Leaf::Text(&self.kind.name)),
            (Place::KindVersion, Leaf::Integer(self.kind.version.into())),
            (Place::Seed, Leaf::Integer(self.seed.into())),
            (Place::Numerics, Leaf::Text(self.numerics)),
        ];
        walk_parameters(self.parameters, &mut Vec::new(), &mut leaves);
        leaves.extend(
            self.inputs
                .iter()
                .map(|(role, input)| (Place::Input(role), Leaf::Input(*input))),
        );
        leaves.sort_by(|(a, _), (b, _)| a.cmp(b));
        leaves
    }
}

fn walk_parameters<'a>(value: &'a Value, way: &mut Vec<Segment<'a>>, leaves: &mut Vec<(Place<'a>, Leaf<'a>)>) {
    let leaf = match value {
        Value::Null => Leaf::Null,
        Value::Bool(value) => Leaf::Bool(*value),
        Value::Number(number) => leaf_of_number(number),
        Value::String(text) => Leaf::Text(text),
        Value::Array(elements) if elements.is_empty() => Leaf::EmptyList,
        Value::Object(members) if members.is_empty() => Leaf::EmptyMap,
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                way.push(Segment::Element(index));
                walk_parameters(element, way, leaves);
                way.pop();
            }
            return;
        }
        Value::Object(members) => {
            for (name, member) in members {
                way.push(Segment::Member(name));
                walk_parameters(member, way, leaves);
                way.pop();
            }
            return;
        }
    };
    leaves.push((Place::Parameter(way.clone()), leaf));
}

fn leaf_of_number(number: &Number) -> Leaf<'static> {
    let integer = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    match integer {
        Some(integer) => Leaf::Integer(integer),
        None => Leaf::Float(
            number
                .as_f64()
                .expect("a JSON number that is no integer is a float")
                .to_bits(),
        ),
    }
}

fn encode_place(place: &Place<'_>, bytes: &mut Vec<u8>) {
    match place {
        Place::Schema => bytes.push(0),
        Place::Kind => bytes.push(1),
        Place::KindVersion => bytes.push(2),
        Place::Seed => bytes.push(3),
        Place::Numerics => bytes.push(4),
        Place::Parameter(way) => {
            bytes.push(5);
            number(way.len(), bytes);
            for segment in way {
                match segment {
                    Segment::Member(name) => {
                        bytes.push(0);
                        text(name, bytes);
                    }
                    Segment::Element(index) => {
                        bytes.push(1);
                        number(*index, bytes);
                    }
                }
            }
        }
        Place::Input(role) => {
            bytes.push(6);
            text(role, bytes);
        }
    }
}

fn encode_leaf(leaf: &Leaf<'_>, bytes: &mut Vec<u8>) {
    match leaf {
        Leaf::Null => bytes.push(0),
        Leaf::EmptyList => bytes.push(1),
        Leaf::EmptyMap => bytes.push(2),
        Leaf::Bool(value) => bytes.extend([3, u8::from(*value)]),
        Leaf::Integer(value) => {
            bytes.push(4);
            bytes.extend(value.to_le_bytes());
        }
        Leaf::Float(bits) => {
            bytes.push(5);
            bytes.extend(bits.to_le_bytes());
        }
        Leaf::Text(value) => {
            bytes.push(6);
            text(value, bytes);
        }
        Leaf::Input(InputDigest::Artifact(digest)) => {
            bytes.push(7);
            bytes.extend(digest.as_bytes());
        }
        Leaf::Input(InputDigest::File { digest, size }) => {
            bytes.push(8);
            bytes.extend(digest.as_bytes());
            bytes.extend(size.to_le_bytes());
        }
    }
}

fn number(number: usize, bytes: &mut Vec<u8>) {
    bytes.extend((number as u64).to_le_bytes());
}

fn text(text: &str, bytes: &mut Vec<u8>) {
    number(text.len(), bytes);
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, changes};
    use proptest::prelude::*;
    use serde_json::json;

    fn document(parameters: Value) -> KeyDocument {
        let teacher = InputDigest::Artifact(Digest::of_bytes(b"teacher"));
        let data = InputDigest::File {
            digest: Digest::of_bytes(b"data"),
            size: 4,
        };
        KeyDocument {
            schema: KEY_SCHEMA,
            kind: Kind {
                name: "train".into(),
                version: 1,
            },
            parameters,
            seed: 1,
            numerics: "cpu-f32-avx512".into(),
            inputs: [("teacher".into(), teacher), ("data".into(), data)].into(),
        }
    }

    /// These keys name what is in people's stores: they change only together with [`KEY_SCHEMA`].
    #[test]
    fn keys_are_golden() {
        let rich =
            json!({"rate": 1e-4, "layers": [{"width": 300}, {}], "tied": true, "note": "é", "cap": null, "n": []});
        let empty = json!({});
        insta::assert_snapshot!(document(empty).key(), @"9e19c257fc9b5bcd4d7a0455e17bfc89ca8a94bffdbe4d14d18a57e08ddbed8c");
        insta::assert_snapshot!(document(rich).key(), @"b0944b0cb500a47fd7753b9158abab63df9d33b2bed76d1ebc9d9433b5903d8a");
    }

    #[test]
    fn whatever_differs_is_told_and_changes_the_key() {
        let old = document(json!({"training": {"learning_rate": 1e-4, "epochs": 3}, "layers": [1, 2]}));
        let told = |change: &dyn Fn(&mut KeyDocument)| {
            let mut new = old.clone();
            change(&mut new);
            assert_ne!(old.key(), new.key());
            changes(&old, &new)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let artifact = |content: &[u8]| InputDigest::Artifact(Digest::of_bytes(content));
        let lines = [
            told(&|new| new.parameters["training"]["learning_rate"] = json!(5e-5)),
            told(&|new| new.parameters["training"]["epochs"] = json!(3.0)),
            told(&|new| new.parameters["training"]["warmup"] = json!("a\nb")),
            told(&|new| new.parameters["layers"] = json!([1])),
            told(&|new| new.parameters["layers"] = json!({"0": 1})),
            told(&|new| new.parameters["layers"][1] = json!("x".repeat(99))),
            told(&|new| new.seed = 2),
            told(&|new| new.kind.version = 2),
            told(&|new| new.kind.name = "prune".into()),
            told(&|new| new.numerics = "cpu-f32-avx2".into()),
            told(&|new| new.schema = 9),
            told(&|new| *new.inputs.get_mut("teacher").unwrap() = artifact(b"other")),
            told(&|new| new.inputs.extend([("student".to_owned(), artifact(b"other"))])),
            told(&|new| new.inputs.retain(|role, _| role != "data")),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        training.learning_rate 1e-4 → 5e-5
        training.epochs 3 → 3.0
        training.warmup unset → "a\nb"
        layers[1] 2 → unset
        layers.0 unset → 1; layers[0] 1 → unset; layers[1] 2 → unset
        layers[1] 2 → "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…
        seed 1 → 2
        kind train version 1 → 2
        kind train → prune
        numerics cpu-f32-avx512 → cpu-f32-avx2
        key schema 1 → 9
        input teacher changed
        input student is new
        input data is gone
        "#);
    }

    #[test]
    fn an_artifact_is_not_a_file_of_the_same_digest() {
        let mut old = document(json!({}));
        let digest = Digest::of_bytes(b"x");
        old.inputs = [("data".to_owned(), InputDigest::Artifact(digest))].into();
        let mut new = old.clone();
        new.inputs = [("data".to_owned(), InputDigest::File { digest, size: 1 })].into();
        assert_ne!(old.key(), new.key());
        assert_eq!(changes(&old, &new).len(), 1);
    }

    fn any_leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3_i64..3).prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has finite numbers only", |x| x.is_finite())
                .prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ]
    }

    fn any_parameters() -> impl Strategy<Value = Value> {
        any_leaf().prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// `value` as JSON text whose members come in reverse order.
    fn reversed(value: &Value) -> String {
        match value {
            Value::Array(elements) => format!("[{}]", elements.iter().map(reversed).collect::<Vec<_>>().join(",")),
            Value::Object(members) => {
                let member = |(name, member): (&String, &Value)| format!("{}:{}", json!(name), reversed(member));
                format!("{{{}}}", members.iter().rev().map(member).collect::<Vec<_>>().join(","))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        }
    }

    /// The leaves of `value`, empty lists and maps included.
    fn leaves_of(value: &mut Value) -> Vec<&mut Value> {
        let has_parts = match value {
            Value::Array(elements) => !elements.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if !has_parts {
            return vec![value];
        }
        match value {
            Value::Array(elements) => elements.iter_mut().flat_map(leaves_of).collect(),
            Value::Object(members) => members.values_mut().flat_map(leaves_of).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => unreachable!("it has parts"),
        }
    }

    proptest! {
        #[test]
        fn the_order_of_members_and_a_round_trip_change_nothing(parameters in any_parameters()) {
            let document = document(parameters);
            let mut other = document.clone();
            other.parameters = serde_json::from_str(&reversed(&document.parameters)).unwrap();
            prop_assert_eq!(document.key(), other.key());
            let read: KeyDocument = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
            prop_assert_eq!(document.key(), read.key());
        }

        #[test]
        fn any_changed_leaf_changes_the_key(
            parameters in any_parameters(),
            at: prop::sample::Index,
            leaf in any_leaf(),
        ) {
            let old = document(parameters);
            let mut new = old.clone();
            let mut leaves = leaves_of(&mut new.parameters);
            let count = leaves.len();
            let before = std::mem::replace(leaves[at.index(count)], leaf.clone());
            prop_assume!(before != leaf);
            prop_assert_ne!(old.key(), new.key());
            let changes = changes(&old, &new);
            prop_assert!(matches!(changes[..], [Change::Parameter { .. }]), "{:?}", changes);
        }

        #[test]
        fn there_is_a_change_to_tell_if_and_only_if_the_keys_differ(
            a in any_parameters(),
            b in any_parameters(),
            seed in 0_u64..2,
        ) {
            let (a, mut b) = (document(a), document(b));
            b.seed = seed;
            prop_assert_eq!(changes(&a, &b).is_empty(), a.key() == b.key());
            for change in changes(&a, &b) {
                prop_assert_eq!(change.to_string().lines().count(), 1);
            }
        }
    }
}
