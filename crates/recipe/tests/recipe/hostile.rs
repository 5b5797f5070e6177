//! Whatever the file says, the answer is a recipe or errors: soon, and without a panic.

use crate::workspace::{FULL, Workspace};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Loads the recipe and shows what is wrong with it: both must end.
fn survives(bytes: &[u8], arguments: &[&str]) {
    let workspace = Workspace::new("");
    workspace.file("recipes/r.toml", bytes);
    if let Err(errors) = workspace.load(arguments) {
        assert!(!errors.findings().is_empty());
        for finding in errors.findings() {
            assert!(
                !finding.advice().is_empty() && !finding.to_string().contains('\n'),
                "{finding}"
            );
        }
        workspace.rendered(&errors);
    }
}

#[track_caller]
fn ends_soon(text: &str) {
    let start = Instant::now();
    survives(text.as_bytes(), &[]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_byte(at in 0..FULL.len(), byte: u8) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes[at] = byte;
        survives(&bytes, &[]);
    }

    #[test]
    fn a_removed_part(at in 0..FULL.len(), length in 0_usize..200) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes.drain(at..(at + length).min(FULL.len()));
        survives(&bytes, &[]);
    }

    #[test]
    fn an_exchanged_value(
        line in 0..FULL.lines().count(),
        value in prop::sample::select(vec![
            "1", "-1", "0", "1e400", "nan", "-inf", "\"\"", "\"${x}\"", "[]", "[[1]]", "{}", "{ a = 1 }", "true",
            "2020-01-01", "99999999999999999999999999999999999999999999999", "\"\\u0000\"", "\"\\u001b[2J\"", "''",
        ]),
    ) {
        let lines = FULL.lines().enumerate().map(|(index, text)| match text.split_once(" = ") {
            Some((key, _)) if index == line => format!("{key} = {value}\n"),
            Some(_) | None => format!("{text}\n"),
        });
        survives(lines.collect::<String>().as_bytes(), &[]);
    }

    #[test]
    fn any_argument(argument in ".{0,60}", key in "[a-z.=\"]{0,30}", value in "[\\[\\]{}a-z0-9.=,\"' ]{0,30}") {
        survives(FULL.as_bytes(), &["--set", &argument, "--profile", &argument, "--device", &argument]);
        survives(FULL.as_bytes(), &["--set", &format!("{key}={value}")]);
        survives(FULL.as_bytes(), &["--set", &format!("step.prune.target={value}")]);
    }

    #[test]
    fn any_text(text in "[\\[\\]{}a-z0-9.=,\"'\n\r\t #$é]{0,200}") {
        survives(text.as_bytes(), &[]);
    }
}

#[test]
fn every_beginning_of_a_recipe() {
    for end in 0..FULL.len() {
        survives(&FULL.as_bytes()[..end], &[]);
    }
}

#[test]
fn many_of_everything_end_soon() {
    ends_soon(&(0..20_000).map(|i| format!("[step.s{i}]\n")).collect::<String>());
    ends_soon(
        &(0..900)
            .map(|i| format!("[step.s{i}]\nkind = \"export\"\ninput = \"s{}\"\n", i + 1))
            .collect::<String>(),
    );
    ends_soon(&(0..20_000).map(|i| format!("key{i} = 1\n")).collect::<String>());
    ends_soon(&(0..20_000).map(|i| format!("[profile.p{i}]\n")).collect::<String>());
    ends_soon(
        &(0..10_000)
            .map(|_| "[[gate]]\nstep = \"x\"\n".to_owned())
            .collect::<String>(),
    );
    let long = "x".repeat(100_000);
    ends_soon(&format!("[recipe]\n{long} = 1\nname = \"{long}\"\n"));
    let steps: String = (0..800)
        .map(|i| format!("[step.s{i}]\nkind = \"prune\"\ninput = \"s{}\"\ntarget = 0.5\n", i / 2))
        .collect();
    let profiles: String = (0..60)
        .map(|i| format!("[profile.p{i}]\nrecipe.seed = {i}\n"))
        .collect();
    ends_soon(&format!("{steps}{profiles}"));
}

#[test]
fn variables_cannot_fill_the_memory() {
    let value = "v".repeat(50_000);
    let uses = "${v}".repeat(40_000);
    ends_soon(&format!(
        "[variables]\nv = \"{value}\"\n[data.d]\nsource = \"{uses}\"\n"
    ));
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let workspace = Workspace::new("");
    workspace.file("recipes/r.toml", &vec![b'#'; 300_000]);
    assert!(
        workspace
            .errors(&[])
            .contains("has 300000 bytes; a recipe has at most 262144")
    );
    std::fs::remove_file(workspace.path().join("recipes/r.toml")).unwrap();
    std::fs::create_dir(workspace.path().join("recipes/r.toml")).unwrap();
    assert!(workspace.errors(&[]).contains("is not a file"));
}

#[test]
fn a_recipe_cannot_write_to_the_terminal() {
    let shown = {
        let workspace = Workspace::new("");
        workspace.file(
            "recipes/r.toml",
            b"[recipe]\nname = \"\\u001b[2J\"\nseed = \"\x1b[31m\"\n",
        );
        workspace.errors(&["--set", "recipe.name=\"\\u001b[2J\"", "--profile", "\u{1b}[2J"])
    };
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn windows_files_have_the_same_lines() {
    let text = FULL.replace("target = 0.5", "target = 5").replace('\n', "\r\n");
    let workspace = Workspace::new(&format!("\u{feff}{text}"));
    let errors = workspace.load(&[]).expect_err("one error");
    assert_eq!(errors.findings()[0].line(), 33);
    assert!(workspace.rendered(&errors).contains("33 │ target = 5"));
}

#[test]
fn a_recipe_of_a_million_lines_is_refused_at_once() {
    let workspace = Workspace::new("");
    workspace.file("recipes/r.toml", "a = 1\n".repeat(1_000_000).as_bytes());
    let start = Instant::now();
    assert!(workspace.errors(&[]).contains("a recipe has at most 262144"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // The most lines that are looked at. The fastest of three tells: what else the machine does is not the recipe's.
    for text in ["\n".repeat(262_144), "a=1\n".repeat(65_536), "[a]\n".repeat(65_536)] {
        let fastest = (0..3).map(|_| {
            let start = Instant::now();
            survives(text.as_bytes(), &[]);
            start.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(fastest < Duration::from_secs(2), "{fastest:?}");
    }
}

#[test]
fn nesting_ends_in_an_error() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        let deep = format!("x = {}1{}", open.repeat(20_000), close.repeat(20_000));
        ends_soon(&deep);
        survives(
            FULL.as_bytes(),
            &["--set", &deep.replacen("x = ", "step.prune.target=", 1)],
        );
    }
    ends_soon(&format!("[{}]\n", ["a"; 50_000].join(".")));
}

#[test]
fn links_to_data_are_followed_to_files_and_nowhere_else() {
    let text = "source = \"text\"\ntrain = \"train.tsv\"\ntest = \"train.tsv\"";
    let workspace = Workspace::new(&FULL.replace("source = \"builtin:reviews\"", text));
    workspace.file("data.tsv", b"sentence\tlabel\n");
    let at = |name: &str| workspace.path().join(name);
    let linked = |to: &str| {
        let link = at("recipes/train.tsv");
        // There is none the first time.
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(at(to), link).unwrap();
        workspace.load(&[])
    };
    assert!(linked("data.tsv").is_ok());
    for (to, expected) in [
        ("recipes/train.tsv", "cannot be read"),
        ("nowhere", "does not exist"),
        ("recipes", "is not a file"),
    ] {
        let errors = linked(to).expect_err("the link leads to no file");
        let all: Vec<String> = errors.findings().iter().map(ToString::to_string).collect();
        assert!(all.iter().all(|one| one.contains(expected)), "{all:?}");
    }
}
