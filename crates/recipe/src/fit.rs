//! What fits what: models to data, data to data, students to teachers.

use crate::diagnostic::Problem;
use crate::flow::{Flow, Traits};
use crate::model::{Model, Origin};
use crate::recipe::Data;
use crate::section::Named;
use crate::source::Place;
use crate::steps::{distill, train};
use crate::suggest::quoted;
use orchestrate_ml::Error;
use orchestrate_ml::data::spec::{Digits, IdxFiles, Reviews, TextFiles};
use orchestrate_ml::data::{DataSpec, Tokenizer, given_tokenizer};
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::steps::Initialization;
use std::path::Path;

/// What the rows of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Text { max_length: usize },
    Images,
}

impl Reads {
    /// What `spec` gives.
    pub fn of(spec: &DataSpec) -> Self {
        match spec {
            DataSpec::Reviews(Reviews { max_length, .. }) | DataSpec::TextFiles(TextFiles { max_length, .. }) => {
                Self::Text {
                    max_length: *max_length,
                }
            }
            DataSpec::Digits(Digits { .. }) | DataSpec::IdxFiles(IdxFiles { .. }) => Self::Images,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Images => "images",
        }
    }
}

impl Flow<'_> {
    /// The new model `model` can read the data set `data`, which is named at `data_place`.
    pub(crate) fn check_fit(&mut self, model: &Named, data: &str, data_place: Place) {
        let (Some(spec), Some(reads)) = (self.spec(&model.name), self.reads(data)) else {
            return;
        };
        let (name, data) = (quoted(&model.name), quoted(data));
        let problem = match (spec, reads) {
            (ModelSpec::Bert { max_positions, .. }, Reads::Text { max_length }) if max_length > *max_positions => {
                Problem::error(
                    format!("rows of {data} have up to {max_length} tokens, but {name} has {max_positions} positions"),
                    model.place,
                    format!("reads up to {max_positions} tokens"),
                    if self.is_pretrained(model) {
                        format!("lower `max_length` of {data}: longer rows are cut")
                    } else {
                        format!("raise `max_positions` of {name}, or lower `max_length` of {data}")
                    },
                )
            }
            (ModelSpec::Bert { .. }, Reads::Text { .. }) => return,
            (ModelSpec::Mlp { .. } | ModelSpec::Lenet5 { .. } | ModelSpec::Resnet8 { .. }, Reads::Images) => return,
            (ModelSpec::Bert { .. }, Reads::Images) => Problem::error(
                format!("{name} reads text, but {data} has images"),
                model.place,
                "a bert model",
                "use a model of architecture \"lenet5\", \"resnet8\" or \"mlp\", or data of text",
            ),
            (ModelSpec::Mlp { .. } | ModelSpec::Lenet5 { .. } | ModelSpec::Resnet8 { .. }, Reads::Text { .. }) => {
                Problem::error(
                    format!("{name} reads images, but {data} has text"),
                    model.place,
                    "a model of images",
                    "use a model of architecture \"bert\", or data of images",
                )
            }
        };
        self.problems.push(problem.and(data_place, "its data come from here"));
    }

    /// The model of step `named` can read the data set `data`, which is named at `place`.
    pub(crate) fn check_same_shape(&mut self, named: &Named, traits: &Traits, data: &str, place: Place) {
        let (Some(trained), Some(given)) = (self.reads(&traits.data), self.reads(data)) else {
            return;
        };
        if trained == given {
            return;
        }
        let (step, data) = (quoted(&named.name), quoted(data));
        let message = match (trained, given) {
            (Reads::Text { max_length: trained }, Reads::Text { max_length: given }) => {
                format!("{step} was trained on rows of up to {trained} tokens, but {data} has up to {given}")
            }
            (Reads::Text { .. } | Reads::Images, Reads::Text { .. } | Reads::Images) => format!(
                "{step} was trained on {}, but {data} has {}",
                trained.noun(),
                given.noun()
            ),
        };
        let help = format!(
            "use {}, on which it was trained, or data of the same shape",
            quoted(&traits.data)
        );
        self.problems.push(Problem::error(message, place, "does not fit", help));
    }

    fn is_pretrained(&self, named: &Named) -> bool {
        self.model(&named.name).is_some_and(Model::is_pretrained)
    }

    /// Texts that are cut as those of the data set `native`, which is named at `place`, are cut as the new model `model` needs it
    /// if it is pretrained.
    pub(crate) fn check_vocabulary(&mut self, model: &Named, native: &str, place: Place) {
        let (Some(declared), Some(data)) = (self.model(&model.name), self.data(native)) else {
            return;
        };
        if !declared.is_pretrained() || Reads::of(&data.spec) == Reads::Images {
            return;
        }
        let (name, quoted_data) = (quoted(&model.name), quoted(native));
        let set = format!(
            "set `tokenizer` of {quoted_data} to the tokenizer.json of the pretrained model, or `vocab` to its vocab.txt, with \
             `lowercase` as it was trained"
        );
        let (message, label, help) = match tokenizer_of(data, declared) {
            Tokens::Same => return,
            Tokens::Learnt => (
                format!("{name} is pretrained, but {quoted_data} learns a vocabulary of its own"),
                "its words would have other numbers",
                set,
            ),
            Tokens::Differ(error) => (error.to_string(), "is cut otherwise", set),
        };
        self.problems
            .push(Problem::error(message, place, label, help).and(model.place, "pretrained"));
    }

    /// A training of no epochs takes pretrained weights as they are, which must be all that the model has.
    pub(crate) fn check_taken_as_is(&mut self, train: &train::Draft) {
        let (Some(place), Some(model)) = (train.no_epochs, self.model(&train.model.name)) else {
            return;
        };
        let name = quoted(&train.model.name);
        let missing = match &model.origin {
            Origin::Seed => format!("{name} starts from the seed, and would know nothing"),
            Origin::Pretrained(pretrained, start) => match pretrained.lacks(&start.settings) {
                Some(part) => format!("{name} starts with a new {part}, which would know nothing"),
                None => return,
            },
            Origin::NotLookedAt => return,
        };
        self.problems.push(
            Problem::error(
                format!("without training {missing}"),
                place,
                "no training",
                "set `epochs` to 1 or more; only a model that is `pretrained` as a whole can be taken as it is",
            )
            .and(train.model.place, "the model"),
        );
    }

    /// A student that starts from its teacher's layers has their widths, and no other weights.
    pub(crate) fn check_initialization(&mut self, distill: &distill::Draft, teacher: &Traits) {
        if distill.initialize != Initialization::Teacher {
            return;
        }
        if self.is_pretrained(&distill.model) {
            let place = distill.initialize_place.unwrap_or(distill.teacher.place);
            self.problems.push(
                Problem::error(
                    format!(
                        "{} is pretrained, and cannot start from its teacher's layers, too",
                        quoted(&distill.model.name)
                    ),
                    place,
                    "starts from layers of the teacher",
                    "remove `initialize`, or name a model without `pretrained`",
                )
                .and(distill.model.place, "pretrained"),
            );
            return;
        }
        let (Some(from), Some(to)) = (self.spec(&teacher.model), self.spec(&distill.model.name)) else {
            return;
        };
        let Some(difference) = difference(from, to, teacher.shrunk) else {
            return;
        };
        let place = distill.initialize_place.unwrap_or(distill.teacher.place);
        self.problems.push(
            Problem::error(
                format!("`initialize = \"teacher\"` copies whole layers, but {difference}"),
                place,
                "cannot be copied",
                "make them equal, or set `initialize = \"random\"`",
            )
            .and(distill.model.place, "the student"),
        );
    }
}

/// How a data set's tokens are those of a pretrained model.
enum Tokens {
    Same,
    /// They are of the data themselves.
    Learnt,
    Differ(Error),
}

fn tokenizer_of(data: &Data, model: &Model) -> Tokens {
    let given = |role: &str| data.files.get(role);
    let Some(path) = given("tokenizer").or_else(|| given("vocab")) else {
        return Tokens::Learnt;
    };
    let Origin::Pretrained(pretrained, start) = &model.origin else {
        return Tokens::Same;
    };
    // As most recipes have it: a tokenizer need not be compared with itself.
    let own = start
        .files
        .get("tokenizer.json")
        .filter(|_| given("tokenizer").is_some());
    let is_own = own.is_some_and(|own| is_same_file(own, path));
    let check = |tokenizer: Tokenizer| {
        if is_own {
            pretrained.check_size(&tokenizer)
        } else {
            pretrained.check_vocabulary(&tokenizer)
        }
    };
    let checked = given_tokenizer(&data.spec, &data.files)
        .map_err(Error::from)
        .and_then(|tokenizer| tokenizer.map_or(Ok(()), check));
    checked.map_or_else(Tokens::Differ, |()| Tokens::Same)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

/// Why a student cannot begin with layers of its teacher. Of a pruned teacher some widths are not known yet.
fn difference(teacher: &ModelSpec, student: &ModelSpec, pruned: bool) -> Option<String> {
    let (Some(from), Some(to)) = (widths(teacher), widths(student)) else {
        return Some("only bert models have layers to copy".to_owned());
    };
    let [from_layers, from_rest @ ..] = from;
    let [to_layers, to_rest @ ..] = to;
    if to_layers.1 > from_layers.1 {
        return Some(format!(
            "the student has {} layers and its teacher {}",
            to_layers.1, from_layers.1
        ));
    }
    from_rest
        .into_iter()
        .zip(to_rest)
        .filter(|((key, _), _)| !(pruned && matches!(*key, "heads" | "intermediate")))
        .find(|(from, to)| from != to)
        .map(|((key, from), (_, to))| format!("the student has `{key}` = {to} and its teacher {from}"))
}

/// The widths of a bert model by key, the number of layers first.
fn widths(spec: &ModelSpec) -> Option<[(&'static str, usize); 5]> {
    match spec {
        ModelSpec::Bert {
            layers,
            hidden,
            heads,
            intermediate,
            max_positions,
        } => Some([
            ("layers", *layers),
            ("hidden", *hidden),
            ("heads", *heads),
            ("intermediate", intermediate.unwrap_or(4 * hidden)),
            ("max_positions", *max_positions),
        ]),
        ModelSpec::Mlp { .. } | ModelSpec::Lenet5 { .. } | ModelSpec::Resnet8 { .. } => None,
    }
}
