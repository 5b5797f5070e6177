//! A store in a temporary folder, graphs in a few words, and steps that write text instead of training.

use orchestrate_engine::{
    Action, ActionGraph, ActionId, ActionKey, ActionOutcome, BuildOptions, BuildReport, Cancel, Demand, Executor,
    FailureClass, InProcessExecutor, Input, InputFiles, Kind, Outcome, Reason, RunEvent, Step, StepError, Steps, Store,
    Work, build,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

type Act = dyn Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync;

/// Steps that all do the same.
pub struct Fake(pub Box<Act>);

impl Fake {
    pub fn new(act: impl Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync + 'static) -> Self {
        Self(Box::new(act))
    }
}

impl Steps for Fake {
    fn get(&self, _kind: &str) -> Option<&dyn Step> {
        Some(self)
    }
}

impl Step for Fake {
    fn run(&self, work: &Work<'_>) -> Result<Outcome, StepError> {
        (self.0)(work)
    }
}

/// Writes the parameter `text` and then its inputs, in brackets, to the file `out`. If there is a parameter `emit`, it
/// writes that alone: then whatever else changes, the artifact does not.
pub fn concatenate(work: &Work<'_>) -> Result<Outcome, StepError> {
    let mut text = work.parameters["text"].as_str().unwrap_or_default().to_owned();
    for input in work.inputs.values() {
        let path = match input {
            InputFiles::Artifact(files) => &files["out"],
            InputFiles::File(path) => path,
        };
        text.push_str(&format!("({})", fs::read_to_string(path).unwrap()));
    }
    if let Some(emit) = work.parameters["emit"].as_str() {
        emit.clone_into(&mut text);
    }
    fs::write(work.output.join("out"), &text).unwrap();
    let metrics = [("length".to_owned(), text.len() as f64)].into();
    Ok(Outcome {
        metrics,
        measurements: BTreeMap::new(),
    })
}

/// As [`concatenate`], but fails where the parameter `fail` is true.
pub fn concatenate_or_fail(work: &Work<'_>) -> Result<Outcome, StepError> {
    if work.parameters["fail"] == true {
        return Err(StepError {
            message: "on purpose".into(),
            class: FailureClass::Step,
        });
    }
    concatenate(work)
}

/// An action of kind `concatenate` with the parameters `parameters`.
pub fn action(name: &str, parameters: Value, inputs: &[(&str, Input)]) -> Action {
    Action {
        name: name.into(),
        step: format!("step of {name}"),
        kind: Kind {
            name: "concatenate".into(),
            version: 1,
        },
        parameters,
        seed: 0,
        numerics: "exact".into(),
        inputs: inputs
            .iter()
            .map(|(role, input)| ((*role).to_owned(), input.clone()))
            .collect(),
        demand: Demand::Slot,
        memory: None,
        trajectory: None,
    }
}

/// A graph of actions that are called by name, each with its text and the names of its inputs.
pub fn graph(actions: &[(&str, &str, &[&'static str])]) -> ActionGraph {
    let mut graph = ActionGraph::new();
    for (name, text, inputs) in actions {
        let input = |name: &&'static str| (*name, Input::Action(graph.find(name).unwrap()));
        let inputs: Vec<(&str, Input)> = inputs.iter().map(input).collect();
        graph.add(action(name, json!({"text": text}), &inputs)).unwrap();
    }
    graph
}

/// All of a graph's actions.
pub fn all(graph: &ActionGraph) -> Vec<ActionId> {
    graph.iter().map(|(id, _)| id).collect()
}

pub fn options(slots: usize, keep_going: bool) -> BuildOptions {
    BuildOptions {
        recipe: "recipe".into(),
        variant: None,
        slots: NonZeroUsize::new(slots).unwrap(),
        keep_going,
        memory: None,
        checkpoint_every: None,
    }
}

/// What a build did.
pub struct Built {
    pub report: BuildReport,
    pub events: Vec<RunEvent>,
}

impl Built {
    /// Names of the actions that were started, sorted.
    pub fn started(&self) -> Vec<&str> {
        self.reasons().into_keys().collect()
    }

    /// Why those that were started were.
    pub fn reasons(&self) -> BTreeMap<&str, String> {
        let started = self.events.iter().filter_map(|event| match event {
            RunEvent::ActionStarted { action, reason, .. } => Some((action.as_str(), reason.to_string())),
            _ => None,
        });
        started.collect()
    }

    pub fn reason(&self, name: &str) -> Reason {
        let mut reasons = self.events.iter().rev().filter_map(|event| match event {
            RunEvent::ActionStarted { action, reason, .. } if action == name => Some(reason.clone()),
            _ => None,
        });
        reasons.next().unwrap()
    }

    pub fn started_keys(&self) -> Vec<ActionKey> {
        let started = self.events.iter().filter_map(|event| match event {
            RunEvent::ActionStarted { key, .. } => Some(*key),
            _ => None,
        });
        started.collect()
    }

    pub fn outcome(&self, name: &str) -> &ActionOutcome {
        &self
            .report
            .actions
            .values()
            .find(|action| action.name == name)
            .unwrap()
            .outcome
    }

    /// What the failure of `name` says.
    pub fn error(&self, name: &str) -> (&str, FailureClass) {
        match self.outcome(name) {
            ActionOutcome::Failed { error, class, .. } => (error, *class),
            other => panic!("{name} did not fail: {other:?}"),
        }
    }
}

/// A store in a folder that goes with it.
pub struct Workshop {
    pub folder: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// In memory, where there is such a thing: what is synced there is synced at once.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self {
            folder: folder.unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the store, as each process does.
    pub fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }

    /// Builds with steps that do `act`, one at a time.
    pub fn build_with(
        &self,
        graph: &ActionGraph,
        targets: &[ActionId],
        act: impl Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync + 'static,
    ) -> Built {
        self.build_under(&options(1, false), graph, targets, act)
    }

    /// The same under `options`.
    pub fn build_under(
        &self,
        options: &BuildOptions,
        graph: &ActionGraph,
        targets: &[ActionId],
        act: impl Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync + 'static,
    ) -> Built {
        let fake = Fake::new(act);
        self.build_on(&self.store(), graph, targets, options, &InProcessExecutor::new(&fake))
    }

    pub fn build_on(
        &self,
        store: &Store,
        graph: &ActionGraph,
        targets: &[ActionId],
        options: &BuildOptions,
        executor: &dyn Executor,
    ) -> Built {
        let events = Mutex::new(Vec::new());
        let sink = |event| events.lock().unwrap().push(event);
        let report = build(graph, targets, options, store, executor, &Cancel::new(), &sink).unwrap();
        Built {
            report,
            events: events.into_inner().unwrap(),
        }
    }

    /// Builds all of `graph` with [`concatenate_or_fail`].
    pub fn build(&self, graph: &ActionGraph) -> Built {
        self.build_with(graph, &all(graph), concatenate_or_fail)
    }

    /// Builds the last action of `graph` and what it needs.
    pub fn build_last(&self, graph: &ActionGraph) -> Built {
        self.build_with(graph, &all(graph)[graph.len() - 1..], concatenate_or_fail)
    }

    /// The artifact of `name`: the text in its file `out`.
    pub fn text_of(&self, built: &Built, name: &str) -> String {
        let result = built
            .report
            .actions
            .values()
            .find(|a| a.name == name)
            .unwrap()
            .result
            .as_ref()
            .unwrap();
        fs::read_to_string(&self.store().checkout(&result.tree, name).unwrap()["out"]).unwrap()
    }

    /// Where the only blob of `name`'s artifact lies.
    pub fn blob_of(&self, built: &Built, name: &str) -> PathBuf {
        let result = built
            .report
            .actions
            .values()
            .find(|a| a.name == name)
            .unwrap()
            .result
            .as_ref()
            .unwrap();
        let tree = self.store().tree(&result.tree).unwrap().unwrap();
        self.file("blobs", &tree.entries()[0].digest.to_string())
    }

    /// Where the store keeps the file `name` of `section`.
    pub fn file(&self, section: &str, name: &str) -> PathBuf {
        self.path("store").join(section).join(&name[..2]).join(name)
    }
}

/// Every file below `folder`.
pub fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.insert(path);
        }
    }
    files
}

/// Makes a read-only file writable and changes one bit of it.
pub fn flip_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    overwrite(path, &bytes);
}

/// Replaces the content of a file, in place, even of a read-only one.
pub fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}
