//! What the binary tells about itself: completions, manual pages and the schema of recipes.

use crate::workspace::Workspace;
use std::process::Command;

/// The commands of `--help`, which are all that a user is told of.
fn commands(workspace: &Workspace) -> Vec<String> {
    let help = workspace.succeed(&["--help"]).stdout;
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let listed = rest.split("\n\n").next().unwrap();
    let names = listed
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    assert!(names.iter().any(|name| name == "build"), "{help}");
    names
}

#[test]
fn completions_know_every_command_but_the_engines_own() {
    let workspace = Workspace::empty();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = workspace.succeed(&["completions", shell]).stdout;
        for command in commands(&workspace) {
            assert!(script.contains(&command), "{command} in {shell}");
        }
        assert!(!script.contains("worker"), "{shell}");
        assert!(script.contains("keep-going"), "{shell}");
    }
    workspace.write("orchestrate.bash", workspace.succeed(&["completions", "bash"]).stdout);
    let checked = Command::new("bash")
        .arg("-n")
        .arg(workspace.path("orchestrate.bash"))
        .status();
    // Without a bash there is nobody to complete for either.
    assert!(checked.map_or(true, |status| status.success()));
}

#[test]
fn every_command_has_a_manual_page() {
    let workspace = Workspace::empty();
    let main = workspace.succeed(&["man"]).stdout;
    assert!(
        main.contains(".TH orchestrate 1") && main.contains("Exit codes"),
        "{main}"
    );
    workspace.succeed(&["man", "pages"]);
    let page = |name: &str| std::fs::read_to_string(workspace.path("pages").join(name)).unwrap();
    assert_eq!(page("orchestrate.1").trim_end(), main.trim_end());
    for command in commands(&workspace).iter().filter(|command| *command != "help") {
        let page = page(&format!("orchestrate-{command}.1"));
        assert!(page.contains("SYNOPSIS"), "{page}");
    }
    page("orchestrate-cache-gc.1");
    assert!(!workspace.path("pages/orchestrate-worker.1").exists());
    let build = page("orchestrate-build.1").replace("\\-", "-");
    let help = workspace.succeed(&["build", "--help"]).stdout;
    let options = help.split_whitespace().filter(|word| word.starts_with("--"));
    let options: Vec<&str> = options.map(|word| word.trim_end_matches([',', '.', '`'])).collect();
    assert!(options.contains(&"--keep-going"), "{help}");
    for option in options {
        assert!(build.contains(option), "{option} in {build}");
    }
}

#[test]
fn the_schema_is_the_committed_one() {
    let printed = Workspace::empty().succeed(&["schema"]).stdout;
    assert!(printed == include_str!("../../docs/recipe.schema.json"));
}
