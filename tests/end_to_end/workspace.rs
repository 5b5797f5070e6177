//! A folder with a small recipe, its data and a cache, and the binary run in it.

use serde_json::Value;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Ten actions on forty texts: the whole pipeline in about a second.
pub const RECIPE: &str = r#"
[recipe]
name = "small"
seed = 3
latency_seconds = 0.02

[data.texts]
source = "text"
train = "train.tsv"
test = "test.tsv"
vocab_size = 200
max_length = 12

[model.tiny]
architecture = "bert"
layers = 1
hidden = 16
heads = 4
intermediate = 32
max_positions = 12

[step.teacher]
kind = "train"
data = "texts"
model = "tiny"
epochs = 2
batch_size = 8

[step.prune]
kind = "prune"
input = "teacher"
teacher = "teacher"
targets = [0.25, 0.5]
batch_size = 8

[step.quantize]
kind = "quantize"
input = "prune"
batch_size = 8
learning_rate = 1e-4

[step.export]
kind = "export"
input = "quantize"
"#;

/// A temporary folder, removed when this is dropped.
pub struct Workspace {
    folder: TempDir,
}

/// One run of the binary.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    /// With [`RECIPE`] as `recipe.toml`, and its data.
    pub fn new() -> Self {
        let workspace = Self::empty();
        workspace.write("recipe.toml", RECIPE);
        workspace.write("train.tsv", texts(40, 0));
        workspace.write("test.tsv", texts(16, 1));
        workspace
    }

    pub fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Replaces the only `from` in the recipe.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("recipe.toml")).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} occurs once");
        self.write("recipe.toml", text.replace(from, to));
    }

    /// The binary with `arguments`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrate"));
        command.args(arguments).current_dir(self.folder.path());
        for variable in [
            "ALL_PROXY",
            "HF_ENDPOINT",
            "HF_TOKEN",
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "all_proxy",
            "http_proxy",
            "https_proxy",
            "ORCHESTRATE_CACHE",
            "ORCHESTRATE_CACHE_SIZE",
            "ORCHESTRATE_LOG",
            "ORCHESTRATE_MEMORY",
            "RAYON_NUM_THREADS",
        ] {
            command.env_remove(variable);
        }
        command.env("NO_COLOR", "1").stdin(std::process::Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// A run that must end well.
    pub fn succeed(&self, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{}\n{}", run.stdout, run.stderr);
        run
    }

    /// Builds, which must succeed, and tells what happened.
    pub fn build(&self, more: &[&str]) -> Events {
        let run = self.succeed(&[&["build", "recipe.toml", "--format", "json"], more].concat());
        Events::of(&run)
    }

    /// What a message says, with this folder's path taken out.
    pub fn masked(&self, text: &str) -> String {
        let folder = self.folder.path().display().to_string();
        text.replace(&folder, "[folder]")
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The bytes of every file of an export, in the order of their names, but for what was measured.
    pub fn export(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.path(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name != "metrics.json" && path.is_file() {
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
        files.sort();
        assert!(files.len() >= 3, "an export of {} files", files.len());
        files
    }
}

/// The JSON events of a build.
pub struct Events(pub Vec<Value>);

impl Events {
    pub fn of(run: &Run) -> Self {
        Self(
            run.stdout
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }

    /// The names of the actions that had an event of this kind, in order.
    pub fn actions(&self, event: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|e| e["event"] == event)
            .map(|e| e["action"].as_str().unwrap())
            .collect()
    }

    /// The actions that ran.
    pub fn ran(&self) -> Vec<&str> {
        self.actions("action_finished")
    }

    /// The artifact of every action; one that was cached and then had to run again has only one.
    pub fn trees(&self) -> Vec<(&str, &str)> {
        let mut trees: Vec<_> = self
            .0
            .iter()
            .filter(|e| matches!(e["event"].as_str(), Some("action_finished" | "action_cached")))
            .map(|e| (e["action"].as_str().unwrap(), e["tree"].as_str().unwrap()))
            .collect();
        trees.sort_unstable();
        trees.dedup();
        trees
    }

    pub fn last(&self) -> &Value {
        self.0.last().unwrap()
    }
}

/// `rows` short opinions as TSV, some negated.
pub fn texts(rows: usize, variant: usize) -> String {
    const NOUNS: [&str; 4] = ["film", "plot", "cast", "score"];
    const GOOD: [&str; 3] = ["great", "lovely", "bright"];
    const BAD: [&str; 3] = ["dull", "awful", "grim"];
    let mut text = String::from("sentence\tlabel\n");
    for i in 0..rows {
        let (noun, good) = (NOUNS[(i + variant) % 4], i % 2 == 0);
        let negated = i % 3 == variant;
        let word = if good != negated {
            GOOD[i / 2 % 3]
        } else {
            BAD[i / 2 % 3]
        };
        let not = if negated { "not " } else { "" };
        writeln!(text, "the {noun} number {i} is {not}{word}\t{}", u8::from(good)).unwrap();
    }
    text
}
