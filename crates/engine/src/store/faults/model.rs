//! A model of a disk that forgets: what may be there after a power cut.
//!
//! Files and folders have two states, the one that programs see and the one that is lasting. A file's content is made
//! lasting by syncing the file, a name by syncing the folder that it is in, and nothing else is; so a name may be
//! lasting whose content is not, and a move is the coming of one name and the going of another. This is less than any
//! file system in use promises.

use super::Change;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Which of the changed names that are not lasting are there after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// None.
    Lasting,
    /// Every other, beginning with the first.
    Even,
    /// Every other, beginning with the second.
    Odd,
    /// All.
    Seen,
}

/// What is in files whose content is not lasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// What was synced, which is nothing for a new file.
    Lasting,
    /// That, and half of what was written since.
    Half,
    /// That, and zeros in the place of what was written since.
    Zeros,
    /// All that was written.
    Seen,
}

type Id = usize;
type Entries = BTreeMap<String, Id>;

#[derive(Debug, Clone, Default)]
struct State<T> {
    seen: T,
    lasting: T,
}

#[derive(Debug, Clone)]
enum Node {
    Folder(State<Entries>),
    File(State<Vec<u8>>),
}

/// What is on a disk below one folder.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    folder: PathBuf,
    /// The first is the folder.
    nodes: Vec<Node>,
}

/// The files and folders below a folder: a folder has no content.
pub(super) type Listing = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl Disk {
    /// What is below `folder`, all of it lasting.
    pub(super) fn read(folder: &Path) -> Self {
        let mut disk = Self {
            folder: folder.to_owned(),
            nodes: vec![Node::Folder(State::default())],
        };
        for (path, content) in list(folder) {
            let path = folder.join(path);
            disk.make(&path, content.unwrap_or_default(), path.is_dir());
        }
        for node in &mut disk.nodes {
            match node {
                Node::Folder(state) => state.lasting.clone_from(&state.seen),
                Node::File(state) => state.lasting.clone_from(&state.seen),
            }
        }
        disk
    }

    /// Makes `change` as a file system does that makes it lasting as late as it may. One that cannot be made is none.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeFolder(path) => self.make(path, Vec::new(), true),
            Change::MakeFile(path) => self.make(path, Vec::new(), false),
            Change::Write(path, bytes) => {
                if let Some(Node::File(state)) = self.find(path).map(|id| &mut self.nodes[id]) {
                    state.seen.extend(bytes);
                }
            }
            Change::Overwrite(path, bytes) => {
                if let Some(Node::File(state)) = self.find(path).map(|id| &mut self.nodes[id]) {
                    state.seen.clone_from(bytes);
                }
            }
            Change::SyncFile(path) | Change::SyncFolder(path) => match self.find(path).map(|id| &mut self.nodes[id]) {
                Some(Node::Folder(state)) => state.lasting.clone_from(&state.seen),
                Some(Node::File(state)) => state.lasting.clone_from(&state.seen),
                None => {}
            },
            Change::Rename(from, to) => {
                if let (Some(id), Some(_)) = (self.find(from), self.find(to.parent().unwrap())) {
                    self.entries(from).remove(name(from));
                    self.entries(to).insert(name(to).to_owned(), id);
                }
            }
            Change::Remove(path) => {
                if self.find(path).is_some() {
                    self.entries(path).remove(name(path));
                }
            }
            Change::RemoveEmpty(path) => {
                let is_empty = |id: Id| matches!(&self.nodes[id], Node::Folder(state) if state.seen.is_empty());
                if self.find(path).is_some_and(is_empty) {
                    self.entries(path).remove(name(path));
                }
            }
        }
    }

    fn make(&mut self, path: &Path, content: Vec<u8>, is_folder: bool) {
        if self.find(path).is_some() || self.find(path.parent().unwrap()).is_none() {
            return;
        }
        let id = self.nodes.len();
        self.nodes.push(if is_folder {
            Node::Folder(State::default())
        } else {
            Node::File(State {
                seen: content,
                lasting: Vec::new(),
            })
        });
        self.entries(path).insert(name(path).to_owned(), id);
    }

    /// What is seen at `path`.
    fn find(&self, path: &Path) -> Option<Id> {
        let mut id = 0;
        for component in path.strip_prefix(&self.folder).unwrap().components() {
            let (Node::Folder(state), Component::Normal(name)) = (&self.nodes[id], component) else {
                return None;
            };
            id = *state.seen.get(name.to_str().unwrap())?;
        }
        Some(id)
    }

    /// What is seen in the folder of `path`, which is there.
    fn entries(&mut self, path: &Path) -> &mut Entries {
        let id = self.find(path.parent().unwrap()).unwrap();
        match &mut self.nodes[id] {
            Node::Folder(state) => &mut state.seen,
            Node::File(_) => panic!("{} is in a file", path.display()),
        }
    }

    /// What is there after a power cut.
    pub(super) fn left(&self, names: Names, contents: Contents) -> Listing {
        let mut listing = Listing::new();
        self.gather(0, Path::new(""), names, contents, &mut 0, &mut listing);
        listing
    }

    fn gather(&self, id: Id, path: &Path, names: Names, contents: Contents, unsure: &mut usize, listing: &mut Listing) {
        let entries = match &self.nodes[id] {
            Node::File(state) => {
                listing.insert(path.to_owned(), Some(content(state, contents)));
                return;
            }
            Node::Folder(state) => state,
        };
        if id != 0 {
            listing.insert(path.to_owned(), None);
        }
        let all: BTreeMap<&String, ()> = entries
            .seen
            .keys()
            .chain(entries.lasting.keys())
            .map(|k| (k, ()))
            .collect();
        for name in all.into_keys() {
            let (seen, lasting) = (entries.seen.get(name), entries.lasting.get(name));
            let entry = if seen == lasting {
                seen
            } else {
                *unsure += 1;
                match names {
                    Names::Lasting => lasting,
                    Names::Even if !unsure.is_multiple_of(2) => lasting,
                    Names::Odd if unsure.is_multiple_of(2) => lasting,
                    Names::Even | Names::Odd | Names::Seen => seen,
                }
            };
            if let Some(id) = entry {
                self.gather(*id, &path.join(name), names, contents, unsure, listing);
            }
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// What was synced is there in any case, unless something else was written in its place.
fn content(state: &State<Vec<u8>>, contents: Contents) -> Vec<u8> {
    let kept = if state.seen.starts_with(&state.lasting) {
        state.lasting.len()
    } else {
        0
    };
    let (kept, added) = state.seen.split_at(kept);
    let left = match contents {
        Contents::Lasting => return state.lasting.clone(),
        Contents::Half => added[..added.len() / 2].to_owned(),
        Contents::Zeros => vec![0; added.len()],
        Contents::Seen => added.to_owned(),
    };
    [kept, &left].concat()
}

/// What is below `folder`.
pub(super) fn list(folder: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut open = vec![folder.to_owned()];
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(folder).unwrap().to_owned();
            if path.is_dir() {
                listing.insert(relative, None);
                open.push(path);
            } else {
                listing.insert(relative, Some(fs::read(path).unwrap()));
            }
        }
    }
    listing
}

/// Makes an empty folder hold what `listing` says.
pub(super) fn write(listing: &Listing, folder: &Path) {
    for (path, content) in listing {
        match content {
            None => fs::create_dir(folder.join(path)).unwrap(),
            Some(bytes) => fs::write(folder.join(path), bytes).unwrap(),
        }
    }
}

#[test]
fn only_what_was_synced_is_sure_to_be_left() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old"), "old").unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut disk = Disk::read(folder.path());
    let left = |disk: &Disk, names, contents| -> Vec<String> {
        let listing = disk.left(names, contents);
        let text = |(path, bytes): (&PathBuf, &Option<Vec<u8>>)| {
            let bytes = bytes.as_deref().unwrap_or_default();
            format!("{}={}", path.display(), String::from_utf8_lossy(bytes))
        };
        listing.iter().map(text).collect()
    };
    disk.apply(&Change::MakeFile(path("new")));
    disk.apply(&Change::Write(path("new"), b"text".to_vec()));
    assert_eq!(left(&disk, Names::Lasting, Contents::Lasting), ["old=old"]);
    assert_eq!(left(&disk, Names::Seen, Contents::Lasting), ["new=", "old=old"]);
    assert_eq!(left(&disk, Names::Seen, Contents::Half), ["new=te", "old=old"]);
    disk.apply(&Change::SyncFile(path("new")));
    disk.apply(&Change::Rename(path("new"), path("old")));
    assert_eq!(left(&disk, Names::Lasting, Contents::Seen), ["old=old"]);
    assert_eq!(left(&disk, Names::Seen, Contents::Lasting), ["old=text"]);
    disk.apply(&Change::SyncFolder(path("")));
    disk.apply(&Change::Overwrite(path("old"), b"else".to_vec()));
    let contents = [Contents::Lasting, Contents::Half, Contents::Seen];
    let all = contents.map(|contents| left(&disk, Names::Seen, contents).concat());
    assert_eq!(all, ["old=text", "old=el", "old=else"]);
    disk.apply(&Change::Remove(path("old")));
    assert_eq!(left(&disk, Names::Lasting, Contents::Lasting), ["old=text"]);
    assert!(left(&disk, Names::Seen, Contents::Lasting).is_empty());
}
