//! From a checked recipe to the engine's actions.
//!
//! A step lowers to the actions between which work is worth keeping: a data set, its training rows, a teacher's logits and
//! every round of a pruning are artifacts of their own. Every step is evaluated by one more action, on the files that it
//! wrote. A data set that is not the one a model was trained on is prepared once more, as that model reads its input.
//!
//! Invariant: an action's parameters and seed hold what its result depends on and nothing else, so that an edit makes stale
//! no more than it must. A seed that an action does not use is 0.

use crate::demand::Demands;
use crate::estimate::Estimates;
use crate::kinds::{ActionKind, LIKE};
use crate::lowered::LoweredStep;
use crate::recipe::{Data, Recipe, Step, StepKind};
use crate::steps::{Distill, Export, Prune, Quantize, Train};
use orchestrate_engine::{Action, ActionGraph, ActionId, Demand, GraphError, Input};
use orchestrate_ml::data::{DataSpec, digits, reviews};
use orchestrate_ml::prune::{Criterion, PruneRound};
use orchestrate_ml::steps::{EvaluateSettings, Initialization, LogitsSettings, Precision};
use orchestrate_ml::training::{ProductPrecision, Training};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Rows of a batch in evaluations; it has no influence on predictions beyond rounding.
pub(crate) const EVALUATION_BATCH: usize = 64;

/// The actions of `recipe`, and those of each of its steps, in the recipe's order.
pub(crate) fn actions(recipe: &Recipe) -> Result<(ActionGraph, Vec<LoweredStep>), GraphError> {
    let mut lowering = Lowering {
        recipe,
        graph: ActionGraph::new(),
        data: HashMap::new(),
        training_rows: HashMap::new(),
        logits: HashMap::new(),
        readings: HashMap::new(),
        steps: Vec::new(),
        estimates: Estimates::new(recipe),
        demands: Demands::new(recipe),
    };
    for step in &recipe.steps {
        lowering.step(step)?;
    }
    Ok((lowering.graph, lowering.steps))
}

/// The parameters of a training without those by which one of another length, or of another course from some step on,
/// differs: they are told in each checkpoint. Nothing for an action that does not train.
fn trajectory(parameters: &Value) -> Option<Value> {
    let mut parameters = parameters.clone();
    let place = if parameters.get("finetune").is_some() {
        "/finetune/training"
    } else {
        "/training"
    };
    let training = parameters.pointer_mut(place)?.as_object_mut()?;
    for key in ["epochs", "max_steps", "learning_rate", "schedule", "warmup", "lr_decay"] {
        training.remove(key);
    }
    Some(parameters)
}

/// How a model reads: as the model of `root` was taught to, by the data set `native`.
#[derive(Clone, Copy)]
struct Reading<'a> {
    native: &'a str,
    root: &'a str,
}

struct Lowering<'a> {
    recipe: &'a Recipe,
    graph: ActionGraph,
    /// By data set, and the step whose model's way of reading it is prepared for, if that is not its own.
    data: HashMap<(&'a str, Option<&'a str>), ActionId>,
    /// By data set's action.
    training_rows: HashMap<ActionId, ActionId>,
    /// By teacher step and training rows.
    logits: HashMap<(&'a str, ActionId), ActionId>,
    /// By step.
    readings: HashMap<&'a str, Reading<'a>>,
    steps: Vec<LoweredStep>,
    estimates: Estimates<'a>,
    demands: Demands<'a>,
}

/// An action without its surroundings.
struct Draft {
    name: String,
    step: String,
    kind: ActionKind,
    parameters: Value,
    precision: ProductPrecision,
    seed: u64,
    inputs: BTreeMap<String, Input>,
    demand: Demand,
    memory: Option<u64>,
}

impl<'a> Lowering<'a> {
    fn step(&mut self, step: &'a Step) -> Result<(), GraphError> {
        let name = step.name.as_str();
        let first = self.graph.len();
        self.readings.insert(name, self.reading(step));
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

    fn reading(&self, step: &'a Step) -> Reading<'a> {
        let like = match &step.kind {
            StepKind::Train(train) => {
                return Reading {
                    native: &train.data,
                    root: &step.name,
                };
            }
            StepKind::Distill(distill) => &distill.teacher,
            StepKind::Prune(prune) => &prune.input,
            StepKind::Quantize(quantize) => &quantize.input,
            StepKind::Export(export) => &export.input,
            StepKind::Evaluate(evaluate) => &evaluate.input,
        };
        self.readings[like.as_str()]
    }

    fn add(&mut self, draft: Draft) -> Result<ActionId, GraphError> {
        let numerics = match draft.kind {
            kind if kind.is_exact() => "exact".to_owned(),
            ActionKind::Evaluate => self.recipe.device_of(&draft.step).numerics(draft.precision),
            _ => self.recipe.device.numerics(draft.precision),
        };
        let trajectory = trajectory(&draft.parameters);
        self.graph.add(Action {
            name: draft.name,
            step: draft.step,
            kind: draft.kind.versioned(),
            parameters: draft.parameters,
            seed: draft.seed,
            numerics,
            inputs: draft.inputs,
            demand: draft.demand,
            memory: draft.memory,
            trajectory,
        })
    }

    /// The action that prepares the data set `name` as the model of `step` reads it, made when it is first asked for.
    fn data(&mut self, name: &'a str, step: &str) -> Result<ActionId, GraphError> {
        let reading = self.readings[step];
        let like = (reading.native != name).then_some(reading.root);
        if let Some(id) = self.data.get(&(name, like)) {
            return Ok(*id);
        }
        let Data { spec, files } = &self.recipe.data[name];
        let files = self::files(files);
        let model = like.map(|step| (LIKE.to_owned(), Input::Action(self.model_of(step))));
        let suffix = like.map(|step| format!(":as:{step}")).unwrap_or_default();
        let id = self.add(Draft {
            name: format!("data:{name}{suffix}"),
            step: format!("data:{name}"),
            kind: ActionKind::Data,
            parameters: json!({ "spec": resolved(spec), "generator": generator_version(spec) }),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs: files.chain(model).collect(),
            demand: Demand::Light,
            memory: self.estimates.preparation(name),
        })?;
        self.data.insert((name, like), id);
        Ok(id)
    }

    /// The action that keeps what training reads of that data set.
    fn training_rows(&mut self, name: &'a str, step: &str) -> Result<ActionId, GraphError> {
        let data = self.data(name, step)?;
        if let Some(id) = self.training_rows.get(&data) {
            return Ok(*id);
        }
        let id = self.add(Draft {
            name: format!("{}:train", self.graph.get(data).name),
            step: format!("data:{name}"),
            kind: ActionKind::TrainingRows,
            parameters: json!({}),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs: inputs([("data", data)]),
            demand: Demand::Light,
            memory: None,
        })?;
        self.training_rows.insert(data, id);
        Ok(id)
    }

    /// The action that runs the model of `teacher` over the training rows `rows` of the data set `name`, in the precision that
    /// it was taught in.
    fn logits(&mut self, teacher: &'a str, name: &str, rows: ActionId) -> Result<ActionId, GraphError> {
        if let Some(id) = self.logits.get(&(teacher, rows)) {
            return Ok(*id);
        }
        let several = self.logits.keys().any(|(step, _)| *step == teacher);
        let step = self.recipe.steps.iter().find(|step| step.name == teacher);
        let precision = step.map_or(ProductPrecision::F32, |step| step.kind.precision());
        let id = self.add(Draft {
            name: if several {
                format!("{teacher}.logits.{}", rows.index())
            } else {
                format!("{teacher}.logits.{name}")
            },
            step: teacher.to_owned(),
            kind: ActionKind::Logits,
            parameters: resolved(&LogitsSettings { precision }),
            precision,
            seed: 0,
            inputs: inputs([("teacher", self.model_of(teacher)), ("data", rows)]),
            demand: self.demands.of_floats(),
            memory: self.estimates.inference(teacher, name),
        })?;
        self.logits.insert((teacher, rows), id);
        Ok(id)
    }

    fn train(&mut self, name: &'a str, step: &'a Train) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([("data", self.training_rows(&step.data, name)?)]);
        inputs.extend(files(&step.files));
        let training = &step.settings.training;
        if training.epochs == 0 {
            return self.taken_as_is(name, step, inputs);
        }
        self.trained(
            [name, name, &step.data],
            ActionKind::Train,
            &step.settings,
            training,
            inputs,
            0,
        )
    }

    /// The action that takes pretrained weights as they are: it draws nothing, and no setting of a training may make it stale.
    fn taken_as_is(
        &mut self,
        name: &str,
        step: &Train,
        inputs: BTreeMap<String, Input>,
    ) -> Result<ActionId, GraphError> {
        let mut settings = step.settings.clone();
        settings.training = Training::NONE;
        self.add(Draft {
            name: name.to_owned(),
            step: name.to_owned(),
            kind: ActionKind::Train,
            parameters: resolved(&settings),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs,
            demand: self.demands.of_floats(),
            memory: self.estimates.taking(name, &step.data),
        })
    }

    fn distill(&mut self, name: &'a str, step: &'a Distill) -> Result<ActionId, GraphError> {
        let rows = self.training_rows(&step.data, name)?;
        let mut inputs = inputs([
            ("data", rows),
            ("logits", self.logits(&step.teacher, &step.data, rows)?),
        ]);
        inputs.extend(files(&step.files));
        if step.settings.initialize == Initialization::Teacher {
            inputs.insert("teacher".into(), Input::Action(self.model_of(&step.teacher)));
        }
        let training = &step.settings.training;
        self.trained(
            [name, name, &step.data],
            ActionKind::Distill,
            &step.settings,
            training,
            inputs,
            0,
        )
    }

    fn prune(&mut self, name: &'a str, step: &'a Prune) -> Result<ActionId, GraphError> {
        let mut model = self.model_of(&step.input);
        for (index, round) in step.rounds.iter().enumerate() {
            let number = index as u64 + 1;
            let seed = if uses_chance(round) {
                self.seed_of_round(number)
            } else {
                0
            };
            model = self.add(Draft {
                name: format!("{name}.prune-{number}"),
                step: name.to_owned(),
                kind: ActionKind::Prune,
                parameters: resolved(round),
                precision: ProductPrecision::F32,
                seed,
                inputs: inputs([("model", model)]),
                demand: Demand::Light,
                memory: self.estimates.pruning(name, &step.data),
            })?;
            if step.finetune.training.epochs > 0 {
                let inputs = self.lesson(name, model, &step.data, step.teacher.as_deref())?;
                let (action, settings) = (format!("{name}.finetune-{number}"), &step.finetune);
                let names = [action.as_str(), name, &step.data];
                model = self.trained(
                    names,
                    ActionKind::Finetune,
                    settings,
                    &settings.training,
                    inputs,
                    number,
                )?;
            }
        }
        Ok(model)
    }

    fn quantize(&mut self, name: &'a str, step: &'a Quantize) -> Result<ActionId, GraphError> {
        let model = self.model_of(&step.input);
        let inputs = self.lesson(name, model, &step.data, step.teacher.as_deref())?;
        let training = &step.settings.finetune.training;
        if training.epochs > 0 {
            return self.trained(
                [name, name, &step.data],
                ActionKind::Quantize,
                &step.settings,
                training,
                inputs,
                0,
            );
        }
        // Calibration alone draws nothing and trains nothing: no setting of a training may make it stale.
        let mut settings = step.settings;
        settings.finetune.training = Training::NONE;
        self.add(Draft {
            name: name.to_owned(),
            step: name.to_owned(),
            kind: ActionKind::Quantize,
            parameters: resolved(&settings),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs,
            demand: self.demands.of_floats(),
            memory: self.estimates.calibration(name, &step.data),
        })
    }

    /// What the training of an existing model reads.
    fn lesson(
        &mut self,
        step: &'a str,
        model: ActionId,
        data: &'a str,
        teacher: Option<&'a str>,
    ) -> Result<BTreeMap<String, Input>, GraphError> {
        let rows = self.training_rows(data, step)?;
        let mut inputs = inputs([("model", model), ("data", rows)]);
        if let Some(teacher) = teacher {
            inputs.insert("logits".into(), Input::Action(self.logits(teacher, data, rows)?));
        }
        Ok(inputs)
    }

    /// An action that trains, by its own name, its step's and that of its data. `round` sets the random streams of a
    /// pruning's rounds apart.
    fn trained(
        &mut self,
        [name, step, data]: [&str; 3],
        kind: ActionKind,
        settings: &impl Serialize,
        training: &Training,
        inputs: BTreeMap<String, Input>,
        round: u64,
    ) -> Result<ActionId, GraphError> {
        self.add(Draft {
            name: name.to_owned(),
            step: step.to_owned(),
            kind,
            parameters: resolved(settings),
            precision: training.precision,
            seed: self.seed_of_round(round),
            inputs,
            demand: self.demands.of_floats(),
            memory: self
                .estimates
                .training(step, data, training, kind == ActionKind::Quantize),
        })
    }

    /// Rounds are so far apart that seeds as people choose them never meet.
    fn seed_of_round(&self, round: u64) -> u64 {
        self.recipe.seed.wrapping_add(round << 40)
    }

    fn export(&mut self, name: &'a str, step: &'a Export) -> Result<ActionId, GraphError> {
        let inputs = inputs([("model", self.model_of(&step.input))]);
        self.add(Draft {
            name: name.to_owned(),
            step: name.to_owned(),
            kind: ActionKind::Export,
            parameters: resolved(&step.settings),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs,
            demand: Demand::Light,
            memory: self.estimates.export(name, &step.data),
        })
    }

    fn evaluate(
        &mut self,
        step: &'a str,
        model: ActionId,
        data: &'a str,
        reference: Option<&str>,
    ) -> Result<ActionId, GraphError> {
        let mut inputs = inputs([("model", model), ("data", self.data(data, step)?)]);
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
            step: step.to_owned(),
            kind: ActionKind::Evaluate,
            parameters: resolved(&settings),
            precision: ProductPrecision::F32,
            seed: 0,
            inputs,
            memory: self.estimates.evaluation(step, data),
            demand: self.demands.of_evaluation(step),
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

/// Files by role, as inputs.
fn files(files: &BTreeMap<String, PathBuf>) -> impl Iterator<Item = (String, Input)> {
    files
        .iter()
        .map(|(role, path)| (role.clone(), Input::File(path.clone())))
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
