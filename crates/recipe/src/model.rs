//! `[model.NAME]`: an architecture and its widths, or the folder of a pretrained model that has them.

use crate::diagnostic::Problem;
use crate::path::{Folders, folder};
use crate::recipe::Start;
use crate::section::Section;
use orchestrate_ml::Error;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::pretrained::{Classifier, Pretrained, PretrainedSettings, files_of};
use std::path::Path;

const MOST_LAYERS: usize = 256;
const MOST_WIDTH: usize = 65_536;
const LEAST_POSITIONS: usize = 3;
const DEFAULT_POSITIONS: usize = 512;
const MOST_CLASSES: usize = 65_536;

/// Of a pretrained model whose files are not looked at: BERT-base, which stands in for it.
const NOT_LOOKED_AT: ModelSpec = ModelSpec::Bert {
    layers: 12,
    hidden: 768,
    heads: 12,
    intermediate: Some(3072),
    max_positions: DEFAULT_POSITIONS,
};

/// A model that was declared.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub spec: ModelSpec,
    pub origin: Origin,
}

/// What a model starts from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Seed,
    /// Weights that were looked at, and how it starts from them.
    Pretrained(Box<Pretrained>, Start),
    /// Weights whose files are not looked at: the architecture only stands in for theirs.
    NotLookedAt,
}

impl Model {
    fn from_seed(spec: ModelSpec) -> Self {
        let origin = Origin::Seed;
        Self { spec, origin }
    }

    /// Whether it starts from weights that were trained elsewhere.
    pub fn is_pretrained(&self) -> bool {
        match self.origin {
            Origin::Seed => false,
            Origin::Pretrained(..) | Origin::NotLookedAt => true,
        }
    }

    /// Its architecture, and the weights that it starts from, if not from the seed.
    pub fn into_parts(self) -> (ModelSpec, Option<Start>) {
        let start = match self.origin {
            Origin::Seed => None,
            Origin::Pretrained(_, start) => Some(start),
            Origin::NotLookedAt => Some(Start::default()),
        };
        (self.spec, start)
    }
}

#[derive(Debug, Clone, Copy)]
enum Family {
    Bert,
    Mlp,
    Lenet5,
    Resnet8,
}

/// Reads a model.
pub(crate) fn read(mut section: Section, folders: &Folders) -> Option<Model> {
    let family = section.choice(
        "architecture",
        &[
            ("bert", Family::Bert),
            ("mlp", Family::Mlp),
            ("lenet5", Family::Lenet5),
            ("resnet8", Family::Resnet8),
        ],
    );
    section.require("architecture", "\"bert\"");
    let Some(family) = family else {
        return section.given_up();
    };
    let model = match family {
        Family::Bert => bert(&mut section, folders),
        Family::Mlp => mlp(&mut section).map(Model::from_seed),
        Family::Lenet5 => lenet5(&mut section).map(Model::from_seed),
        Family::Resnet8 => resnet8(&mut section).map(Model::from_seed),
    };
    section.done(|| model)
}

fn bert(section: &mut Section, folders: &Folders) -> Option<Model> {
    section.turns_out_to_be("a bert model");
    let found = folder(section, "pretrained", folders);
    if section.has("pretrained") {
        return pretrained(section, found.as_deref(), folders.look);
    }
    for key in ["classifier", "classes"] {
        section.refuse(key, "only a model with `pretrained` has it");
    }
    bert_of_widths(section).map(Model::from_seed)
}

/// A BERT whose weights are in `folder`, if that is there.
fn pretrained(section: &mut Section, folder: Option<&Path>, look: bool) -> Option<Model> {
    for key in ["layers", "hidden", "heads", "intermediate", "max_positions"] {
        section.refuse(key, "the folder of `pretrained` says it");
    }
    let classifier = section.choice("classifier", &[("keep", Classifier::Keep), ("new", Classifier::New)]);
    let what = "a list of strings: what each output of the classifier stands for";
    let classes = match classifier {
        Some(Classifier::New) => {
            section.refuse("classes", "a new classifier has those of the data");
            None
        }
        None | Some(Classifier::Keep) => section.texts("classes", what, (2, MOST_CLASSES)),
    };
    let settings = PretrainedSettings {
        classifier: classifier.unwrap_or_default(),
        classes,
    };
    let folder = folder?;
    if !look {
        return Some(Model {
            spec: NOT_LOOKED_AT,
            origin: Origin::NotLookedAt,
        });
    }
    let opened = files_of(folder).and_then(|files| Ok((Pretrained::open(&files)?, files)));
    let (pretrained, files) = opened
        .map_err(|error| {
            let help = "name a folder with config.json and model.safetensors of a BERT or DistilBERT, as `save_pretrained` of \
                        Hugging Face's transformers writes it, or an export of this program with `precision = \"f32\"`";
            refuse(section, "pretrained", error, help);
        })
        .ok()?;
    let settings = pretrained
        .resolve(settings)
        .map_err(|error| {
            let key = if section.has("classes") { "classes" } else { "pretrained" };
            let help = "`classes` names what each output of the classifier stands for, in the words of the data's labels; \
                        `classifier = \"new\"` starts with another one";
            refuse(section, key, error, help);
        })
        .ok()?;
    Some(Model {
        spec: pretrained.spec(),
        origin: Origin::Pretrained(Box::new(pretrained), Start { settings, files }),
    })
}

fn refuse(section: &mut Section, key: &'static str, error: Error, help: &str) {
    let place = section.place_of(key).unwrap_or_else(|| section.place());
    section.fault(Problem::error(error.to_string(), place, "cannot be started from", help));
}

fn bert_of_widths(section: &mut Section) -> Option<ModelSpec> {
    let layers = section.whole("layers", 1, MOST_LAYERS);
    section.require("layers", "2");
    let hidden = section.whole("hidden", 1, MOST_WIDTH);
    section.require("hidden", "256");
    let heads = section.whole("heads", 1, MOST_WIDTH);
    section.require("heads", "4");
    let intermediate = section.whole("intermediate", 1, MOST_WIDTH);
    let max_positions = section.whole("max_positions", LEAST_POSITIONS, MOST_WIDTH);
    let (layers, hidden, heads) = (layers?, hidden?, heads?);
    if !hidden.is_multiple_of(heads) {
        divide(section, hidden, heads);
    }
    Some(ModelSpec::Bert {
        layers,
        hidden,
        heads,
        intermediate: Some(intermediate.unwrap_or(4 * hidden)),
        max_positions: max_positions.unwrap_or(DEFAULT_POSITIONS),
    })
}

fn divide(section: &mut Section, hidden: usize, heads: usize) {
    let near = (1..=heads)
        .rev()
        .find(|count| hidden.is_multiple_of(*count))
        .unwrap_or(1);
    let place = section.place_of("heads").unwrap_or_else(|| section.place());
    let width = section.place_of("hidden").unwrap_or(place);
    section.fault(
        Problem::error(
            format!("{heads} heads do not divide `hidden` = {hidden}"),
            place,
            "does not divide it",
            format!("each head has an equal part of the width: use {near} heads, or another width"),
        )
        .and(width, "the width"),
    );
}

fn mlp(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("an mlp model");
    let what = "a list of whole numbers: the width of each hidden layer";
    let hidden = section.wholes("hidden", what, (1, MOST_LAYERS), (1, MOST_WIDTH));
    Some(ModelSpec::Mlp {
        hidden: hidden.unwrap_or_else(|| vec![300, 100]),
    })
}

fn lenet5(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("a lenet5 model");
    let channels = section.wholes("channels", "a list of two whole numbers", (2, 2), (1, MOST_WIDTH));
    let hidden = section.whole("hidden", 1, MOST_WIDTH);
    Some(ModelSpec::Lenet5 {
        channels: channels.unwrap_or_else(|| vec![20, 50]),
        hidden: hidden.unwrap_or(500),
    })
}

fn resnet8(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("a resnet8 model");
    let channels = section.wholes("channels", "a list of three whole numbers", (3, 3), (1, MOST_WIDTH));
    Some(ModelSpec::Resnet8 {
        channels: channels.unwrap_or_else(|| vec![16, 32, 64]),
    })
}
