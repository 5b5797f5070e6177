//! Run records: what `why` compares with.

use crate::fixture::{Workshop, files_below, graph};
use orchestrate_engine::RecordedOutcome;
use std::fs;
use std::io::Write;

#[test]
fn the_last_result_of_an_action_is_found_whatever_came_after() {
    let workshop = Workshop::new();
    let first = workshop.build(&graph(&[("a", "1", &[]), ("b", "b", &[])]));
    let key = first.report.actions.values().next().unwrap().key;
    for number in 0..3 {
        workshop.build(&graph(&[("b", &format!("b{number}"), &[])]));
    }
    let store = workshop.store();
    let last = store.last_record_of("recipe", "a").unwrap().unwrap();
    assert_eq!(
        (last.key, last.outcome, last.step.as_str()),
        (key, RecordedOutcome::Executed, "step of a")
    );
    assert_eq!(
        store
            .last_record_of("recipe", "b")
            .unwrap()
            .unwrap()
            .reason
            .unwrap()
            .to_string(),
        "text \"b1\" → \"b2\""
    );
    assert_eq!(store.last_record_of("recipe", "c").unwrap(), None);
    assert_eq!(store.last_record_of("other", "a").unwrap(), None);
}

#[test]
fn a_record_that_was_cut_short_tells_what_is_left_of_it() {
    let workshop = Workshop::new();
    workshop.build(&graph(&[("a", "1", &[]), ("b", "b", &[])]));
    let record = files_below(&workshop.path("store/runs")).pop_first().unwrap();
    let text = fs::read_to_string(&record).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");
    let in_b = text.rfind("\"action\":\"b\"").unwrap();
    fs::write(&record, &text[..in_b + 15]).unwrap();
    let store = workshop.store();
    assert!(store.last_record_of("recipe", "a").unwrap().is_some());
    assert_eq!(store.last_record_of("recipe", "b").unwrap(), None);
    fs::File::options()
        .append(true)
        .open(&record)
        .unwrap()
        .write_all(&[0xff, b'\n'])
        .unwrap();
    assert!(
        store.last_record_of("recipe", "a").unwrap().is_some(),
        "not even bytes that are no text are in the way"
    );
    fs::write(&record, "").unwrap();
    assert_eq!(store.last_record_of("recipe", "a").unwrap(), None);
}

#[test]
fn the_last_hundred_records_of_a_recipe_and_profile_are_kept() {
    let workshop = Workshop::new();
    let runs = workshop.path("store/runs");
    drop(workshop.store());
    let smoke = format!(
        ",\"variant\":{{\"profile\":\"smoke\",\"digest\":\"{}\"}}",
        "0".repeat(64)
    );
    for millis in 1..=160 {
        let (recipe, variant) = match millis {
            1..=10 => ("other", ""),
            11..=20 => ("recipe", smoke.as_str()),
            _ => ("recipe", ""),
        };
        let line = format!("{{\"line\":\"run\",\"recipe\":\"{recipe}\",\"started_millis\":{millis}{variant}}}\n");
        fs::write(runs.join(format!("{millis}-1.jsonl")), line).unwrap();
    }
    fs::write(runs.join("notes.txt"), "").unwrap();
    workshop.build(&graph(&[("a", "a", &[])]));
    assert_eq!(files_below(&runs).len(), 20 + 100 + 1);
    assert!(runs.join("11-1.jsonl").exists(), "of another profile");
    assert!(runs.join("20-1.jsonl").exists() && !runs.join("61-1.jsonl").exists() && runs.join("62-1.jsonl").exists());
    // The next ones are not looked for at once, and not forgotten.
    let counts = (0..16).map(|_| {
        workshop.build(&graph(&[("a", "a", &[])]));
        files_below(&runs).len()
    });
    let counts: Vec<usize> = counts.collect();
    assert_eq!(counts[0], 20 + 100 + 2);
    assert!(counts.contains(&(20 + 100 + 1)), "{counts:?}");
}
