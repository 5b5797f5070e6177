//! From a checked recipe to the engine's actions.
//!
//! A step lowers to the actions between which work is worth keeping: a data set, a teacher's logits and every round of a
//! pruning are artifacts of their own. Every step is evaluated by one more action, on the files that it wrote.
//!
//! Invariant: an action's parameters and seed hold what its result depends on and nothing else, so that an edit makes stale
//! no more than it must. A seed that an action does not use is 0.

use crate::kinds::ActionKind;
use crate::recipe::{Data, Recipe, Step, StepKind};
use crate::steps::{Distill, Export, Prune, Quantize, Train};
use orchestrate_engine::{Action, ActionGraph, ActionId, Demand, GraphError, Input};
use orchestrate_ml::data::{DataSpec, digits, reviews};
use orchestrate_ml::prune::{Criterion, PruneRound};
use orchestrate_ml::steps::{EvaluateSettings, FinetuneSettings, Initialization, Precision};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Rows of a batch in evaluations; it has no influence on predictions beyond rounding.
pub(crate) const EVALUATION_BATCH: usize = 64;

/// A recipe as actions.
#[derive(Debug)]
pub struct Lowered {
    /// All actions.
    pub graph: ActionGraph,
    /// One a step, in the recipe's order.
    pub steps: Vec<LoweredStep>,
}

/// One step's actions.
#[derive(Debug, Clone)]
pub struct LoweredStep {
    /// Its name.
    pub name: String,
    /// Its kind, as the recipe writes it.
    pub kind: &'static str,
    /// The actions of this step alone, in order, its evaluation last.
    pub actions: Vec<ActionId>,
    /// The action that makes its model; another step's where this one only evaluates.
    pub model: ActionId,
    /// The action that evaluates it.
    pub evaluation: ActionId,
}

impl Lowered {
    /// Lowers `recipe` for the device that it asks for.
    ///
    /// # Errors
    /// [`GraphError`] if two actions came to have the same name, which a checked recipe does not lead to.
    pub fn new(recipe: &Recipe) -> Result<Self, GraphError> {
        let mut lowering = Lowering {
            recipe,
            numerics: recipe.device.numerics(),
            graph: ActionGraph::new(),
            data: HashMap::new(),
            logits: HashMap::new(),
            steps: Vec::new(),
        };
        for step in &recipe.steps {
            lowering.step(step)?;
        }
        Ok(Self {
            graph: lowering.graph,
            steps: lowering.steps,
        })
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&LoweredStep> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// What a build of the steps in `names` must make; of all steps if there are none.
    pub fn targets(&self, names: &[String]) -> Vec<ActionId> {
        let chosen = self
            .steps
            .iter()
            .filter(|s| names.is_empty() || names.contains(&s.name));
        chosen.flat_map(|step| [step.model, step.evaluation]).collect()
    }
}

struct Lowering<'a> {
    recipe: &'a Recipe,
    numerics: String,
    graph: ActionGraph,
    data: HashMap<&'a str, ActionId>,
    /// By teacher step and data set.
    logits: HashMap<(&'a str, &'a str), ActionId>,
    steps: Vec<LoweredStep>,
}

/// An action without its surroundings.
struct Draft<'a> {
    name: String,
    step: &'a str,
    kind: ActionKind,
    parameters: Value,
    seed: u64,
    inputs: BTreeMap<String, Input>,
    demand: Demand,
}

impl<'a> Lowering<'a> {
    fn step(&mut self, step: &'a Step) -> Result<(), GraphError> {
        let name = step.name.as_str();
        let first = self.graph.len();
        let (model, data, reference) = match &step.kind {
            StepKind::Train(train) => (self.train(name, train)?, &train.data, None),
            StepKind::Distill(distill) => (self.distill(name, distill)?, &distill.data, None),
            StepKind::Prune(prune) => (self.prune(name, prune)?, &prune.data, None),
            StepKind::Quantize(quantize) => (self.quantize(name, quantize)?, &quantize.data, None),
            StepKind::Export(export) => {
                let simulated = (export.settings.precision == Precision::Int8).then_some(export.input.as_str());
                (self.export(name, export)?, &export.data, simulated)
            }
            StepKind::Evaluate(evaluate) => (self.model_of(&evaluate.input), &evaluate.data, None),
        };
        let evaluation = self.evaluate(name, model, data, reference)?;
        let actions = self.graph.iter().skip(first).filter(|(_, action)| action.step == name);
        self.steps.push(LoweredStep {
            name: step.name.clone(),
            kind: step.kind.name(),
            actions: actions.map(|(id, _)| id).collect(),
            model,
            evaluation,
        });
        Ok(())
    }

    fn add(&mut self, draft: Draft<'a>) -> Result<ActionId, GraphError> {
        let numerics = if draft.kind.is_exact() {
            "exact".to_owned()
        } else {
            self.numerics.clone()
        };
        self.graph.add(Action {
            name: draft.name,
            step: draft.step.to_owned(),
            kind: draft.kind.versioned(),
            parameters: draft.parameters,
            seed: draft.seed,
            numerics,
            inputs: draft.inputs,
            demand: draft.demand,
        })
    }

    /// The action that prepares the data set `name`, made when it is first asked for.
    fn data(&mut self, name: &'a str) -> Result<ActionId, GraphError> {
        if let Some(id) = self.data.get(name) {
            return Ok(*id);
        }
        let Data { spec, files } = &self.recipe.data[name];
        let id = self.add(Draft {
            name: format!("data.{name}"),
            step: name,
            kind: ActionKind::Data,
            parameters: json!({ "spec": resolved(spec), "generator": generator_version(spec) }),
            seed: 0,
            inputs: files
                .iter()
                .map(|(role, path)| (role.clone(), Input::File(path.clone())))
                .collect(),
            demand: Demand::Light,
        })?;
        self.data.insert(name, id);
        Ok(id)
    }

    /// The action that runs the model of step `teacher` over the training rows of `data`.
    fn logits(&mut self, teacher: &'a str, data: &'a str) -> Result<ActionId, GraphError> {
        if let Some(id) = self.logits.get(&(teacher, data)) {
            return Ok(*id);
        }
        let inputs = inputs([("teacher", self.model_of(teacher)), ("data", self.data(data)?)]);
        let id = self.add(Draft {
            name: format!("{teacher}.logits.{data}"),
            step: teacher,
            kind: ActionKind::Logits,
            parameters: json!({}),
            seed: 0,
            inputs,
            demand: Demand::Slot,
        })?;
        self.logits.insert((teacher, data), id);
        Ok(id)
    }

    fn train(&mut self, name: &'a str, step: &'a Train) -> Result<ActionId, GraphError> {
        let inputs = inputs([("data", self.data(&step.data)?)]);
        self.trained(
            name.to_owned(),
            name,
            ActionKind::Train,
            resolved(&step.settings),
            inputs,
            0,
        )
    }

    fn distill(&mut self, name: &'a str, step: &'a Distill) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([
            ("data", self.data(&step.data)?),
            ("logits", self.logits(&step.teacher, &step.data)?),
        ]);
        if step.settings.initialize == Initialization::Teacher {
            inputs.insert("teacher".into(), Input::Action(self.model_of(&step.teacher)));
        }
        self.trained(
            name.to_owned(),
            name,
            ActionKind::Distill,
            resolved(&step.settings),
            inputs,
            0,
        )
    }

    fn prune(&mut self, name: &'a str, step: &'a Prune) -> Result<ActionId, GraphError> {
        let mut model = self.model_of(&step.input);
        for (index, round) in step.rounds.iter().enumerate() {
            let number = index as u64 + 1;
            let seed = if uses_chance(round) {
                self.recipe.seed.wrapping_add(number)
            } else {
                0
            };
            model = self.add(Draft {
                name: format!("{name}.prune-{number}"),
                step: name,
                kind: ActionKind::Prune,
                parameters: resolved(round),
                seed,
                inputs: inputs([("model", model)]),
                demand: Demand::Light,
            })?;
            if step.finetune.training.epochs > 0 {
                model = self.finetune(name, step, number, model)?;
            }
        }
        Ok(model)
    }

    fn finetune(
        &mut self,
        name: &'a str,
        step: &'a Prune,
        round: u64,
        model: ActionId,
    ) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([("model", model), ("data", self.data(&step.data)?)]);
        if let Some(teacher) = &step.teacher {
            inputs.insert("logits".into(), Input::Action(self.logits(teacher, &step.data)?));
        }
        let settings: &FinetuneSettings = &step.finetune;
        let action = format!("{name}.finetune-{round}");
        self.trained(action, name, ActionKind::Finetune, resolved(settings), inputs, round)
    }

    fn quantize(&mut self, name: &'a str, step: &'a Quantize) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([("model", self.model_of(&step.input)), ("data", self.data(&step.data)?)]);
        if let Some(teacher) = &step.teacher {
            inputs.insert("logits".into(), Input::Action(self.logits(teacher, &step.data)?));
        }
        self.trained(
            name.to_owned(),
            name,
            ActionKind::Quantize,
            resolved(&step.settings),
            inputs,
            0,
        )
    }

    /// An action that trains. `round` sets the random streams of a pruning's rounds apart.
    fn trained(
        &mut self,
        name: String,
        step: &'a str,
        kind: ActionKind,
        parameters: Value,
        inputs: BTreeMap<String, Input>,
        round: u64,
    ) -> Result<ActionId, GraphError> {
        let seed = self.recipe.seed.wrapping_add(round);
        let demand = Demand::Slot;
        self.add(Draft {
            name,
            step,
            kind,
            parameters,
            seed,
            inputs,
            demand,
        })
    }

    fn export(&mut self, name: &'a str, step: &'a Export) -> Result<ActionId, GraphError> {
        let inputs = inputs([("model", self.model_of(&step.input))]);
        self.add(Draft {
            name: name.to_owned(),
            step: name,
            kind: ActionKind::Export,
            parameters: resolved(&step.settings),
            seed: 0,
            inputs,
            demand: Demand::Light,
        })
    }

    fn evaluate(
        &mut self,
        step: &'a str,
        model: ActionId,
        data: &'a str,
        reference: Option<&str>,
    ) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([("model", model), ("data", self.data(data)?)]);
        if let Some(reference) = reference {
            inputs.insert("reference".into(), Input::Action(self.evaluation_of(reference)));
        }
        let latency_seconds = self.recipe.latency_seconds;
        let settings = EvaluateSettings {
            batch_size: EVALUATION_BATCH,
            latency_seconds,
        };
        self.add(Draft {
            name: format!("{step}.evaluate"),
            step,
            kind: ActionKind::Evaluate,
            parameters: resolved(&settings),
            seed: 0,
            inputs,
            demand: if latency_seconds > 0.0 {
                Demand::Whole
            } else {
                Demand::Slot
            },
        })
    }

    fn lowered(&self, step: &str) -> &LoweredStep {
        let found = self.steps.iter().find(|s| s.name == step);
        found.expect("a checked recipe has its steps behind those that they refer to")
    }

    fn model_of(&self, step: &str) -> ActionId {
        self.lowered(step).model
    }

    fn evaluation_of(&self, step: &str) -> ActionId {
        self.lowered(step).evaluation
    }
}

fn inputs<const N: usize>(actions: [(&str, ActionId); N]) -> BTreeMap<String, Input> {
    actions
        .into_iter()
        .map(|(role, id)| (role.to_owned(), Input::Action(id)))
        .collect()
}

fn resolved(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).expect("settings have string keys and finite numbers")
}

fn uses_chance(round: &PruneRound) -> bool {
    match round.criterion {
        Criterion::Random => true,
        Criterion::Magnitude => false,
    }
}

/// Of the built-in generators: a new version makes other rows from the same settings.
fn generator_version(spec: &DataSpec) -> u32 {
    match spec {
        DataSpec::Reviews(_) => reviews::VERSION,
        DataSpec::Digits(_) => digits::VERSION,
        DataSpec::TextFiles(_) | DataSpec::IdxFiles(_) => 0,
    }
}
