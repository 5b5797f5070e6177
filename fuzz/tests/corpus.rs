//! What is in `corpus/` is read: seeds, and whatever was once found to break something.

use orchestrate_fuzz::Target;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far more than any input takes, even where many tests share two cores.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_input_of_the_corpus_is_read_soon() {
    for target in Target::ALL {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name());
        let folder = tempfile::tempdir().unwrap();
        let mut read = 0;
        for file in std::fs::read_dir(&corpus).unwrap() {
            let path = file.unwrap().path();
            let start = Instant::now();
            target.read(&std::fs::read(&path).unwrap(), folder.path());
            assert!(start.elapsed() < SOON, "{} took {:?}", path.display(), start.elapsed());
            read += 1;
        }
        assert!(read > 0, "{} has no seeds", target.name());
    }
}
