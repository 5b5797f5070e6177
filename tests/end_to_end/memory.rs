//! What a build is expected to need of the machine's memory, and what it needs.

use crate::workspace::Workspace;

#[test]
fn what_cannot_fit_is_refused_before_anything_runs() {
    let workspace = Workspace::new();
    workspace.edit("hidden = 16", "hidden = 1024");
    let build = |memory| workspace.run(&["build", "recipe.toml", "--memory", memory]);
    let run = build("64MiB");
    assert_eq!(run.code, Some(6));
    assert!(run.stdout.contains("0 executed, 0 cached, 1 failed"), "{}", run.stdout);
    insta::assert_snapshot!(workspace.masked(&run.stderr));
    for memory in ["none", "64MiB"] {
        let run = build(memory);
        assert_eq!(run.code, Some(0), "what is cached needs no memory: {}", run.stderr);
    }
}

/// What a worker held is known on Linux alone.
#[cfg(target_os = "linux")]
mod measured {
    use crate::workspace::Workspace;
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    /// A model that is trained, pruned and quantized for some steps; longer trainings hold no more.
    fn recipe(data: &str, model: &str, batch_size: usize, training: &str) -> String {
        let lesson = format!("batch_size = {batch_size}\nmax_steps = 2\n");
        format!(
            "[recipe]\nname = \"memory\"\nseed = 1\nlatency_seconds = 0\n[data.d]\n{data}\n[model.m]\n{model}\n\
             [step.train]\nkind = \"train\"\ndata = \"d\"\nmodel = \"m\"\n{lesson}{training}\n\
             [step.prune]\nkind = \"prune\"\ninput = \"train\"\ntarget = 0.1\nrounds = 1\n{lesson}\n\
             [step.quantize]\nkind = \"quantize\"\ninput = \"train\"\ncalibration_rows = 32\n{lesson}\n\
             [step.calibrate]\nkind = \"quantize\"\ninput = \"train\"\ncalibration_rows = 32\nepochs = 0\n"
        )
    }

    /// Rows that are longer than any model reads.
    fn long_texts(rows: usize) -> String {
        let mut text = "sentence\tlabel\n".to_owned();
        for row in 0..rows {
            let words = (0..200).map(|at| ["good", "bad", "film", "plot", "cast"][(row * 7 + at * at) % 5]);
            let words: Vec<&str> = words.collect();
            writeln!(text, "{}\t{}", words.join(" "), row % 2).unwrap();
        }
        text
    }

    /// Of each action, what was expected and what was measured, in bytes.
    fn expected_and_measured(workspace: &Workspace) -> BTreeMap<String, (f64, f64)> {
        let plan = workspace.run(&["plan", "recipe.toml", "--format", "json"]);
        let planned = plan
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let expected: BTreeMap<String, f64> = planned
            .filter_map(|line| Some((line["action"].as_str()?.to_owned(), line["memory_bytes"].as_f64()?)))
            .collect();
        let events = workspace.build(&[]).0;
        let finished = events.into_iter().filter(|event| event["event"] == "action_finished");
        finished
            .filter_map(|event| {
                let action = event["action"].as_str()?.to_owned();
                let expected = *expected.get(&action)?;
                Some((action, (expected, event["peak_memory_bytes"].as_f64()?)))
            })
            .collect()
    }

    #[test]
    fn expected_memory_is_near_what_is_measured() {
        let texts = "source = \"text\"\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\nvocab_size = 64\nmax_length = 64";
        let digits = "source = \"builtin:digits\"\ntrain_rows = 2000\ntest_rows = 100";
        let bert = |layers: usize| format!("architecture = \"bert\"\nlayers = {layers}\nhidden = 256\nheads = 4");
        let cases = [
            (texts, bert(2), 32, ""),
            (texts, bert(4), 16, "gradient_checkpointing = true"),
            (texts, bert(2), 32, "gradient_accumulation = 2\noptimizer = \"sgd\""),
            (digits, "architecture = \"lenet5\"".to_owned(), 256, ""),
            (digits, "architecture = \"resnet8\"".to_owned(), 128, ""),
            (
                digits,
                "architecture = \"mlp\"\nhidden = [2000, 1000]".to_owned(),
                64,
                "",
            ),
        ];
        for (data, model, batch_size, training) in cases {
            let workspace = Workspace::empty();
            workspace.write("train.tsv", long_texts(200));
            workspace.write("test.tsv", long_texts(64));
            workspace.write("recipe.toml", recipe(data, &model, batch_size, training));
            let actions = expected_and_measured(&workspace);
            for (action, (least, most)) in [
                ("train", (0.75, 1.35)),
                ("quantize", (0.75, 1.5)),
                ("calibrate", (0.75, 1.8)),
                ("prune.prune-1", (0.75, 1.5)),
                ("prune.finetune-1", (0.75, 1.6)),
                ("train.evaluate", (0.75, 2.0)),
            ] {
                let (expected, measured) = actions[action];
                let ratio = expected / measured;
                assert!(
                    least < ratio && ratio < most,
                    "{action} of {model} {training}: {expected} bytes expected, {measured} measured, {ratio:.2}"
                );
            }
        }
    }
}
