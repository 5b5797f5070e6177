//! A recipe as the engine's actions, and which of them a build of some steps must make.

use crate::lower;
use crate::recipe::{Recipe, StepKind};
use crate::report::baseline_step;
use orchestrate_engine::{ActionGraph, ActionId, GraphError};

/// A recipe as actions.
#[derive(Debug)]
pub struct Lowered {
    /// All actions.
    pub graph: ActionGraph,
    /// One a step, in the recipe's order.
    pub steps: Vec<LoweredStep>,
    /// Step, and a step that it is compared with: by a gate or, if it is an export, in its `metrics.json`.
    compared: Vec<(String, String)>,
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
        let (graph, steps) = lower::actions(recipe)?;
        Ok(Self {
            graph,
            steps,
            compared: comparisons(recipe),
        })
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&LoweredStep> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// What a build of the steps in `names` must make, with the evaluations that they are compared with; of all steps if
    /// there are none.
    pub fn targets(&self, names: &[String]) -> Vec<ActionId> {
        let is_chosen = |name: &String| names.is_empty() || names.contains(name);
        let chosen = self.steps.iter().filter(|step| is_chosen(&step.name));
        let compared = self.compared.iter().filter(|(step, _)| is_chosen(step));
        let baselines = compared.filter_map(|(_, baseline)| Some(self.step(baseline)?.evaluation));
        chosen
            .flat_map(|step| [step.model, step.evaluation])
            .chain(baselines)
            .collect()
    }
}

/// Which steps are held against which others.
fn comparisons(recipe: &Recipe) -> Vec<(String, String)> {
    let gates = recipe
        .gates
        .iter()
        .filter_map(|gate| Some((gate.step.clone(), gate.baseline.clone()?)));
    let exports = recipe
        .steps
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Export(_)));
    let baseline = baseline_step(recipe);
    gates
        .chain(exports.filter_map(|step| Some((step.name.clone(), baseline?.to_owned()))))
        .collect()
}
