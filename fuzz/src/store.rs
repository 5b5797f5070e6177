//! What a store holds (trees, results, run records), and what engine and workers say to each other.

use orchestrate_engine::{ActionResult, Store, Tree, WorkOrder, WorkerMessage};
use std::path::Path;

pub fn read(bytes: &[u8], folder: &Path) {
    if let Ok(tree) = serde_json::from_slice::<Tree>(bytes) {
        let written = serde_json::to_vec(&tree).expect("a tree is plain JSON");
        assert_eq!(
            serde_json::from_slice::<Tree>(&written).expect("it was just written"),
            tree
        );
    }
    // Whether they can be read is up to the bytes; that nothing else happens is the point.
    drop(serde_json::from_slice::<ActionResult>(bytes));
    drop(serde_json::from_slice::<WorkOrder>(bytes));
    drop(serde_json::from_slice::<WorkerMessage>(bytes));
    let store = Store::open(&folder.join("store")).expect("a store can be made");
    crate::file(&store.root().join("runs"), "1-1.jsonl", bytes);
    drop(store.last_record_of("m", "e").expect("a record is read line by line"));
}
