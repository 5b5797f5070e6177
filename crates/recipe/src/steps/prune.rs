//! `kind = "prune"`: rounds of removal and finetuning.

use super::training::{self, FINETUNING};
use crate::diagnostic::Problem;
use crate::section::{Named, Section};
use crate::shape::Interval;
use crate::source::Place;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::prune::{Criterion, Granularity, PruneRound, SparsitySchedule};
use orchestrate_ml::steps::FinetuneSettings;

const MOST_ROUNDS: usize = 100;
const MOST_MULTIPLE: usize = 4096;
const FRACTION: Interval = Interval::above(0.0).below(1.0);

/// A prune step.
#[derive(Debug, Clone, PartialEq)]
pub struct Prune {
    /// The step whose model is pruned.
    pub input: String,
    /// Name of the data set.
    pub data: String,
    /// The step that makes the teacher of the finetuning; present if and only if `finetune.distillation` is.
    pub teacher: Option<String>,
    /// What is removed in each round; at least one.
    pub rounds: Vec<PruneRound>,
    /// The training after each round; with no epochs there is none.
    pub finetune: FinetuneSettings,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub input: Named,
    pub data: Option<Named>,
    pub teacher: Option<Named>,
    pub granularity: Granularity,
    /// Of `heads`, if it is set.
    pub heads_place: Option<Place>,
    rounds: Vec<PruneRound>,
    finetune: FinetuneSettings,
}

impl Draft {
    pub(super) fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        section.turns_out_to_be("a prune step");
        let input = section.needed_reference("input", "step");
        let data = section.reference("data", "data set");
        let teacher = section.reference("teacher", "step");
        let shape = shape(&mut section);
        let fractions = fractions(&mut section, shape.granularity);
        let heads_place = section.place_of("heads");
        let distillation = training::read_optional_distillation(&mut section);
        let training = training::read(&mut section, FINETUNING, device);
        let rounds = fractions.into_iter().map(|(neurons, heads)| PruneRound {
            heads,
            neurons,
            ..shape
        });
        let rounds: Vec<PruneRound> = rounds.collect();
        section.done(|| {
            Some(Self {
                input: input?,
                data,
                teacher,
                granularity: shape.granularity,
                heads_place,
                rounds,
                finetune: FinetuneSettings { training, distillation },
            })
        })
    }

    pub(super) fn finish(self, data: String) -> Prune {
        let mut finetune = self.finetune;
        let teacher = training::teacher_of(self.teacher, &mut finetune);
        Prune {
            input: self.input.name,
            data,
            teacher,
            rounds: self.rounds,
            finetune,
        }
    }
}

/// What all rounds have in common, with nothing removed.
fn shape(section: &mut Section) -> PruneRound {
    let granularity = section.choice(
        "granularity",
        &[
            ("structured", Granularity::Structured),
            ("unstructured", Granularity::Unstructured),
        ],
    );
    let granularity = granularity.unwrap_or(Granularity::Structured);
    let criterion = section.choice(
        "criterion",
        &[("magnitude", Criterion::Magnitude), ("random", Criterion::Random)],
    );
    let round_to = match granularity {
        Granularity::Structured => section.whole("round_to", 1, MOST_MULTIPLE).unwrap_or(8),
        Granularity::Unstructured => {
            section.refuse("round_to", "unstructured pruning changes no width");
            1
        }
    };
    PruneRound {
        granularity,
        criterion: criterion.unwrap_or(Criterion::Magnitude),
        heads: 0.0,
        neurons: 0.0,
        round_to,
    }
}

/// The fractions of neurons and of heads that are gone after each round.
fn fractions(section: &mut Section, granularity: Granularity) -> Vec<(f64, f64)> {
    let heads_of = |neurons: f64| match granularity {
        Granularity::Structured => neurons,
        Granularity::Unstructured => 0.0,
    };
    let targets = section.reals("targets", "a list of numbers, one a round", MOST_ROUNDS, FRACTION);
    if section.has("targets") {
        let targets = explicit_targets(section, targets.unwrap_or_default());
        return targets.into_iter().map(|target| (target, heads_of(target))).collect();
    }
    let target = section.real("target", FRACTION);
    section.require("target", "0.5");
    let rounds = section.whole("rounds", 1, MOST_ROUNDS).unwrap_or(3);
    let schedule = section.choice(
        "sparsity_schedule",
        &[("cubic", SparsitySchedule::Cubic), ("linear", SparsitySchedule::Linear)],
    );
    let schedule = schedule.unwrap_or(SparsitySchedule::Cubic);
    let heads = match granularity {
        Granularity::Structured => section.real("heads", Interval::from(0.0).below(1.0)),
        Granularity::Unstructured => {
            section.refuse("heads", "unstructured pruning removes single weights, not heads");
            None
        }
    };
    let target = target.unwrap_or(0.5);
    let heads = heads.unwrap_or(heads_of(target));
    let after = |target, round| schedule.fraction(target, round, rounds);
    (1..=rounds)
        .map(|round| (after(target, round), after(heads, round)))
        .collect()
}

/// `targets = [...]`: each round's own, rising.
fn explicit_targets(section: &mut Section, targets: Vec<f64>) -> Vec<f64> {
    for key in ["target", "rounds", "sparsity_schedule", "heads"] {
        section.refuse(key, "`targets` says what is removed in each round");
    }
    let place = section.place_of("targets").unwrap_or_else(|| section.place());
    if !targets.is_sorted_by(|before, after| before < after) {
        section.fault(Problem::error(
            "`targets` must rise from round to round",
            place,
            "does not rise",
            "each is the part of the dense model that is gone by then: sort them, and leave out equal ones",
        ));
    }
    targets
}
