//! A folder with a recipe in it, and the ways to load that recipe.

use miette::{GraphicalReportHandler, GraphicalTheme};
use orchestrate_recipe::{Finding, Loaded, Overrides, Recipe, RecipeErrors};
use std::path::Path;
use tempfile::TempDir;

/// A recipe with a step of each kind, which is well.
pub const FULL: &str = r#"
[recipe]
name = "full"

[data.reviews]
source = "builtin:reviews"

[model.large]
architecture = "bert"
layers = 4
hidden = 128
heads = 4

[model.small]
architecture = "bert"
layers = 2
hidden = 128
heads = 4

[step.teacher]
kind = "train"
data = "reviews"
model = "large"

[step.student]
kind = "distill"
teacher = "teacher"
model = "small"

[step.prune]
kind = "prune"
input = "student"
target = 0.5

[step.quantize]
kind = "quantize"
input = "prune"

[step.export]
kind = "export"
input = "quantize"

[step.check]
kind = "evaluate"
input = "export"

[[gate]]
step = "export"
metric = "accuracy"
max_drop = 0.02
"#;

/// A temporary folder.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// A folder with `text` in `recipes/r.toml`.
    pub fn new(text: &str) -> Self {
        let workspace = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        workspace.file("recipes/r.toml", text.as_bytes());
        workspace
    }

    /// Adds a file.
    pub fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Loads the recipe; `arguments` are as on the command line.
    pub fn load(&self, arguments: &[&str]) -> Result<Loaded, RecipeErrors> {
        let mut overrides = Overrides {
            current_folder: self.path().to_owned(),
            ..Overrides::default()
        };
        for pair in arguments.chunks(2) {
            let value = pair[1].to_owned();
            match pair[0] {
                "--set" => overrides.set.push(value),
                "--profile" => overrides.profile = Some(value),
                "--device" => overrides.device = Some(value),
                flag => panic!("no flag {flag}"),
            }
        }
        Recipe::load(Path::new("recipes/r.toml"), &overrides)
    }

    /// The recipe, which must be well and free of warnings.
    pub fn recipe(&self, arguments: &[&str]) -> Recipe {
        let loaded = self
            .load(arguments)
            .unwrap_or_else(|errors| panic!("{}", self.rendered(&errors)));
        let warnings: Vec<String> = loaded.warnings.iter().map(Finding::to_string).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        loaded.recipe
    }

    /// What a user sees of the errors there must be.
    pub fn errors(&self, arguments: &[&str]) -> String {
        let errors = self.load(arguments).expect_err("the recipe has errors");
        self.rendered(&errors)
    }

    /// What a user sees of a diagnostic, in a narrow terminal without colours.
    pub fn rendered(&self, diagnostic: &dyn miette::Diagnostic) -> String {
        let mut text = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_width(90)
            .render_report(&mut text, diagnostic)
            .unwrap();
        let text = text.replace(&self.path().display().to_string(), "$DIR");
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// The recipe in `text`, which must be well.
pub fn recipe(text: &str) -> Recipe {
    Workspace::new(text).recipe(&[])
}

/// What a user sees of the errors in `text`.
pub fn errors(text: &str) -> String {
    Workspace::new(text).errors(&[])
}

/// The messages of the errors in `text`.
pub fn messages(text: &str) -> Vec<String> {
    let errors = Workspace::new(text).load(&[]).expect_err("the recipe has errors");
    errors.findings().iter().map(Finding::to_string).collect()
}

/// [`FULL`] with `from` exchanged for `to`.
pub fn full_with(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    FULL.replacen(from, to, 1)
}
