//! The keys of a training, which train, distill, prune and quantize steps share.

use crate::diagnostic::Problem;
use crate::section::{Named, Section};
use crate::shape::Interval;
use crate::suggest::listed;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::FinetuneSettings;
use orchestrate_ml::training::{ProductPrecision, Training};

const MOST_EPOCHS: usize = 10_000;
const MOST_STEPS: usize = 1_000_000_000;
const MOST_BATCH: usize = 65_536;

const F32: &str = "f32";

/// Of the two forms of bf16 the one that is fastest on this processor, or f32 if it has instructions for neither.
const BF16: &str = "bf16";

/// The two forms, each of which gives the same bits on every processor.
const FORMS_OF_BF16: [(&str, ProductPrecision); 2] = [
    ("bf16-avx512", ProductPrecision::Bf16),
    ("bf16-amx", ProductPrecision::Bf16Amx),
];

/// How a recipe names the precision that has the numerics class `class` on every processor of this architecture.
pub(crate) fn name_of_class(class: &str) -> Option<&'static str> {
    let has_it = |precision| DeviceChoice::Cpu.numerics(precision) == class;
    let all = FORMS_OF_BF16.into_iter().chain([(F32, ProductPrecision::F32)]);
    all.into_iter()
        .find(|(_, precision)| has_it(*precision))
        .map(|(name, _)| name)
}

/// What differs between the kinds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub epochs: usize,
    pub least_epochs: usize,
    pub adamw_rate: f64,
    pub sgd_rate: f64,
}

/// A model that starts from nothing.
const FROM_SCRATCH: Defaults = Defaults {
    epochs: 3,
    least_epochs: 1,
    adamw_rate: 5e-4,
    sgd_rate: 0.05,
};

/// A trained model that is trained a little more: a fifth of the rate, and perhaps not at all.
pub(super) const FINETUNING: Defaults = Defaults {
    epochs: 1,
    least_epochs: 0,
    adamw_rate: 1e-4,
    sgd_rate: 0.01,
};

/// A pretrained model learns at a tenth of the rate at which one learns from nothing (Devlin et al. 2019, section A.3).
const PRETRAINED: Defaults = Defaults {
    adamw_rate: 5e-5,
    sgd_rate: 5e-3,
    ..FROM_SCRATCH
};

impl Defaults {
    fn rate(&self, optimizer: OptimizerKind) -> f64 {
        match optimizer {
            OptimizerKind::Adamw => self.adamw_rate,
            OptimizerKind::Sgd => self.sgd_rate,
        }
    }
}

/// The first training of a model, whose rate depends on what the model starts from where the recipe does not say it.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    training: Training,
    has_rate: bool,
}

impl Beginning {
    /// Reads it, for `device`, which is known.
    pub fn read(section: &mut Section, least_epochs: usize, device: DeviceChoice) -> Self {
        let defaults = Defaults {
            least_epochs,
            ..FROM_SCRATCH
        };
        Self {
            training: read(section, defaults, device),
            has_rate: section.has("learning_rate"),
        }
    }

    /// Passes over the rows.
    pub fn epochs(&self) -> usize {
        self.training.epochs
    }

    /// The training of a model that is pretrained, or is not.
    pub fn of_model(self, is_pretrained: bool) -> Training {
        let mut training = self.training;
        if is_pretrained && !self.has_rate {
            training.learning_rate = PRETRAINED.rate(training.optimizer);
        }
        training
    }
}

/// Reads a training on `device`, which is known.
pub(super) fn read(section: &mut Section, defaults: Defaults, device: DeviceChoice) -> Training {
    let epochs = section.whole("epochs", defaults.least_epochs, MOST_EPOCHS);
    let max_steps = section.whole("max_steps", 1, MOST_STEPS);
    let batch_size = section.whole("batch_size", 1, MOST_BATCH);
    let optimizer = section.choice(
        "optimizer",
        &[("adamw", OptimizerKind::Adamw), ("sgd", OptimizerKind::Sgd)],
    );
    let momentum = momentum(section, optimizer);
    let optimizer = optimizer.unwrap_or(OptimizerKind::Adamw);
    let decay = match optimizer {
        OptimizerKind::Adamw => 0.01,
        OptimizerKind::Sgd => 0.0,
    };
    let learning_rate = section.real("learning_rate", Interval::above(0.0).to(100.0));
    let weight_decay = section.real("weight_decay", Interval::from(0.0).to(100.0));
    let schedule = section.choice(
        "lr_schedule",
        &[
            ("linear", Schedule::Linear),
            ("constant", Schedule::Constant),
            ("cosine", Schedule::Cosine),
            ("warmup_stable_decay", Schedule::WarmupStableDecay),
        ],
    );
    let lr_decay = lr_decay(section, schedule);
    let warmup = section.real("warmup", Interval::from(0.0).to(1.0));
    let gradient_clip = section.real("gradient_clip", Interval::from(0.0));
    let label_smoothing = section.real("label_smoothing", Interval::from(0.0).below(1.0));
    let dropout = dropout(section);
    let bucket_by_length = section.flag("bucket_by_length");
    let batch_size = batch_size.unwrap_or(32);
    let gradient_accumulation = section.whole("gradient_accumulation", 1, batch_size);
    let gradient_checkpointing = section.flag("gradient_checkpointing");
    let precision = precision(section, epochs != Some(0), device);
    Training {
        epochs: epochs.unwrap_or(defaults.epochs),
        max_steps,
        batch_size,
        learning_rate: learning_rate.unwrap_or_else(|| defaults.rate(optimizer)),
        optimizer,
        momentum,
        weight_decay: weight_decay.unwrap_or(decay),
        schedule: schedule.unwrap_or(Schedule::Linear),
        warmup: warmup.unwrap_or(0.1),
        lr_decay,
        gradient_clip: gradient_clip.unwrap_or(1.0),
        label_smoothing: label_smoothing.unwrap_or(0.0),
        dropout: dropout.unwrap_or(0.1),
        bucket_by_length: bucket_by_length.unwrap_or(true),
        gradient_accumulation: gradient_accumulation.unwrap_or(1),
        gradient_checkpointing: gradient_checkpointing.unwrap_or(false),
        precision,
    }
}

/// What a recipe says of the precision of products.
#[derive(Clone, Copy)]
enum Asked {
    F32,
    Bf16,
    /// A form of bf16, and its name.
    Form(&'static str, ProductPrecision),
}

/// The precision of products on `device`. Where it cannot be what is asked for, that is a warning: a recipe may name it for
/// another machine.
fn precision(section: &mut Section, trains: bool, device: DeviceChoice) -> ProductPrecision {
    let [avx512, amx] = FORMS_OF_BF16.map(|(name, form)| (name, Asked::Form(name, form)));
    let asked = section.choice("precision", &[(F32, Asked::F32), (BF16, Asked::Bf16), avx512, amx]);
    let place = section.place_of("precision").unwrap_or_else(|| section.place());
    let (precision, warning) = match (asked, device) {
        (None | Some(Asked::F32), _) => return ProductPrecision::F32,
        (Some(Asked::Form(_, form)), DeviceChoice::Cpu | DeviceChoice::Auto) => return form,
        (Some(Asked::Bf16), DeviceChoice::Cuda) => return ProductPrecision::Bf16,
        (Some(Asked::Form(name, _)), DeviceChoice::Cuda) => (
            ProductPrecision::Bf16,
            Problem::warning(
                format!("`{name}` is a form of the CPU's"),
                place,
                "CUDA's own form of bf16 is used instead",
                format!("write `precision = \"{BF16}\"`, or choose `device = \"cpu\"`"),
            ),
        ),
        (Some(Asked::Bf16 | Asked::Form(..)), DeviceChoice::Metal) => (
            ProductPrecision::F32,
            Problem::warning(
                "models are not taught in bf16 on metal",
                place,
                "f32 is used instead",
                "leave it out, or choose `device = \"cpu\"`",
            ),
        ),
        (Some(Asked::Bf16), DeviceChoice::Cpu | DeviceChoice::Auto) => match ProductPrecision::fastest_bf16() {
            Some(fastest) => return fastest,
            None => (
                ProductPrecision::F32,
                Problem::warning(
                    "this processor has no instructions for bf16",
                    place,
                    "f32 is used instead",
                    format!(
                        "where bits count more than time, name a form: {}",
                        listed(FORMS_OF_BF16.map(|(name, _)| name))
                    ),
                ),
            ),
        },
    };
    if trains {
        section.warn(warning);
    }
    precision
}

/// The share that is dropped, which training rounds to f32: what becomes 1 by that would drop everything.
fn dropout(section: &mut Section) -> Option<f64> {
    let rate = section.real("dropout", Interval::from(0.0).below(1.0))?;
    if (rate as f32) < 1.0 {
        return Some(rate);
    }
    let place = section.place_of("dropout").unwrap_or_else(|| section.place());
    section.fault(Problem::error(
        "`dropout` is so near to 1 that training rounds it to 1",
        place,
        "drops everything",
        "set `dropout` to 0.9999999 or less",
    ));
    None
}

/// The fall at the end, which the other schedules have not. Of a schedule that was misspelt nothing is said.
fn lr_decay(section: &mut Section, schedule: Option<Schedule>) -> f64 {
    match schedule {
        Some(Schedule::WarmupStableDecay) => {}
        None if section.has("lr_schedule") => {}
        None | Some(Schedule::Constant | Schedule::Linear | Schedule::Cosine) => {
            section.refuse("lr_decay", "only `lr_schedule = \"warmup_stable_decay\"` has it");
            return 0.0;
        }
    }
    section.real("lr_decay", Interval::from(0.0).to(1.0)).unwrap_or(0.2)
}

/// Momentum, which AdamW has not. Of an optimizer that was misspelt nothing is said.
fn momentum(section: &mut Section, optimizer: Option<OptimizerKind>) -> f64 {
    let adamw = match optimizer {
        Some(OptimizerKind::Adamw) => true,
        Some(OptimizerKind::Sgd) => false,
        None => !section.has("optimizer"),
    };
    if adamw {
        section.refuse("momentum", "only `optimizer = \"sgd\"` has it");
        return 0.0;
    }
    section.real("momentum", Interval::from(0.0).below(1.0)).unwrap_or(0.9)
}

/// Reads how a student listens to its teacher.
pub(super) fn read_distillation(section: &mut Section) -> Distillation {
    let temperature = section.real("temperature", Interval::above(0.0).to(1000.0));
    let alpha = section.real("alpha", Interval::from(0.0).to(1.0));
    Distillation {
        temperature: temperature.unwrap_or(2.0),
        alpha: alpha.unwrap_or(0.5),
    }
}

/// Reads the same where there need not be a teacher.
pub(super) fn read_optional_distillation(section: &mut Section) -> Option<Distillation> {
    if section.has("teacher") {
        return Some(read_distillation(section));
    }
    for key in ["temperature", "alpha"] {
        section.refuse(key, "only a step with a `teacher` has it");
    }
    None
}

/// The teacher's name, if there is anything to listen for: without training both it and the settings are dropped.
pub(super) fn teacher_of(teacher: Option<Named>, finetune: &mut FinetuneSettings) -> Option<String> {
    if finetune.training.epochs == 0 {
        finetune.distillation = None;
        return None;
    }
    teacher.map(|named| named.name)
}
