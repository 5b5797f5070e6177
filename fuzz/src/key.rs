//! Key documents: equal keys if and only if there is no change to tell.

use orchestrate_engine::{KeyDocument, changes};

pub fn read(bytes: &[u8]) {
    let mut documents = bytes.split(|byte| *byte == 0);
    let mut next = || serde_json::from_slice::<KeyDocument>(documents.next()?).ok();
    let Some(one) = next() else { return };
    let written = serde_json::to_vec(&one).expect("a document is plain JSON");
    let again: KeyDocument = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(one.key(), again.key());
    if let Some(other) = next() {
        let changes = changes(&one, &other);
        assert_eq!(one.key() == other.key(), changes.is_empty());
        for change in changes {
            assert!(!change.to_string().contains('\n'));
        }
    }
}
