//! Results, one by one: their sizes, their names, and that one that is removed is made again.

use crate::fixture::{Workshop, graph};
use std::fs;

#[test]
fn results_have_names_sizes_and_roots() {
    let workshop = Workshop::new();
    // The artifacts of a and b are equal, and so share their blob.
    let built = workshop.build(&graph(&[("a", "same", &[]), ("c", "other!", &[])]));
    workshop.build(&graph(&[("c", "last", &[])]));
    let store = workshop.store();
    let results = store.results(1).unwrap();
    let told: Vec<_> = results
        .iter()
        .map(|result| (result.names[0].action.as_str(), result.bytes, result.is_root))
        .collect();
    assert_eq!(
        told,
        [("a", Some(4), false), ("c", Some(6), false), ("c", Some(4), true)]
    );
    assert_eq!(results[0].names[0].step, "step of a");
    let size = |section: &str, name: String| fs::metadata(workshop.file(section, &name)).unwrap().len();
    let alone = &results[0];
    let expected = 4 + size("results", alone.key.to_string()) + size("trees", alone.tree.to_string());
    assert_eq!(alone.own_bytes, expected);
    assert_eq!(workshop.text_of(&built, "a"), "same");
}

#[test]
fn what_results_share_is_nobodys_own() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "x", &[]), ("b", "(x)", &[]), ("c", "", &["a"])]);
    workshop.build(&graph);
    let results = workshop.store().results(3).unwrap();
    let own = |name: &str| {
        let result = results.iter().find(|result| result.names[0].action == name).unwrap();
        let record = fs::metadata(workshop.file("results", &result.key.to_string())).unwrap();
        result.own_bytes - record.len()
    };
    assert!(own("a") > 0);
    assert_eq!((own("b"), own("c")), (0, 0), "their artifacts are equal");
}

#[test]
fn a_result_that_was_removed_is_made_again_and_nothing_else() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[]), ("b", "b", &["a"]), ("c", "c", &["b"])]);
    let first = workshop.build(&graph);
    let key = first.report.actions.values().nth(1).unwrap().key.unwrap();
    assert!(workshop.store().remove_result(&key).unwrap());
    assert!(!workshop.store().remove_result(&key).unwrap(), "it is gone");
    let again = workshop.build(&graph);
    assert_eq!(again.started(), ["b"]);
    assert_eq!(again.reason("b").to_string(), "its result is no longer in the store");
}
