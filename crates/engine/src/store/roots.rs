//! Lock files as roots: files outside of the store whose results garbage collection keeps.
//!
//! A registration is the path of such a file, named by its own digest (an indirect root, as Nix has them). Invariants: a
//! result is a root for as long as a registered file, as it is when garbage is collected, has the result's key in its
//! text; a file that is gone names nothing, and its registration goes. Nothing is collected while there is one that cannot
//! be read. What else is in such a file is not known here.

use super::check::read_if_there;
use super::inventory::Named;
use super::{Store, StoreError};
use crate::digest::Digest;
use crate::key::ActionKey;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 64;

/// What the registered files name.
#[derive(Default)]
pub(super) struct Registered {
    pub(super) keys: HashSet<ActionKey>,
    /// Registrations of files that name nothing any more.
    pub(super) lapsed: Vec<Named>,
}

impl Store {
    /// Makes roots of the results whose keys stand in the file at `path`, until the file is removed. It is enough to
    /// register a file once, however it changes.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is not there or the registration cannot be written.
    pub fn register_roots(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.canonicalize().map_err(StoreError::io("find", path))?;
        let bytes = path.as_os_str().as_bytes();
        let name = Digest::of_bytes(bytes);
        if read_if_there(&self.path_of("roots", &name))?.is_some_and(|text| text == bytes) {
            return Ok(());
        }
        self.write_named("roots", &name, bytes)
    }

    /// What the registered files name now.
    pub(super) fn registered(&self) -> Result<Registered, StoreError> {
        let mut registered = Registered::default();
        for registration in self.named("roots")? {
            let path = read_if_there(&registration.path)?.unwrap_or_default();
            let is_whole = Digest::of_bytes(&path) == registration.digest;
            let path = Path::new(OsStr::from_bytes(&path));
            let text = if is_whole {
                read_file(path).map_err(StoreError::io("read", path))?
            } else {
                None
            };
            match text {
                Some(text) => registered.keys.extend(keys_in(&text)),
                None => registered.lapsed.push(registration),
            }
        }
        Ok(registered)
    }
}

/// The bytes of a file, if there is one: whoever reads a pipe might wait for ever.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(about) if about.is_file() => fs::read(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All that has the form of a key.
fn keys_in(text: &[u8]) -> impl Iterator<Item = ActionKey> {
    let words = text.split(|byte| !byte.is_ascii_hexdigit());
    let words = words.filter(|word| word.len() == KEY_DIGITS);
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_form_of_a_key_is_found_among_anything() {
        let [one, two] = ["ab".repeat(32), "0".repeat(64)];
        let text = format!("key = \"{one}\"\n[{two}] {one}f {} \0\u{fe}", &one[..63]);
        let keys: HashSet<ActionKey> = keys_in(text.as_bytes()).collect();
        assert_eq!(keys, [one, two].map(|key| key.parse().unwrap()).into());
    }
}
