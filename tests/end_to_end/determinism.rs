//! The same recipe gives the same bits: on every run and for any number of threads.

use crate::workspace::Workspace;

#[test]
fn two_runs_and_one_or_more_threads_give_the_same_files() {
    let build = |threads: &str| {
        let workspace = Workspace::new();
        let mut build = workspace.command(&["build", "recipe.toml", "--jobs", "1"]);
        let run = build.env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        workspace.export("out/small/export")
    };
    let first = build("1");
    assert!(first == build("1"), "two runs differ");
    assert!(first == build("2"), "one and two threads differ");
    assert!(first == build("3"), "one and three threads differ");
}

#[test]
fn another_seed_gives_another_model() {
    let build = |seed: &str| {
        let workspace = Workspace::new();
        workspace.edit("seed = 3", seed);
        workspace.build(&[]);
        std::fs::read(workspace.path("out/small/export/model.safetensors")).unwrap()
    };
    assert!(build("seed = 3") != build("seed = 4"));
}
