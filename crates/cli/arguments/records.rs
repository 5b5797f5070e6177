//! The command line of the commands that ask about runs and results.

use super::{CacheArguments, Format, RecipeArguments};
use crate::run_choice::RunChoice;
use clap::Args;

/// Arguments of `runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// Only the runs of this recipe: its file, or its name.
    pub recipe: Option<String>,
    /// Only the last N.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct Log {
    /// The recipe: its file, or its name.
    pub recipe: String,
    /// The step, or a data set as `data:NAME`.
    pub step: String,
    /// The run: an id or the beginning of one, `last` or `last~N`. The last one that had to do with the step if not
    /// given.
    #[arg(long, value_name = "RUN")]
    pub run: Option<RunChoice>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The run to compare with: an id or the beginning of one, `last` or `last~N`.
    pub old: RunChoice,
    /// The run that is compared.
    #[arg(default_value = "last")]
    pub new: RunChoice,
    /// Count `last` among the runs of this recipe alone: its file, or its name.
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<String>,
    /// End with exit code 1 if any artifact differs.
    #[arg(long)]
    pub exit_code: bool,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `cache ls`.
#[derive(Debug, Args)]
pub struct CacheLs {
    /// Only what runs of this recipe gave: its file, or its name.
    pub recipe: Option<String>,
    #[command(flatten)]
    pub cache: CacheArguments,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Arguments of `cache rm`.
#[derive(Debug, Args)]
pub struct CacheRm {
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// The steps, or data sets as `data:NAME`.
    #[arg(required = true)]
    pub steps: Vec<String>,
    /// Only say what would go.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub cache: CacheArguments,
}
