//! The command line.

mod records;

pub use records::{CacheLs, CacheRm, Diff, Log, Runs, Status};

use crate::quantity::{Cap, Interval};
use crate::run_choice::RunChoice;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// A build system for model compression.
///
/// Exit codes: 0 done, 1 a step failed, 2 the recipe or the command line is wrong, 3 damaged files, 4 not
/// reproducible under `--check`, 5 differs from the lock, 6 the environment (disk, device, memory), 7 a gate is not met, 130
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = "orchestrate", version, about, max_term_width = 100)]
pub struct Arguments {
    /// Log more: once for the engine's doings, twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// The command line without what only the engine calls, for completions and manual pages.
    pub fn public_command() -> clap::Command {
        let whole = Self::command();
        let hidden = |command: &clap::Command| command.is_hide_set();
        let public: Vec<clap::Command> = whole.get_subcommands().filter(|c| !hidden(c)).cloned().collect();
        let bare = clap::Command::new("orchestrate")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommand_required(true);
        let bare = match whole.get_about() {
            Some(about) => bare.about(about.clone()),
            None => bare,
        };
        let bare = match whole.get_long_about() {
            Some(about) => bare.long_about(about.clone()),
            None => bare,
        };
        bare.args(whole.get_arguments().cloned()).subcommands(public)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run what is stale in a recipe, and show what came of it.
    Build(Build),
    /// Say what a build would run, and why.
    Plan(Plan),
    /// Explain why a step would run again, down to the first cause.
    Why(Why),
    /// List the recorded runs, the newest last.
    Runs(Runs),
    /// Show what a step printed when it ran, also if it is cached now.
    Log(Log),
    /// Compare two recorded runs: keys, metrics, artifacts.
    Diff(Diff),
    /// Say what runs on a cache at this moment, and what the last run of each recipe gave.
    Status(Status),
    /// Write down what the cache has for a recipe, for `build --locked` to hold later builds to.
    Lock(LockArguments),
    /// Draw the recipe's graph.
    Graph(Graph),
    /// Run an exported model on new input; one JSON line for each.
    Predict(Predict),
    /// Measure exported models side by side: latency, bytes, memory.
    Bench(Bench),
    /// Run a model on the test rows of a recipe's data.
    Evaluate(Evaluate),
    /// Look after the cache: what it holds, whether it is whole, and what may go.
    #[command(subcommand)]
    Cache(Cache),
    /// Write a commented recipe to start from.
    Init(Init),
    /// Fetch a pretrained model from a hub into a folder. No other command uses a network.
    Fetch(Fetch),
    /// Print the JSON schema of recipes, for editors; docs/recipe.schema.json is the same.
    Schema,
    /// Print a script that completes command lines, to be sourced by a shell.
    Completions(Completions),
    /// Print the manual page, or write one page a command into a folder.
    Man(Man),
    /// Carry out one action; the engine calls this.
    #[command(hide = true)]
    Worker,
}

/// Which recipe, and what to change in it.
#[derive(Debug, Args)]
pub struct RecipeArguments {
    /// The recipe's TOML file.
    pub recipe: PathBuf,
    /// Apply the overrides of `[profile.NAME]`.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Override one value, such as `step.prune.target=0.6`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where steps run: cpu, cuda, metal or auto.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// Where results are kept.
#[derive(Debug, Args)]
pub struct CacheArguments {
    /// The folder of the cache.
    #[arg(long, value_name = "DIR", default_value = "cache", env = "ORCHESTRATE_CACHE")]
    pub cache: PathBuf,
}

/// How a build or a plan is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// A continuous-integration service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ci {
    /// GitHub Actions.
    Github,
}

/// Arguments of `build`.
#[derive(Debug, Args)]
pub struct Build {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Build these steps and what they need; all if none is named.
    pub steps: Vec<String>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// Where exports are put, as DIR/RECIPE/STEP.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// How many actions may run at once; they share the processor's threads. One for every four threads if not given. On a
    /// GPU one action of a build runs at a time, beside those on the processor.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// How much memory the actions that run at once may hold together, such as 8GiB; nine tenths of the machine's if not
    /// given, `none` for no limit. A build with an action that is expected to need more is refused before anything runs.
    #[arg(long, value_name = "SIZE", env = "ORCHESTRATE_MEMORY", value_parser = crate::quantity::cap)]
    pub memory: Option<Cap>,
    /// After a build that ran something, remove the oldest results that no recent run and no lock file needs until the cache
    /// is no larger; `none` keeps all.
    #[arg(
        long, value_name = "SIZE", default_value = "50GB", env = "ORCHESTRATE_CACHE_SIZE",
        value_parser = crate::quantity::cap
    )]
    pub cache_size: Cap,
    /// After a failure, go on with what does not depend on it.
    #[arg(long)]
    pub keep_going: bool,
    /// How often trainings keep a checkpoint, such as 30s or 5m, from which the next build goes on; `never` for none. It
    /// changes no result.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::quantity::interval,
          env = "ORCHESTRATE_CHECKPOINT_EVERY")]
    pub checkpoint_every: Interval,
    /// Run every action of these steps a second time, from scratch, and compare bit by bit; exit code 4 if one differs.
    /// Exports are put in place only if none does.
    #[arg(long)]
    pub check: bool,
    /// Refuse to run if the recipe or its files differ from the lock file, and hold what comes out against it; exit
    /// code 5 if something differs. Exports are put in place only if nothing does.
    #[arg(long)]
    pub locked: bool,
    /// How to tell what happens.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Write a JUnit report: one test case a step, and one a gate.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Tell this service too: marks on the recipe's lines, and a summary in the file that $GITHUB_STEP_SUMMARY names.
    #[arg(long, value_enum, value_name = "SERVICE")]
    pub ci: Option<Ci>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Plan these steps and what they need; all if none is named.
    pub steps: Vec<String>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct Why {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// The step to explain.
    pub step: String,
    /// Compare with this run rather than the last: an id or the beginning of one, `last` or `last~N`.
    #[arg(long, value_name = "RUN")]
    pub against: Option<RunChoice>,
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Arguments of `lock`.
#[derive(Debug, Args)]
pub struct LockArguments {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Do not mind a lock file that cannot be read, such as one with a merge's marks: write it anew from the cache.
    #[arg(long)]
    pub rebuild: bool,
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// A language that draws graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz.
    Dot,
    /// Mermaid, as Markdown pages show it.
    Mermaid,
}

/// Arguments of `graph`.
#[derive(Debug, Args)]
pub struct Graph {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// The language to draw in.
    #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
    pub format: GraphFormat,
    /// Draw the actions that steps lower to rather than the steps.
    #[arg(long)]
    pub actions: bool,
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// The exported model's folder.
    pub model: PathBuf,
    /// Text files of one input a line, or PNG and IDX images. Without any, lines of text are read from standard input.
    pub files: Vec<PathBuf>,
    /// Where a model in floats runs: cpu, cuda, metal or auto.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The exported models' folders; ratios are to the first.
    #[arg(required = true)]
    pub models: Vec<PathBuf>,
    /// Length of the random input, for models of text; the longest that the model reads if not given.
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// How long each model is timed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub seconds: f64,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Where a model in floats runs: cpu, cuda, metal or auto.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
}

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The model's folder.
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Which of the recipe's data sets; may be left out if there is one.
    #[arg(long, value_name = "NAME")]
    pub data: Option<String>,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Say how much it holds.
    Stat(CacheStat),
    /// Read all of it and name what is damaged; exit code 3 if anything is.
    Verify(CacheVerify),
    /// Remove what neither the last runs of each recipe and profile nor lock files need. Without a size or an age, all of
    /// that.
    Gc(CacheGc),
    /// List the results in it, the newest last.
    Ls(CacheLs),
    /// Forget the results of steps, so that the next build runs them again.
    Rm(CacheRm),
}

/// Arguments of `cache stat`.
#[derive(Debug, Args)]
pub struct CacheStat {
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Arguments of `cache verify`.
#[derive(Debug, Args)]
pub struct CacheVerify {
    /// Put what is damaged aside, so that the next build makes it anew.
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Arguments of `cache gc`.
#[derive(Debug, Args)]
pub struct CacheGc {
    /// Remove the oldest results until the cache is no larger, such as 500MB, 10GB or 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::quantity::bytes)]
    pub max_size: Option<u64>,
    /// Remove the results that are older, such as 12h or 30d.
    #[arg(long, value_name = "AGE", value_parser = crate::quantity::age)]
    pub max_age: Option<Duration>,
    /// Keep whatever the last N runs of each recipe and profile needed. What lock files name is kept in any case.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub keep_last: usize,
    /// Only say what would go.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write.
    #[arg(default_value = "recipe.toml")]
    pub path: PathBuf,
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// The model's name on the hub, as OWNER/NAME.
    pub model: String,
    /// The folder to make; `models/NAME` if it is left out.
    pub folder: Option<PathBuf>,
    /// A branch, a tag or a commit.
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
    /// The hub.
    #[arg(
        long,
        value_name = "URL",
        env = "HF_ENDPOINT",
        default_value = "https://huggingface.co"
    )]
    pub endpoint: String,
    /// A token that may read the model, if not everyone may.
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write `orchestrate.1`, `orchestrate-build.1` and so on into this folder.
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
