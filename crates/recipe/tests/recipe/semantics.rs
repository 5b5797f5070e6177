//! What could only fail hours later is refused before anything runs, and nothing follows from an error twice.

use crate::workspace::{FULL, Workspace, full_with, messages, recipe};

/// [`FULL`] with lines added to the section of the step `name`.
fn with(name: &str, lines: &str) -> String {
    let header = format!("[step.{name}]");
    full_with(&header, &format!("{header}\n{lines}"))
}

#[track_caller]
fn assert_only(text: &str, message: &str) {
    assert_eq!(messages(text), [message]);
}

#[test]
fn models_and_data_must_fit() {
    let digits = "[data.digits]\nsource = \"builtin:digits\"\n";
    let mlp = "[model.mlp]\narchitecture = \"mlp\"\n";
    let text = format!("{FULL}{digits}{mlp}").replace("data = \"reviews\"", "data = \"digits\"");
    assert!(messages(&text).contains(&"`large` reads text, but `digits` has images".to_owned()));
    let text = format!("{FULL}{mlp}").replace("model = \"large\"", "model = \"mlp\"");
    assert_only(&text, "`mlp` reads images, but `reviews` has text");
    let text = full_with("\"builtin:reviews\"", "\"builtin:reviews\"\nmax_length = 600");
    assert_eq!(
        messages(&text),
        [
            "rows of `reviews` have up to 600 tokens, but `large` has 512 positions",
            "rows of `reviews` have up to 600 tokens, but `small` has 512 positions"
        ]
    );
}

#[test]
fn a_dropout_that_training_would_round_to_one_is_refused() {
    let message = "`dropout` is so near to 1 that training rounds it to 1";
    assert_only(&with("teacher", "dropout = 0.99999999"), message);
    recipe(&with("teacher", "dropout = 0.9999999"));
}

#[test]
fn later_steps_have_data_of_the_same_shape() {
    let others =
        "[data.digits]\nsource = \"builtin:digits\"\n[data.long]\nsource = \"builtin:reviews\"\nmax_length = 64\n";
    let text = with("prune", "data = \"digits\"")
        + others
        + "[step.l]\nkind = \"train\"\ndata = \"long\"\nmodel = \"small\"\n";
    assert_eq!(
        messages(&text),
        [
            "`student` was trained on text, but `digits` has images",
            // The quantize step has the prune step's data, which are at fault alone.
        ]
    );
    let text = with("check", "data = \"long\"") + others;
    assert_only(
        &text,
        "`export` was trained on rows of up to 32 tokens, but `long` has up to 64",
    );
}

#[test]
fn an_export_in_integers_needs_a_quantized_model() {
    let text = full_with("input = \"quantize\"", "input = \"prune\"");
    assert_only(&text, "`prune` is not quantized, so it cannot be exported as int8");
    recipe(&text.replace("kind = \"export\"", "kind = \"export\"\nprecision = \"f32\""));
    assert_only(
        &with("export", "precision = \"f32\""),
        "`quantize` is quantized, and an export as f32 would lose that",
    );
}

#[test]
fn the_order_of_compression_is_checked() {
    let again = "[step.again]\nkind = \"KIND\"\ninput = \"INPUT\"\n";
    let step = |kind: &str, input: &str, more: &str| {
        format!("{FULL}\n{}{more}", again.replace("KIND", kind).replace("INPUT", input))
    };
    assert_only(
        &step("prune", "quantize", "target = 0.7\n"),
        "`quantize` is quantized, and a quantized model is not pruned",
    );
    assert_only(&step("quantize", "quantize", ""), "`quantize` is quantized already");
    recipe(&step("prune", "prune", "target = 0.7\n"));
    let masked = |text: String| text.replace("target = 0.5", "target = 0.5\ngranularity = \"unstructured\"");
    assert_only(
        &masked(step("prune", "prune", "target = 0.7\n")),
        "`prune` is pruned unstructured, and whole units cannot be removed under its masks",
    );
    recipe(&masked(step(
        "prune",
        "prune",
        "target = 0.7\ngranularity = \"unstructured\"\n",
    )));
}

#[test]
fn a_model_to_quantize_sums_no_more_than_integers_hold() {
    let text = |hidden: usize, kind: &str| {
        format!(
            "[data.d]\nsource = \"builtin:digits\"\n[model.m]\narchitecture = \"lenet5\"\nchannels = [{hidden}, 8]\n\
             [step.t]\nkind = \"train\"\ndata = \"d\"\nmodel = \"m\"\n\
             [step.p]\nkind = \"prune\"\ninput = \"t\"\ntarget = 0.5\n\
             [step.q]\nkind = \"quantize\"\ninput = \"{kind}\"\n"
        )
    };
    recipe(&text(2_631, "t"));
    assert_only(
        &text(2_632, "t"),
        "a layer of `m` sums 65800 products, and in 8 bits more than 65793 could overflow",
    );
    recipe(&text(2_632, "p"));
}

#[test]
fn an_input_is_a_step_that_makes_a_model() {
    let more = |text: &str| format!("{FULL}\n{text}");
    assert_only(
        &more("[step.x]\nkind = \"quantize\"\ninput = \"export\"\n"),
        "`input` must be a step that makes a model; `export` is an export",
    );
    assert_only(
        &more("[step.x]\nkind = \"evaluate\"\ninput = \"check\"\n"),
        "`input` must be a step that makes a model; `check` is an evaluation",
    );
    assert_only(
        &with("prune", "teacher = \"export\"")
            .replace("input = \"quantize\"", "input = \"student\"\nprecision = \"f32\""),
        "`teacher` must be a step that makes a model; `export` is an export",
    );
}

#[test]
fn a_student_can_start_from_its_teacher_only_if_it_has_its_widths() {
    let text = with("student", "initialize = \"teacher\"");
    recipe(&text);
    let start = "`initialize = \"teacher\"` copies whole layers, but ";
    let small = |from: &str, to: &str| {
        let (before, after) = text.split_once("[model.small]").unwrap();
        format!("{before}[model.small]{}", after.replacen(from, to, 1))
    };
    let told = |message: &str| format!("{start}{message}");
    assert_only(
        &small("layers = 2", "layers = 5"),
        &told("the student has 5 layers and its teacher 4"),
    );
    assert_only(
        &small("hidden = 128", "hidden = 64"),
        &told("the student has `hidden` = 64 and its teacher 128"),
    );
    assert_only(
        &small("heads = 4", "heads = 4\nmax_positions = 64"),
        &told("the student has `max_positions` = 64 and its teacher 512"),
    );
    let digits = text.replace("builtin:reviews", "builtin:digits");
    let digits = digits.replace("\"bert\"\nlayers = 4\nhidden = 128\nheads = 4", "\"mlp\"");
    assert_only(
        &digits.replace("\"bert\"\nlayers = 2\nhidden = 128\nheads = 4", "\"mlp\""),
        &told("only bert models have layers to copy"),
    );
}

#[test]
fn heads_are_of_bert_alone() {
    let text = with("prune", "heads = 0.5").replace("builtin:reviews", "builtin:digits");
    let text = text.replace("\"bert\"\nlayers = 4\nhidden = 128\nheads = 4", "\"mlp\"");
    assert_only(
        &text.replace("\"bert\"\nlayers = 2\nhidden = 128\nheads = 4", "\"lenet5\""),
        "`heads` has no meaning here: the model `small` has no attention",
    );
}

#[test]
fn keys_that_exclude_each_other() {
    for (lines, message) in [
        (
            "targets = [0.1]",
            "`target` has no meaning here: `targets` says what is removed in each round",
        ),
        (
            "granularity = \"unstructured\"\nround_to = 8",
            "`round_to` has no meaning here: unstructured pruning changes no width",
        ),
        (
            "granularity = \"unstructured\"\nheads = 0.5",
            "`heads` has no meaning here: unstructured pruning removes single weights, not heads",
        ),
    ] {
        assert_only(&with("prune", lines), message);
    }
    assert_only(
        &full_with("target = 0.5", "targets = [0.2, 0.2]"),
        "`targets` must rise from round to round",
    );
    assert_only(
        &full_with("target = 0.5", "targets = [0.2, 1.2]"),
        "`targets` must be a list in which each is a number above 0 and below 1, found the number 1.2",
    );
    assert_only(
        &full_with("target = 0.5", "targets = []"),
        "`targets` must be a list of numbers, one a round, found an empty list",
    );
    assert_only(
        &with("quantize", "bits = 4"),
        "`bits` must be 8, the only width of integers: `codebook_bits` leaves fewer of them, found the number 4",
    );
    assert_only(
        &with("quantize", "codebook_bits = 8"),
        "`codebook_bits` must be a whole number from 2 to 6, found the number 8",
    );
    assert_only(
        &with("quantize", "percentile = 99"),
        "`percentile` has no meaning here: only `observer = \"percentile\"` has it",
    );
}

#[test]
fn a_misspelt_choice_says_nothing_of_what_depends_on_it() {
    assert_only(
        &with("teacher", "optimizer = \"sdg\"\nmomentum = 0.5"),
        "`optimizer` cannot be `sdg`",
    );
    assert_only(
        &with("quantize", "observer = \"percentil\"\npercentile = 99"),
        "`observer` cannot be `percentil`",
    );
    assert_only(
        &full_with("architecture = \"bert\"", "architecture = \"brt\""),
        "`architecture` cannot be `brt`",
    );
}

#[test]
fn a_faulty_step_spoils_nothing_behind_it() {
    assert_only(
        &with("student", "alpha = 3"),
        "`alpha` must be a number from 0 to 1, found the number 3",
    );
    assert_only(
        &full_with("source = \"builtin:reviews\"", "source = \"builtin:review\""),
        "`source` cannot be `builtin:review`",
    );
    let cycle = full_with("teacher = \"teacher\"", "teacher = \"student\"");
    assert_only(&cycle, "steps need each other in a circle: student → student");
}

#[test]
fn gates_are_looked_up() {
    let gate = |lines: &str| format!("{FULL}\n[[gate]]\n{lines}\n");
    assert_only(
        &gate("step = \"nothing\"\nmetric = \"accuracy\"\nmin = 0.5"),
        "there is no step `nothing`",
    );
    assert_only(
        &gate("step = \"export\"\nmetric = \"macs\"\nmax_ratio = 0.5\nbaseline = \"small\""),
        "`small` is a model, not a step",
    );
    assert_only(
        &gate("step = \"export\"\nmetric = \"loss\"\nmin = 2\nmax = 1"),
        "`min` = 2 is above `max` = 1",
    );
    assert_only(
        &gate("step = \"export\"\nmetric = \"loss\"\nmin = 2\nbaseline = \"teacher\""),
        "`baseline` has no meaning here: only `max_drop` and `max_ratio` compare with it",
    );
    let unmeasured = gate("step = \"export\"\nmetric = \"latency_ms_p50\"\nmax = 2");
    recipe(&unmeasured);
    assert_only(
        &unmeasured.replace("name = \"full\"", "latency_seconds = 0"),
        "`latency_ms_p50` is not measured: `latency_seconds` is 0",
    );
    recipe(&gate("step = \"export\"\nmetric = \"agreement\"\nmin = 0.99"));
    assert_only(
        &gate("step = \"quantize\"\nmetric = \"agreement\"\nmin = 0.99"),
        "`agreement` is known of exports in int8 only",
    );
    assert_only(
        &FULL.replace("[[gate]]", "[gate]"),
        "`gate` must be a list of tables, each under `[[gate]]`, found a table",
    );
}

#[test]
fn names_become_paths_and_must_suit() {
    for name in ["a.b", "a/b", "..", "ü", "", "a b", "a\\u0000", &"x".repeat(65)] {
        let text = format!("{FULL}\n[step.\"{name}\"]\nkind = \"train\"\ndata = \"reviews\"\nmodel = \"small\"\n");
        let all = messages(&text);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].ends_with("cannot be the name of a step"), "{all:?}");
    }
    let all = messages(&full_with("name = \"full\"", "name = \"../full\""));
    assert_eq!(all, ["`../full` cannot be the name of a recipe"]);
    assert_only(
        &format!("{FULL}\n[step]\nx = 1\n").replace("[step.check]\nkind = \"evaluate\"\ninput = \"export\"", ""),
        "`x` must be a table, found the number 1",
    );
}

#[test]
fn tokenizer_and_vocabulary_exclude_each_other() {
    let workspace = Workspace::new(&full_with(
        "\"builtin:reviews\"",
        "\"builtin:reviews\"\ntokenizer = \"t.json\"\nvocab = \"v.txt\"",
    ));
    workspace.file("recipes/t.json", b"{}");
    workspace.file("recipes/v.txt", b"a\n");
    let shown = workspace.errors(&[]);
    assert!(shown.contains("`tokenizer` and `vocab` are both set"), "{shown}");
    let workspace = Workspace::new(&full_with(
        "\"builtin:reviews\"",
        "\"builtin:reviews\"\nvocab = \"v.txt\"",
    ));
    workspace.file("recipes/v.txt", b"a\n");
    let files = workspace.recipe(&[]).data["reviews"].files.clone();
    assert_eq!(files["vocab"], workspace.path().join("recipes/v.txt"));
}
