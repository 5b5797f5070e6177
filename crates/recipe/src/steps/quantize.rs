//! `kind = "quantize"`: calibration and quantization-aware training for 8-bit integers (Jacob et al. 2018), of which a
//! codebook leaves a few (Han et al. 2016).

use super::training::{self, FINETUNING};
use crate::section::{Named, Section};
use crate::shape::Interval;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::quantize::{ObserverKind, WeightScheme};
use orchestrate_ml::steps::{FinetuneSettings, QuantizeSettings};

const MOST_CALIBRATION_ROWS: usize = 1_000_000;

/// A quantize step.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantize {
    /// The step whose model is quantized.
    pub input: String,
    /// Name of the data set.
    pub data: String,
    /// The step that makes the teacher of the training; present if and only if `settings.finetune.distillation` is.
    pub teacher: Option<String>,
    /// Ranges and training.
    pub settings: QuantizeSettings,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub input: Named,
    pub data: Option<Named>,
    pub teacher: Option<Named>,
    settings: QuantizeSettings,
}

#[derive(Debug, Clone, Copy)]
enum Observer {
    MovingAverage,
    MinMax,
    Percentile,
}

impl Draft {
    pub(super) fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        section.turns_out_to_be("a quantize step");
        let input = section.needed_reference("input", "step");
        let data = section.reference("data", "data set");
        let teacher = section.reference("teacher", "step");
        section.fixed(
            "bits",
            8,
            "the only width of integers: `codebook_bits` leaves fewer of them",
        );
        let codebook_bits = codebook_bits(&mut section);
        let observer = observer(&mut section);
        let calibration_rows = section.whole("calibration_rows", 1, MOST_CALIBRATION_ROWS);
        let distillation = training::read_optional_distillation(&mut section);
        let training = training::read(&mut section, FINETUNING, device);
        section.done(|| {
            Some(Self {
                input: input?,
                data,
                teacher,
                settings: QuantizeSettings {
                    weights: codebook_bits.map_or(WeightScheme::Uniform, |bits| WeightScheme::Codebook { bits }),
                    observer,
                    calibration_rows: calibration_rows.unwrap_or(256),
                    finetune: FinetuneSettings { training, distillation },
                },
            })
        })
    }

    pub(super) fn finish(self, data: String) -> Quantize {
        let mut settings = self.settings;
        let teacher = training::teacher_of(self.teacher, &mut settings.finetune);
        Quantize {
            input: self.input.name,
            data,
            teacher,
            settings,
        }
    }
}

fn codebook_bits(section: &mut Section) -> Option<u32> {
    let [fewest, most] = WeightScheme::INDEX_BITS.map(|bits| bits as usize);
    Some(section.whole("codebook_bits", fewest, most)? as u32)
}

fn observer(section: &mut Section) -> ObserverKind {
    let kind = section.choice(
        "observer",
        &[
            ("moving_average", Observer::MovingAverage),
            ("min_max", Observer::MinMax),
            ("percentile", Observer::Percentile),
        ],
    );
    let misspelt = kind.is_none() && section.has("observer");
    match kind.unwrap_or(Observer::MovingAverage) {
        Observer::Percentile => percentile(section),
        Observer::MovingAverage if misspelt => percentile(section),
        Observer::MovingAverage => {
            refuse_percentile(section);
            ObserverKind::MovingAverage
        }
        Observer::MinMax => {
            refuse_percentile(section);
            ObserverKind::MinMax
        }
    }
}

fn percentile(section: &mut Section) -> ObserverKind {
    let percentile = section.real("percentile", Interval::above(50.0).to(100.0));
    ObserverKind::Percentile {
        percentile: percentile.unwrap_or(99.9),
    }
}

fn refuse_percentile(section: &mut Section) {
    section.refuse("percentile", "only `observer = \"percentile\"` has it");
}
