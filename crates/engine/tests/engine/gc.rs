//! Surveying, verifying and collecting garbage: what goes, what stays, and that a build afterwards is none the wiser.

use crate::fixture::{Built, Workshop, action, all, concatenate, files_below, flip_bit, graph, options, overwrite};
use orchestrate_engine::{ActionGraph, GcOptions, GcReport, Input, Lookup, Outcome, StoreError, Survey};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Three actions in a chain, of which `last` is the text of the last.
fn chain(last: &str) -> ActionGraph {
    graph(&[("a", "a", &[]), ("b", "b", &["a"]), ("c", last, &["b"])])
}

pub fn keep(keep_last: usize) -> GcOptions {
    GcOptions {
        keep_last,
        ..GcOptions::default()
    }
}

pub fn gc(workshop: &Workshop, options: &GcOptions) -> GcReport {
    let before = workshop.store().survey().unwrap();
    let report = workshop.store().gc(options).unwrap();
    let after = workshop.store().survey().unwrap();
    if options.dry_run {
        assert_eq!(after, before);
    } else {
        assert_eq!(after, report.left);
    }
    report
}

/// Everything in the store but what opening it makes.
fn contents(workshop: &Workshop) -> BTreeSet<PathBuf> {
    let mut files = files_below(&workshop.path("store"));
    files.retain(|path| !path.starts_with(workshop.path("store/tmp")));
    files
}

/// The artifacts of a build, by the names of their actions.
pub fn trees(built: &Built) -> BTreeMap<String, String> {
    let actions = built.report.actions.values();
    actions
        .map(|action| (action.name.clone(), action.result.as_ref().unwrap().tree.to_string()))
        .collect()
}

pub fn result_file(workshop: &Workshop, built: &Built, name: &str) -> PathBuf {
    let action = built
        .report
        .actions
        .values()
        .find(|action| action.name == name)
        .unwrap();
    workshop.file("results", &action.key.unwrap().to_string())
}

fn set_age(path: &Path, age: Duration) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn roots_stay_and_the_rest_goes_and_comes_back_as_it_was() {
    let workshop = Workshop::new();
    let builds: Vec<Built> = ["1", "2", "3"].map(|last| workshop.build(&chain(last))).into();
    let report = gc(&workshop, &keep(2));
    assert_eq!(report.roots, 4, "a, b and two of c");
    let counts = |survey: &Survey| [survey.results, survey.trees, survey.blobs].map(|tally| tally.files);
    assert_eq!(counts(&report.removed), [1, 1, 1]);
    assert_eq!(counts(&report.left), [4, 4, 4]);
    assert_eq!(
        report.left.documents.files, 5,
        "a run record names it: `why` may compare with it"
    );
    for last in ["2", "3"] {
        assert!(workshop.build(&chain(last)).started().is_empty());
    }
    let again = workshop.build(&chain("1"));
    assert_eq!(again.started(), ["c"]);
    assert_eq!(trees(&again), trees(&builds[0]));
    assert_eq!(workshop.text_of(&again, "c"), "1(b(a))");
}

#[test]
fn what_only_results_that_went_refer_to_goes_and_what_is_shared_stays() {
    let workshop = Workshop::new();
    // `b` comes out as `a` does in the other graph: both results have one tree.
    workshop.build(&graph(&[("a", "same", &[]), ("x", "old", &["a"])]));
    let built = workshop.build(&graph(&[("b", "same", &[]), ("y", "new", &["b"])]));
    let left = gc(&workshop, &keep(1));
    assert_eq!(
        (left.roots, left.removed.results.files, left.removed.blobs.files),
        (2, 1, 1),
        "{left:?}"
    );
    assert_eq!(workshop.text_of(&built, "y"), "new(same)");
    fs::remove_dir_all(workshop.path("store/runs")).unwrap();
    let empty = gc(&workshop, &keep(1)).left;
    assert_eq!(
        empty.total().files,
        0,
        "no record: no root, and no document that is named"
    );
    assert_eq!(workshop.build(&graph(&[("a", "same", &[])])).started(), ["a"]);
}

#[test]
fn each_recipe_has_its_last_runs_and_runs_without_results_do_not_count() {
    let workshop = Workshop::new();
    let build = |recipe: &str, text: &str| {
        let mut options = options(1, false);
        options.recipe = recipe.to_owned();
        let graph = graph(&[("a", text, &[])]);
        workshop.build_under(&options, &graph, &all(&graph), concatenate)
    };
    build("one", "1");
    for text in ["2", "3", "4"] {
        build("two", text);
    }
    let graph = graph(&[("a", "5", &[])]);
    for _ in 0..3 {
        workshop.build_with(&graph, &all(&graph), |_| panic!("on purpose"));
    }
    let report = gc(&workshop, &keep(1));
    assert_eq!((report.roots, report.removed.results.files), (2, 2));
    assert!(build("one", "1").started().is_empty());
    assert!(build("two", "4").started().is_empty());
}

#[test]
fn a_dry_run_removes_nothing_and_tells_the_same() {
    let workshop = Workshop::new();
    workshop.build(&chain("1"));
    workshop.build(&chain("2"));
    let before = contents(&workshop);
    let dry = GcOptions {
        dry_run: true,
        ..keep(1)
    };
    let told = gc(&workshop, &dry);
    assert_eq!(contents(&workshop), before);
    assert_eq!(told, gc(&workshop, &keep(1)));
    assert_eq!(told.removed.results.files, 1);
}

/// Three single-action runs of one, two and three days ago, the first the oldest.
fn three_ages(workshop: &Workshop) -> [PathBuf; 3] {
    let graph_of = |text: &str| graph(&[("a", text, &[])]);
    [("1", 3), ("2", 2), ("3", 1)].map(|(text, days)| {
        let file = result_file(workshop, &workshop.build(&graph_of(&text.repeat(1000))), "a");
        set_age(&file, days * DAY);
        file
    })
}

fn present(files: &[PathBuf; 3]) -> [bool; 3] {
    files.each_ref().map(|file| file.exists())
}

#[test]
fn the_oldest_go_until_the_rest_fits() {
    let workshop = Workshop::new();
    let files = three_ages(&workshop);
    let total = workshop.store().survey().unwrap().total().bytes;
    let limit = |max_bytes, keep_last| GcOptions {
        max_bytes: Some(max_bytes),
        ..keep(keep_last)
    };
    let fits = gc(&workshop, &limit(total, 0));
    assert_eq!((fits.removed.total().files, fits.bytes_over), (0, 0));
    let one_less = gc(&workshop, &limit(total - 1, 0));
    assert_eq!((present(&files), one_less.bytes_over), ([true; 3], 0));
    assert_eq!(
        one_less.removed.total().files,
        1,
        "the bytes of the oldest: {one_less:?}"
    );
    let over = gc(&workshop, &limit(0, 1));
    assert_eq!(present(&files), [false, false, true], "a root stays, however large");
    assert_eq!((over.roots, over.bytes_over), (1, over.left.total().bytes));
}

#[test]
fn what_is_older_goes() {
    let workshop = Workshop::new();
    let files = three_ages(&workshop);
    let older = |days: u32, max_bytes, keep_last| GcOptions {
        max_age: Some(days * DAY + DAY / 2),
        max_bytes,
        ..keep(keep_last)
    };
    gc(&workshop, &older(2, Some(u64::MAX), 3));
    assert_eq!(present(&files), [true; 3], "roots have no age");
    gc(&workshop, &older(2, Some(u64::MAX), 0));
    assert_eq!(present(&files), [false, true, true]);
    // The clock was a day ahead when this was made.
    File::open(&files[1])
        .unwrap()
        .set_modified(SystemTime::now() + DAY)
        .unwrap();
    gc(&workshop, &older(0, None, 0));
    assert_eq!(present(&files), [false, true, false]);
}

#[test]
fn garbage_beside_a_build_is_not_collected() {
    let workshop = Workshop::new();
    workshop.build(&chain("1"));
    let root = workshop.path("store");
    let act = move |work: &orchestrate_engine::Work<'_>| -> Result<Outcome, _> {
        // Within the build: another process would open the store in the same way.
        let mut other = orchestrate_engine::Store::open(&root).unwrap();
        for dry_run in [true, false] {
            let refused = other.gc(&GcOptions { dry_run, ..keep(0) });
            assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
        }
        concatenate(work)
    };
    let changed = graph(&[("a", "A", &[]), ("b", "b", &["a"]), ("c", "c", &["b"])]);
    let built = workshop.build_with(&changed, &all(&changed), act);
    assert!(built.report.is_success());
    assert_eq!(built.report.executed, 3);
    assert_eq!(workshop.text_of(&built, "c"), "c(b(A))");
    assert_eq!(gc(&workshop, &keep(0)).left.results.files, 0, "and now it is");
}

#[test]
fn a_store_is_shared_again_after_a_collection() {
    let workshop = Workshop::new();
    workshop.build(&chain("1"));
    let mut first = workshop.store();
    first.gc(&keep(0)).unwrap();
    let mut second = workshop.store();
    for store in [&mut first, &mut second] {
        assert!(matches!(store.gc(&keep(0)), Err(StoreError::InUse { .. })));
    }
    drop(first);
    second.gc(&keep(0)).unwrap();
}

#[test]
fn what_a_crash_and_damage_left_goes_and_strangers_stay() {
    let workshop = Workshop::new();
    let built = workshop.build(&chain("1"));
    let unfinished = workshop.path("unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("out"), "no result refers to this").unwrap();
    workshop.store().publish(&unfinished).unwrap();
    flip_bit(&result_file(&workshop, &built, "c"));
    let strangers = ["blobs/notes.txt", "trees/ab", "results/zz/file"].map(|name| workshop.path("store").join(name));
    for stranger in &strangers {
        fs::create_dir_all(stranger.parent().unwrap()).unwrap();
        if !stranger.exists() {
            fs::write(stranger, "not ours").unwrap();
        }
    }
    let quarantine = workshop.path("store/quarantine");
    fs::write(quarantine.join("old-0"), "damaged").unwrap();
    set_age(&quarantine.join("old-0"), 8 * DAY);
    let blob = workshop.blob_of(&built, "a");
    set_age(&blob, 30 * DAY);
    flip_bit(&blob);
    set_age(&blob, 30 * DAY);
    workshop.store().verify_all(true).unwrap();
    let report = gc(&workshop, &keep(3));
    assert_eq!(
        report.removed.quarantine.files, 1,
        "what was put aside a moment ago stays"
    );
    assert_eq!(
        (report.roots, report.left.blobs.files, report.left.trees.files),
        (2, 1, 2)
    );
    assert!(strangers.iter().all(|stranger| stranger.exists()));
    assert_eq!(trees(&workshop.build(&chain("1"))), trees(&built));
}

#[test]
fn verification_finds_every_kind_of_damage_and_repair_heals_it() {
    let workshop = Workshop::new();
    let built = workshop.build(&chain("1"));
    assert!(workshop.store().verify_all(false).unwrap().damaged.is_empty());
    let result = built.report.actions.values().next().unwrap().result.clone().unwrap();
    let (key, tree) = (result.key.to_string(), result.tree.to_string());
    let cases = [
        ("blob", workshop.blob_of(&built, "c")),
        ("tree", workshop.file("trees", &tree)),
        ("result", workshop.file("results", &key)),
        ("key document", workshop.file("keys", &key)),
    ];
    for (what, file) in cases {
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], b""] {
            overwrite(&file, damaged);
            let before = contents(&workshop);
            let report = workshop.store().verify_all(false).unwrap();
            let found: Vec<_> = report
                .damaged
                .iter()
                .map(|damage| (damage.what, &damage.path))
                .collect();
            assert_eq!(found, [(what, &file)]);
            assert_eq!(contents(&workshop), before, "nothing is touched without --repair");
            assert_eq!(fs::read(&file).unwrap(), damaged);
            assert_eq!(workshop.store().verify_all(true).unwrap().damaged, report.damaged);
            assert!(!file.exists());
            assert!(workshop.store().verify_all(false).unwrap().damaged.is_empty());
            assert_eq!(trees(&workshop.build(&chain("1"))), trees(&built));
            if what == "key document" {
                fs::write(&file, &whole).unwrap();
            }
            assert!(file.exists(), "{what} is back");
        }
    }
    assert!(matches!(
        workshop.store().result(&result.key).unwrap(),
        Lookup::Found(_)
    ));
    assert_eq!(workshop.store().survey().unwrap().quarantine.files, 12);
}

#[test]
fn a_store_is_kept_below_a_size_unless_others_have_it_open() {
    let workshop = Workshop::new();
    let files = three_ages(&workshop);
    let total = workshop.store().survey().unwrap().total().bytes;
    assert_eq!(workshop.store().keep_below(total).unwrap(), None);
    let other = workshop.store();
    assert_eq!(workshop.store().keep_below(0).unwrap(), None, "it is not waited for");
    drop(other);
    assert_eq!(present(&files), [true; 3]);
    let report = workshop.store().keep_below(0).unwrap().unwrap();
    assert_eq!(report.bytes_over, report.left.total().bytes, "roots stay");
}

#[test]
fn what_is_remembered_of_inputs_is_counted_verified_and_in_time_forgotten() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    // Of long ago, unlike what a test writes, and not small.
    let input = fs::canonicalize("/bin/sh").unwrap();
    graph
        .add(action(
            "a",
            serde_json::json!({"emit": ""}),
            &[("data", Input::File(input))],
        ))
        .unwrap();
    let act = |work: &orchestrate_engine::Work<'_>| -> Result<Outcome, _> {
        fs::write(work.output.join("out"), "").unwrap();
        Ok(Outcome::default())
    };
    workshop.build_with(&graph, &all(&graph), act);
    let survey = workshop.store().survey().unwrap();
    assert_eq!(survey.stat.files, 1);
    let entry = files_below(&workshop.path("store/stat")).pop_first().unwrap();
    assert_eq!(gc(&workshop, &keep(3)).removed.stat.files, 0);
    set_age(&entry, 91 * DAY);
    let report = gc(&workshop, &keep(3));
    assert_eq!((report.removed.stat.files, report.left.stat.files), (1, 0));
    assert!(!entry.exists());
    workshop.build_with(&graph, &all(&graph), act);
    fs::write(&entry, "{}").unwrap();
    let report = workshop.store().verify_all(true).unwrap();
    assert_eq!(report.damaged[0].what, "entry of the stat cache");
    assert!(workshop.build_with(&graph, &all(&graph), act).started().is_empty());
    assert!(entry.exists(), "it is made anew");
}

#[test]
fn checkpoints_stay_for_a_week_unless_there_is_no_room() {
    let workshop = Workshop::new();
    let folder = workshop.path("store/checkpoints/ab/abcd");
    drop(workshop.store());
    fs::create_dir_all(&folder).unwrap();
    for (name, days) in [("young", 1), ("younger", 0), ("old", 8)] {
        let path = folder.join(name);
        fs::write(&path, [0; 1000]).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
    }
    let left = |options: GcOptions| -> Vec<String> {
        workshop.store().gc(&options).unwrap();
        let entries = fs::read_dir(&folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(left(GcOptions::default()), ["young", "younger"]);
    let max_bytes = Some(1500);
    assert_eq!(
        left(GcOptions {
            max_bytes,
            ..GcOptions::default()
        }),
        ["younger"]
    );
    let max_age = Some(Duration::ZERO);
    assert!(
        left(GcOptions {
            max_age,
            ..GcOptions::default()
        })
        .is_empty()
    );
}
