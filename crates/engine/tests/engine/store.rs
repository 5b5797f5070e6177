//! The store as a folder: what it is made of, what a crash leaves, what it refuses, and what it does to users' files.

use crate::fixture::{Fake, Workshop, all, concatenate, files_below, flip_bit, graph, options, overwrite};
use orchestrate_engine::{
    Cancel, Digest, GcOptions, InProcessExecutor, Integrity, LeasePurpose, Lookup, Store, StoreError, Tree, build,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Publishes files as an artifact.
fn publish(store: &Store, files: &[(&str, &str)]) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    store.publish(folder.path()).unwrap()
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The files below `folder`, the store's own manifest aside.
fn read(folder: &Path) -> BTreeMap<String, String> {
    let name = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    let files = files_below(folder)
        .into_iter()
        .map(|path| (name(&path), fs::read_to_string(path).unwrap()));
    files.filter(|(name, _)| name != ".orchestrate-manifest.json").collect()
}

fn text(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect()
}

#[test]
fn a_store_is_marked_as_a_cache_and_knows_its_format() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("store")).unwrap();
    fs::write(workshop.path("store/.gitignore"), "mine").unwrap();
    drop(workshop.store());
    assert!(
        fs::read_to_string(workshop.path("store/CACHEDIR.TAG"))
            .unwrap()
            .starts_with("Signature: 8a477f597d28d1")
    );
    assert_eq!(fs::read_to_string(workshop.path("store/.gitignore")).unwrap(), "mine");
    let open = || Store::open(&workshop.path("store"));
    let format = |line: &str| format!("{line}\n{}\n", Digest::of_bytes(line.as_bytes()));
    let file = workshop.path("store/FORMAT");
    assert_eq!(fs::read_to_string(&file).unwrap(), format("1"));
    fs::write(&file, format("2")).unwrap();
    assert!(matches!(
        open(),
        Err(StoreError::NewerFormat { found: 2, known: 1, .. })
    ));
    fs::write(&file, "1\n").unwrap();
    drop(open().unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n", "as it was once written");
    for nonsense in ["", "0", "one", "3\n", &format("0")] {
        fs::write(&file, nonsense).unwrap();
        drop(open().unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), format("1"), "{nonsense}");
    }
    fs::remove_dir(workshop.path("store/leases")).unwrap();
    fs::write(&file, "one").unwrap();
    assert!(
        matches!(open(), Err(StoreError::BadFormat { .. })),
        "it may be another program's folder"
    );
}

#[test]
fn a_folder_with_other_things_does_not_become_a_store() {
    let workshop = Workshop::new();
    fs::write(workshop.path("thesis.tex"), "").unwrap();
    let error = Store::open(workshop.folder.path()).unwrap_err().to_string();
    assert!(error.contains("thesis.tex") && error.contains("--cache DIR"), "{error}");
    assert_eq!(files_below(workshop.folder.path()).len(), 1);
    fs::write(workshop.path("file"), "").unwrap();
    let error = Store::open(&workshop.path("file/store")).unwrap_err().to_string();
    assert!(
        error.contains("--cache DIR") || error.contains("Not a directory"),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_a_way_out() {
    let workshop = Workshop::new();
    let folder = workshop.path("store");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.join("probe"), "").is_ok() {
        // Root may write anywhere.
        return;
    }
    let error = Store::open(&folder).unwrap_err().to_string();
    assert!(
        error.contains(folder.to_str().unwrap()) && error.contains("--cache DIR"),
        "{error}"
    );
}

#[test]
fn what_dead_processes_left_is_swept_and_what_living_ones_use_is_not() {
    let workshop = Workshop::new();
    let living = workshop.store();
    let scratch = living.scratch().unwrap();
    let dead = workshop.path("store/tmp/session-dead");
    fs::create_dir_all(dead.join("work-1")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("work-1/half"), "half a bl").unwrap();
    fs::create_dir(workshop.path("store/tmp/session-without-lock")).unwrap();
    fs::write(workshop.path("store/tmp/stray"), "").unwrap();
    let second = workshop.store();
    assert!(scratch.path().exists() && second.scratch().is_ok());
    let names = || fs::read_dir(workshop.path("store/tmp")).unwrap().count();
    assert_eq!(names(), 3, "two sessions and the gate");
    drop((scratch, living, second));
    assert_eq!(names(), 1);
}

#[test]
fn no_folder_is_given_away_twice() {
    let workshop = Workshop::new();
    let paths: BTreeSet<PathBuf> = (0..20)
        .flat_map(|_| {
            let store = workshop.store();
            [(); 2].map(|()| store.scratch().unwrap().path().to_owned())
        })
        .collect();
    assert_eq!(
        paths.len(),
        40,
        "a worker may outlive its build and write into what it was given"
    );
}

#[test]
fn an_artifact_comes_back_as_it_went_in() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let tree = publish(
        &store,
        &[("model/weights", "www"), ("config", "c"), ("same", "c"), ("empty", "")],
    );
    assert_eq!(
        tree.entries().iter().map(|e| e.path.as_str()).collect::<Vec<_>>(),
        ["config", "empty", "model/weights", "same"]
    );
    assert_eq!(tree.size(), 5);
    assert_eq!(store.tree(&tree.digest()).unwrap(), Some(tree.clone()));
    assert_eq!(store.has_bytes(&tree.digest()).unwrap(), Integrity::Whole);
    let files = store.checkout(&tree.digest(), "input").unwrap();
    assert_eq!(fs::read_to_string(&files["model/weights"]).unwrap(), "www");
    assert_eq!(files["config"], files["same"]);
    assert!(
        files
            .values()
            .all(|path| fs::metadata(path).unwrap().permissions().readonly())
    );
    assert_eq!(publish(&store, &[]).entries(), []);
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let folder = tempfile::tempdir().unwrap();
    let problem = || match store.publish(folder.path()) {
        Err(StoreError::BadOutput { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let path = folder.path().join("x");
    std::os::unix::fs::symlink("/etc", &path).unwrap();
    assert!(problem().contains("symbolic link"));
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(problem().contains("no regular file"));
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join("a\nb"), "").unwrap();
    assert!(matches!(store.publish(folder.path()), Err(StoreError::Tree(_))));
}

#[test]
fn damage_is_found_put_aside_and_healed_by_publishing_again() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let files = [("a", "aaaa"), ("b", "bbbb"), ("c", "cccc")];
    let tree = publish(&store, &files);
    let blob = |at: usize| workshop.file("blobs", &tree.entries()[at].digest.to_string());
    overwrite(&blob(0), b"aa");
    let short = Integrity::Corrupt {
        digest: tree.entries()[0].digest,
    };
    assert_eq!(store.has_bytes(&tree.digest()).unwrap(), short);
    flip_bit(&blob(1));
    fs::remove_file(blob(2)).unwrap();
    assert_eq!(store.verify(&tree.digest()).unwrap(), short);
    assert!(!blob(0).exists() && !blob(1).exists());
    assert_eq!(files_below(&workshop.path("store/quarantine")).len(), 2);
    let Err(StoreError::NotWhole { found, role, .. }) = store.checkout(&tree.digest(), "teacher") else {
        panic!()
    };
    assert_eq!(
        (found, role.as_str()),
        (
            Integrity::Missing {
                what: "the content of a".into()
            },
            "teacher"
        )
    );
    assert_eq!(publish(&store, &files), tree);
    flip_bit(&blob(1));
    assert_eq!(publish(&store, &files), tree);
    assert_eq!(store.verify(&tree.digest()).unwrap(), Integrity::Whole);
}

#[test]
fn a_tree_file_that_is_damaged_or_of_another_digest_is_none() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let (tree, other) = (publish(&store, &[("a", "a")]), publish(&store, &[("a", "b")]));
    let path = |tree: &Tree| workshop.file("trees", &tree.digest().to_string());
    let whole = fs::read(path(&tree)).unwrap();
    let foreign = fs::read(path(&other)).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", &foreign] {
        fs::write(path(&tree), damaged).unwrap();
        assert_eq!(store.tree(&tree.digest()).unwrap(), None);
        assert!(!path(&tree).exists());
        assert!(matches!(
            store.has_bytes(&tree.digest()).unwrap(),
            Integrity::Missing { .. }
        ));
    }
}

#[test]
fn a_lease_is_held_by_one() {
    let workshop = Workshop::new();
    let (one, two) = (workshop.store(), workshop.store());
    let key = Digest::of_bytes(b"key").to_string().parse().unwrap();
    let try_lease = |store: &Store, action: &str| {
        let (recipe, action) = ("recipe".to_owned(), action.to_owned());
        store.try_lease(&key, &LeasePurpose { recipe, action }).unwrap()
    };
    assert_eq!(two.lease_holder(&key), None);
    let lease = try_lease(&one, "a");
    assert!(lease.is_some() && try_lease(&one, "b").is_none() && try_lease(&two, "b").is_none());
    let holder = two.lease_holder(&key).unwrap().to_string();
    let process = std::process::id();
    assert_eq!(holder, format!("process {process}, as action a of recipe recipe"));
    drop(lease);
    assert!(try_lease(&two, "b").is_some());
    assert_eq!(one.result(&key).unwrap(), Lookup::Absent);
}

#[test]
fn materializing_follows_the_artifact() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let out = workshop.path("deep/out");
    let first = [("config", "1"), ("sub/weights", "w"), ("sub/masks", "m")];
    store.materialize(&publish(&store, &first).digest(), &out).unwrap();
    assert_eq!(read(&out), text(&first));
    let unchanged = fs::metadata(out.join("sub/weights")).unwrap().modified().unwrap();
    // A file becomes a folder, a folder goes, one file stays.
    let second = [("config/inner", "2"), ("sub/weights", "w")];
    store.materialize(&publish(&store, &second).digest(), &out).unwrap();
    assert_eq!(read(&out), text(&second));
    assert_eq!(
        fs::metadata(out.join("sub/weights")).unwrap().modified().unwrap(),
        unchanged
    );
    store
        .materialize(&publish(&store, &[("config", "3"), ("sub", "s")]).digest(), &out)
        .unwrap();
    assert_eq!(read(&out), text(&[("config", "3"), ("sub", "s")]));
    assert!(!fs::metadata(out.join("sub")).unwrap().permissions().readonly());
}

#[test]
fn materializing_never_touches_files_of_the_users() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let out = workshop.path("out");
    let one = publish(&store, &[("model", "1"), ("log", "l")]).digest();
    let two = publish(&store, &[("model", "2")]).digest();
    write(&out, &[("notes", "mine"), ("model", "mine")]);
    assert!(matches!(store.materialize(&one, &out), Err(StoreError::InTheWay { path }) if path == out.join("model")));
    assert_eq!(read(&out), text(&[("notes", "mine"), ("model", "mine")]));
    fs::remove_file(out.join("model")).unwrap();
    store.materialize(&one, &out).unwrap();
    fs::write(out.join("log"), "edited").unwrap();
    store.materialize(&two, &out).unwrap();
    assert_eq!(
        read(&out),
        text(&[("notes", "mine"), ("model", "2"), ("log", "edited")])
    );
    fs::write(out.join("model"), "edited").unwrap();
    assert!(matches!(
        store.materialize(&one, &out),
        Err(StoreError::InTheWay { .. })
    ));
    assert_eq!(read(&out)["model"], "edited");
}

#[test]
fn what_a_user_does_to_a_file_that_was_copied_out_never_reaches_the_store() {
    let workshop = Workshop::new();
    let store = workshop.store();
    // In the folder of the store, so that both are on one file system and may share bytes.
    let out = workshop.path("out");
    let large = "w".repeat(1 << 20);
    let files = [
        ("appended", "a".repeat(5000)),
        ("cut", "c".repeat(5000)),
        ("overwritten", large),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let tree = publish(&store, &files).digest();
    store.materialize(&tree, &out).unwrap();
    assert_eq!(read(&out), text(&files));
    let open = |name: &str| fs::File::options().write(true).open(out.join(name)).unwrap();
    let mut appended = fs::File::options().append(true).open(out.join("appended")).unwrap();
    appended.write_all(b"more").unwrap();
    open("cut").set_len(100).unwrap();
    open("overwritten").write_all_at(b"edited", 4096).unwrap();
    for (name, whole) in &files {
        assert_ne!(fs::read_to_string(out.join(name)).unwrap(), *whole);
    }
    assert_eq!(store.verify_all(false).unwrap().damaged, []);
    assert_eq!(store.verify(&tree).unwrap(), Integrity::Whole);
    assert!(matches!(
        store.materialize(&tree, &out),
        Err(StoreError::InTheWay { .. })
    ));
    for (name, _) in &files {
        fs::remove_file(out.join(name)).unwrap();
    }
    store.materialize(&tree, &out).unwrap();
    assert_eq!(read(&out), text(&files));
}

#[test]
fn materializing_follows_no_links_and_believes_no_manifest() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let (out, outside) = (workshop.path("out"), workshop.path("outside"));
    write(&outside, &[("x", "x"), ("secret", "s")]);
    fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&outside, out.join("sub")).unwrap();
    let tree = publish(&store, &[("sub/x", "y")]).digest();
    assert!(matches!(
        store.materialize(&tree, &out),
        Err(StoreError::InTheWay { .. })
    ));
    fs::remove_file(out.join("sub")).unwrap();
    let entry = |path: &str| {
        format!(
            "{{\"path\":\"{path}\",\"size\":1,\"digest\":\"{}\"}}",
            Digest::of_bytes(b"s")
        )
    };
    let manifest = format!(
        "{{\"files\":[{},{}]}}",
        entry("../outside/secret"),
        entry("sub/../../outside/secret")
    );
    fs::write(out.join(".orchestrate-manifest.json"), manifest).unwrap();
    store.materialize(&tree, &out).unwrap();
    assert_eq!(read(&outside), text(&[("x", "x"), ("secret", "s")]));
    fs::write(out.join(".orchestrate-manifest.json"), "{\"fil").unwrap();
    store.materialize(&tree, &out).unwrap();
    assert_eq!(read(&out), text(&[("sub/x", "y")]));
}

#[test]
fn a_materialization_that_was_killed_is_taken_up_again() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let out = workshop.path("out");
    let old = publish(&store, &[("a", "1"), ("b", "1"), ("gone", "1")]);
    let new = publish(&store, &[("a", "2"), ("b", "2")]);
    store.materialize(&old.digest(), &out).unwrap();
    // As it is when the files were listed and the first was moved.
    let entries: Vec<_> = old.entries().iter().chain(new.entries()).collect();
    let manifest = format!("{{\"files\":{}}}", serde_json::to_string(&entries).unwrap());
    fs::write(out.join(".orchestrate-manifest.json"), manifest).unwrap();
    write(
        &out,
        &[
            ("a", "2"),
            (".orchestrate-partial/1", "2"),
            (".orchestrate-partial/0", "half"),
        ],
    );
    store.materialize(&new.digest(), &out).unwrap();
    assert_eq!(read(&out), text(&[("a", "2"), ("b", "2")]));
}

#[test]
fn a_damaged_blob_reaches_no_user() {
    let workshop = Workshop::new();
    let built = workshop.build(&graph(&[("a", "text", &[])]));
    let tree = built
        .report
        .actions
        .values()
        .next()
        .unwrap()
        .result
        .as_ref()
        .unwrap()
        .tree;
    flip_bit(&workshop.blob_of(&built, "a"));
    let out = workshop.path("out");
    assert!(matches!(
        workshop.store().materialize(&tree, &out),
        Err(StoreError::NotWhole { .. })
    ));
    assert!(read(&out).is_empty(), "no half copies either");
    assert_eq!(workshop.build(&graph(&[("a", "text", &[])])).started(), ["a"]);
    workshop.store().materialize(&tree, &out).unwrap();
    assert_eq!(read(&out), text(&[("out", "text")]));
}

#[test]
fn a_store_that_is_opened_to_be_read_changes_nothing() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "text", &[])]);
    let empty = workshop.path("store");
    assert!(Store::open_to_read(&empty).unwrap().runs().unwrap().is_empty());
    assert!(!empty.exists(), "not even made");
    let built = workshop.build(&graph);
    let result = built.report.actions.values().next().unwrap().result.clone().unwrap();
    overwrite(&workshop.file("trees", &result.tree.to_string()), b"damaged");
    let before = files_below(&workshop.path("store"));
    let mut store = Store::open_to_read(&workshop.path("store")).unwrap();
    let integrity = store.has_bytes(&result.tree).unwrap();
    assert!(matches!(integrity, Integrity::Missing { .. }), "{integrity:?}");
    let lock = workshop.path("lock");
    fs::write(&lock, "").unwrap();
    let purpose = LeasePurpose {
        recipe: "recipe".to_owned(),
        action: "action".to_owned(),
    };
    let empty_folder = workshop.path("empty");
    fs::create_dir(&empty_folder).unwrap();
    let refused = [
        store.scratch().map(drop),
        store.publish(&empty_folder).map(drop),
        store.remove_result(&result.key).map(drop),
        store.register_roots(&lock),
        store.try_lease(&result.key, &purpose).map(drop),
        store.verify_all(true).map(drop),
        store.gc(&GcOptions::default()).map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::NotWritable { .. })), "{refused:?}");
    }
    let fake = Fake::new(concatenate);
    let executor = InProcessExecutor::new(&fake);
    let options = options(1, false);
    let failed = build(
        &graph,
        &all(&graph),
        &options,
        &store,
        &executor,
        &Cancel::new(),
        &|_| {},
    );
    assert!(failed.unwrap_err().to_string().contains("--cache DIR"));
    assert_eq!(files_below(&workshop.path("store")), before);
    // While it is read, garbage is not collected.
    let collected = workshop.store().gc(&GcOptions::default());
    assert!(matches!(collected, Err(StoreError::InUse { .. })));
}
