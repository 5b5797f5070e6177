//! Taking a step's output folder in as an artifact.
//!
//! Files are copied, not moved: whoever still has one of them open cannot change the artifact. Symbolic links and
//! special files are refused, since their meaning is outside of the folder; empty folders are not kept.

use super::durable::sync_folder;
use super::{Store, StoreError};
use crate::artifact::{Tree, TreeEntry};
use crate::digest::copy_and_hash;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

impl Store {
    /// Takes the files below `folder` in, blobs first and then their tree, which it returns.
    ///
    /// # Errors
    /// [`StoreError::BadOutput`] and [`StoreError::Tree`] for what cannot be kept, [`StoreError::Io`].
    pub fn publish(&self, folder: &Path) -> Result<Tree, StoreError> {
        let metadata = fs::symlink_metadata(folder).map_err(StoreError::io("read", folder))?;
        if metadata.is_symlink() {
            return Err(StoreError::BadOutput {
                path: folder.to_owned(),
                problem: "it is a symbolic link; write into the folder itself".to_owned(),
            });
        }
        let mut files = Vec::new();
        list_files(folder, "", &mut files)?;
        let mut entries = Vec::new();
        let mut shards = BTreeSet::new();
        for (path, origin) in files {
            let mut source = File::open(&origin).map_err(StoreError::io("read", &origin))?;
            let (digest, size) = self.write_blob(&mut source, &origin)?;
            shards.extend(self.path_of("blobs", &digest).parent().map(Path::to_owned));
            entries.push(TreeEntry { path, size, digest });
        }
        for shard in shards {
            sync_folder(&shard)?;
        }
        let tree = Tree::new(entries)?;
        let json = serde_json::to_vec(&tree).expect("a tree is plain JSON");
        self.write_named("trees", &tree.digest(), &json)?;
        Ok(tree)
    }
}

/// The tree that [`Store::publish`] would make of `folder`; nothing is taken in.
pub(crate) fn tree_of_folder(folder: &Path) -> Result<Tree, StoreError> {
    let mut files = Vec::new();
    list_files(folder, "", &mut files)?;
    let entries = files.into_iter().map(|(path, origin)| {
        let read = StoreError::io("read", &origin);
        let (digest, size) = File::open(&origin)
            .and_then(|mut file| copy_and_hash(&mut file, &mut io::sink()))
            .map_err(read)?;
        Ok(TreeEntry { path, size, digest })
    });
    Ok(Tree::new(entries.collect::<Result<_, StoreError>>()?)?)
}

/// Lists the files below `folder`, each with its path in the artifact.
fn list_files(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        let path = entry.path();
        let bad = |problem: &str| StoreError::BadOutput {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| bad("its name is not UTF-8"))?;
        let kind = entry.file_type().map_err(StoreError::io("read", &path))?;
        if kind.is_dir() {
            list_files(&path, &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() {
            files.push((format!("{prefix}{name}"), path));
        } else if kind.is_symlink() {
            return Err(bad("it is a symbolic link; write the file itself"));
        } else {
            return Err(bad("it is no regular file"));
        }
    }
    Ok(())
}
