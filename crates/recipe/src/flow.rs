//! What flows from step to step: which data set, what was done to the model. Whatever could only fail hours later is
//! refused here.
//!
//! A step whose input is unknown, because it is missing or faulty, is not judged.

use crate::check::Declared;
use crate::diagnostic::{Problem, Problems};
use crate::fit::Reads;
use crate::model::{Model, Origin};
use crate::recipe::Data;
use crate::section::Named;
use crate::steps::{Draft, export, prune, quantize};
use crate::suggest::{quoted, shortened};
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::prune::Granularity;
use orchestrate_ml::quantize::LONGEST_SUM;
use orchestrate_ml::steps::Precision;
use std::collections::BTreeMap;

/// The parts of a recipe, each in the order of the text.
#[derive(Debug)]
pub(crate) struct Parts {
    pub data: Vec<Declared<Data>>,
    pub models: Vec<Declared<Model>>,
    pub steps: Vec<Declared<Draft>>,
}

/// What a step leaves behind.
#[derive(Debug, Clone)]
enum Product {
    Model(Traits),
    Export(Traits),
    /// An evaluation leaves figures alone.
    Figures,
}

/// What is known of a model before it is there.
#[derive(Debug, Clone)]
pub(crate) struct Traits {
    /// Name of the data set that it was trained on.
    pub data: String,
    /// Name of the data set by which texts are cut: that of the first model in its line.
    native: String,
    /// Name of the architecture that it began with.
    pub model: String,
    /// Whether units were removed.
    pub shrunk: bool,
    /// Whether weights are masked.
    masked: bool,
    quantized: bool,
}

/// Follows the steps in `order`; gives each step's data set by the step's index.
pub(crate) fn follow(parts: &Parts, order: &[usize], problems: &mut Problems) -> BTreeMap<usize, String> {
    let mut flow = Flow {
        parts,
        products: BTreeMap::new(),
        problems,
    };
    let mut step_data = BTreeMap::new();
    for index in order {
        let step = &parts.steps[*index];
        let Some(draft) = &step.value else { continue };
        if let Some((data, product)) = flow.step(draft) {
            step_data.insert(*index, data);
            flow.products.insert(&step.name.name, product);
        }
    }
    step_data
}

/// The way through the steps, with what they left so far.
pub(crate) struct Flow<'a> {
    parts: &'a Parts,
    products: BTreeMap<&'a str, Product>,
    pub problems: &'a mut Problems,
}

impl Flow<'_> {
    /// The data set and the product of a step, if what it needs is known.
    fn step(&mut self, draft: &Draft) -> Option<(String, Product)> {
        let teacher = draft.teacher().map(|named| self.model_of(named, "teacher", false));
        let exports_too = matches!(draft, Draft::Evaluate(_));
        let input = draft.input().map(|named| self.model_of(named, "input", exports_too));
        let (teacher, input) = (flatten(teacher)?, flatten(input)?);
        let inherited = input.as_ref().or(teacher.as_ref()).map(|traits| traits.data.as_str());
        let data = draft.data().map(|named| named.name.as_str()).or(inherited)?.to_owned();
        for (link, traits) in [(draft.input(), &input), (draft.teacher(), &teacher)] {
            if let (Some(named), Some(traits)) = (link, traits) {
                let place = draft.data().map_or(named.place, |own| own.place);
                self.check_same_shape(named, traits, &data, place);
            }
        }
        let product = match draft {
            Draft::Train(train) => {
                self.check_fit(&train.model, &data, train.data.place);
                self.check_vocabulary(&train.model, &data, train.data.place);
                self.check_taken_as_is(train);
                Product::Model(Traits::new(&data, &data, &train.model))
            }
            Draft::Distill(distill) => {
                let place = distill.data.as_ref().map_or(distill.teacher.place, |own| own.place);
                self.check_fit(&distill.model, &data, place);
                let teacher = teacher?;
                self.check_vocabulary(&distill.model, &teacher.native, distill.teacher.place);
                self.check_initialization(distill, &teacher);
                Product::Model(Traits::new(&data, &teacher.native, &distill.model))
            }
            Draft::Prune(prune) => Product::Model(self.pruned(prune, input?)),
            Draft::Quantize(quantize) => Product::Model(self.quantized(quantize, input?)),
            Draft::Export(export) => Product::Export(self.exported(export, input?)),
            Draft::Evaluate(_) => Product::Figures,
        };
        Some((data, product))
    }

    /// What is known of the model that the step `named` leaves.
    fn model_of(&mut self, named: &Named, key: &str, exports_too: bool) -> Option<Traits> {
        let (label, what) = match self.products.get(named.name.as_str())? {
            Product::Model(traits) => return Some(traits.clone()),
            Product::Export(traits) if exports_too => return Some(traits.clone()),
            Product::Export(_) => ("an export", "nothing is trained on an exported file"),
            Product::Figures => ("an evaluation", "an evaluation makes no model"),
        };
        let source = self.parts.steps.iter().find(|step| step.name.name == named.name);
        let source = source.and_then(|step| step.value.as_ref()?.input());
        let instead = source.map_or_else(String::new, |source| {
            format!(": use {}, its own input", quoted(&source.name))
        });
        self.problems.push(Problem::error(
            format!(
                "`{key}` must be a step that makes a model; {} is {label}",
                quoted(&named.name)
            ),
            named.place,
            label,
            format!("{what}{instead}"),
        ));
        None
    }

    fn pruned(&mut self, prune: &prune::Draft, input: Traits) -> Traits {
        let name = quoted(&prune.input.name);
        if input.quantized {
            self.problems.push(Problem::error(
                format!("{name} is quantized, and a quantized model is not pruned"),
                prune.input.place,
                "quantized",
                "prune first, and give the pruned model to the quantize step",
            ));
        }
        let structured = prune.granularity == Granularity::Structured;
        if structured && input.masked {
            self.problems.push(Problem::error(
                format!("{name} is pruned unstructured, and whole units cannot be removed under its masks"),
                prune.input.place,
                "has masks",
                "prune structured first, unstructured after it",
            ));
        }
        if let (Some(place), Some(ModelSpec::Mlp { .. } | ModelSpec::Lenet5 { .. } | ModelSpec::Resnet8 { .. })) =
            (prune.heads_place, self.spec(&input.model))
        {
            self.problems.push(Problem::error(
                format!(
                    "`heads` has no meaning here: the model {} has no attention",
                    quoted(&input.model)
                ),
                place,
                "has no effect",
                "remove it: `target` is for neurons and channels",
            ));
        }
        Traits {
            shrunk: input.shrunk || structured,
            masked: input.masked || !structured,
            ..input
        }
    }

    fn quantized(&mut self, quantize: &quantize::Draft, input: Traits) -> Traits {
        if input.quantized {
            self.problems.push(Problem::error(
                format!("{} is quantized already", quoted(&quantize.input.name)),
                quantize.input.place,
                "quantized",
                "quantize once: use the input of that step, or remove one of the two",
            ));
        }
        if let Some(spec) = self.spec(&input.model).filter(|_| !input.shrunk)
            && spec.longest_sum() > LONGEST_SUM
        {
            self.problems.push(Problem::error(
                format!(
                    "a layer of {} sums {} products, and in 8 bits more than {LONGEST_SUM} could overflow",
                    quoted(&input.model),
                    spec.longest_sum()
                ),
                quantize.input.place,
                "too wide to be quantized",
                format!("make {} narrower, or prune it structured first", quoted(&input.model)),
            ));
        }
        Traits {
            quantized: true,
            ..input
        }
    }

    fn exported(&mut self, export: &export::Draft, input: Traits) -> Traits {
        let name = quoted(&export.input.name);
        let problem = match (export.precision, input.quantized) {
            (Precision::Int8, true) | (Precision::F32, false) => None,
            (Precision::Int8, false) => Some((
                format!("{name} is not quantized, so it cannot be exported as int8"),
                "int8 needs a quantized model",
                format!(
                    "put a quantize step with `input = \"{}\"` between them, or set `precision = \"f32\"`",
                    shortened(&export.input.name)
                ),
            )),
            (Precision::F32, true) => Some((
                format!("{name} is quantized, and an export as f32 would lose that"),
                "loses the quantization",
                "set `precision = \"int8\"`, or export the step before the quantization".to_owned(),
            )),
        };
        if let Some((message, label, help)) = problem {
            let place = export.precision_place.unwrap_or(export.input.place);
            self.problems.push(Problem::error(message, place, label, help));
        }
        input
    }

    /// The model declared as `name`.
    pub fn model(&self, name: &str) -> Option<&Model> {
        find(&self.parts.models, name)
    }

    /// The architecture of the model declared as `name`, if it is known.
    pub fn spec(&self, name: &str) -> Option<&ModelSpec> {
        let model = self.model(name)?;
        match model.origin {
            Origin::Seed | Origin::Pretrained(..) => Some(&model.spec),
            Origin::NotLookedAt => None,
        }
    }

    /// The data set declared as `name`.
    pub fn data(&self, name: &str) -> Option<&Data> {
        find(&self.parts.data, name)
    }

    /// What the data set declared as `name` gives.
    pub fn reads(&self, name: &str) -> Option<Reads> {
        self.data(name).map(|data| Reads::of(&data.spec))
    }
}

impl Traits {
    /// Of a model that was just trained.
    fn new(data: &str, native: &str, model: &Named) -> Self {
        Self {
            data: data.to_owned(),
            native: native.to_owned(),
            model: model.name.clone(),
            shrunk: false,
            masked: false,
            quantized: false,
        }
    }
}

/// What was declared as `name`, if it is well.
fn find<'a, T>(declared: &'a [Declared<T>], name: &str) -> Option<&'a T> {
    declared.iter().find(|one| one.name.name == name)?.value.as_ref()
}

/// Nothing if something was looked for and not found.
fn flatten<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        None => Some(None),
        Some(found) => found.map(Some),
    }
}
