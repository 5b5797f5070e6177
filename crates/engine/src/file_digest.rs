//! The digest of a file, by all threads: each reads its own parts of the file and hashes them while they are still in
//! the processor's cache.
//!
//! Invariants: the digest is that of all bytes of the file; one that was cut short or grew meanwhile, or tells no size,
//! is an error. Files are read, not mapped: a mapped file that somebody cuts short would
//! kill the process with SIGBUS.

use crate::digest::Digest;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is read at a time: a part of blake3's tree that stays in a processor's caches until it is hashed.
const PART: u64 = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The digest of the content of the file at `path`, and how many bytes that is.
pub(crate) fn digest_of_file(path: &Path) -> io::Result<(Digest, u64)> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let hash = if size <= PART {
        read(&file, 0, size, blake3::hash)?
    } else {
        let (left, right) = halves(&file, 0, size)?;
        merge_subtrees_root(&left, &right, Mode::Hash)
    };
    if file.read_at(&mut [0], size)? > 0 {
        return Err(io::Error::other("it grows while it is read"));
    }
    Ok((Digest::from_bytes(*hash.as_bytes()), size))
}

/// The values of the two subtrees of the `length` bytes from `offset` on.
fn halves(file: &File, offset: u64, length: u64) -> io::Result<(ChainingValue, ChainingValue)> {
    let left = left_subtree_len(length);
    let (left, right) = rayon::join(
        || subtree(file, offset, left),
        || subtree(file, offset + left, length - left),
    );
    Ok((left?, right?))
}

fn subtree(file: &File, offset: u64, length: u64) -> io::Result<ChainingValue> {
    if length <= PART {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        return read(file, offset, length, |bytes| hasher.update(bytes).finalize_non_root());
    }
    let (left, right) = halves(file, offset, length)?;
    Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

/// What `hash` makes of the `length` bytes from `offset` on.
fn read<T>(file: &File, offset: u64, length: u64, hash: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PART as usize, 0);
        let part = &mut buffer[..length as usize];
        file.read_exact_at(part, offset)?;
        Ok(hash(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_bytes_whatever_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let part = PART as usize;
        for size in [
            0,
            1,
            1024,
            1025,
            part - 1,
            part,
            part + 1,
            3 * part,
            8 * part,
            9 * part + 1025,
        ] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let path = folder.path().join(size.to_string());
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(digest_of_file(&path).unwrap(), (Digest::of_bytes(&bytes), size as u64));
        }
    }

    #[test]
    fn a_file_that_was_cut_short_meanwhile_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 3 * PART as usize]).unwrap();
        let file = File::open(&path).unwrap();
        assert!(subtree(&file, 0, 4 * PART).is_err());
    }
}
