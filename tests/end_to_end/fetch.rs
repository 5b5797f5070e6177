//! `fetch` beside a small hub on this machine, which answers as Hugging Face's does: files of the repository itself, and large
//! ones by way of a store that is elsewhere and must not see the token.

use crate::workspace::{Run, Workspace};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL: &str = "someone/small-bert";

/// What a hub has, and what was asked of it.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Of the large files, as the hub tells it.
    sha256: String,
    /// Bytes of a large file after which the connection is lost, once.
    lost_after: Option<usize>,
    /// Whether every answer is the whole of a file.
    gives_no_parts: bool,
    /// The answer to everything.
    status: Option<u16>,
    /// The next answers, each to one request.
    busy: u32,
    /// Request line, range and token.
    asked: Vec<(String, Option<String>, Option<String>)>,
}

struct Hub {
    state: Arc<Mutex<State>>,
    endpoint: String,
}

/// A request: its line, and its headers in lower case.
fn read(stream: &TcpStream) -> Option<(String, BTreeMap<String, String>)> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next()?.ok()?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let pairs = headers.filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())));
    Some((line, pairs.collect()))
}

fn answer(mut stream: &TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    // Who asked may have gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

impl State {
    /// Answers one request, on the port of the hub or on that of its store.
    fn serve(&mut self, stream: &TcpStream, store: Option<&str>) {
        let Some((line, headers)) = read(stream) else { return };
        let said = |name: &str| headers.get(name).cloned();
        self.asked.push((line.clone(), said("range"), said("authorization")));
        if let Some(status) = self.status {
            return answer(stream, &format!("{status} No"), "Content-Length: 0\r\n", b"");
        }
        if self.busy > 0 {
            self.busy -= 1;
            return answer(stream, "503 Busy", "Content-Length: 0\r\n", b"");
        }
        let is_head = line.starts_with("HEAD");
        let path = line.split(' ').nth(1).unwrap();
        let name = path.rsplit('/').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let to_page = |status: &str, place: &str, more: &str| {
            // The length is that of a page of some words.
            let length = if is_head { 234 } else { 0 };
            let headers = format!("Location: {place}\r\nContent-Length: {length}\r\n{more}");
            answer(stream, status, &headers, b"");
        };
        let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
        match (store, parts.as_slice()) {
            (Some(_), ["someone", "old-name", "resolve", revision, name]) => {
                to_page(
                    "307 Temporary Redirect",
                    &format!("/{MODEL}/resolve/{revision}/{name}"),
                    "",
                );
            }
            (Some(_), ["someone", "moved", ..]) => to_page("308 Permanent Redirect", "http://elsewhere.invalid/x", ""),
            (Some(store), ["someone", "small-bert", "resolve", revision, _]) if ["main", COMMIT].contains(revision) => {
                match (self.files.get(name), name) {
                    (None, _) => answer(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
                    (Some(bytes), "model.safetensors") => {
                        let linked = format!(
                            "{commit}X-Linked-Size: {}\r\nX-Linked-Etag: \"{}\"\r\n",
                            bytes.len(),
                            self.sha256
                        );
                        to_page("302 Found", &format!("{store}/blobs/{name}"), &linked);
                    }
                    // Small files are the hub's own, at another place of it.
                    (Some(_), _) => {
                        let place = format!("/api/resolve-cache/{MODEL}/{COMMIT}/{name}");
                        to_page("307 Temporary Redirect", &place, &commit);
                    }
                }
            }
            (Some(_), ["api", "resolve-cache", ..]) | (None, ["blobs", ..]) => {
                self.serve_content(stream, name, is_head, &headers)
            }
            // Whether there is such a model is told to nobody who may not know.
            _ if headers.contains_key("authorization") => answer(stream, "404 Not Found", "Content-Length: 0\r\n", b""),
            _ => answer(stream, "401 Unauthorized", "Content-Length: 0\r\n", b""),
        }
    }

    fn serve_content(&mut self, stream: &TcpStream, name: &str, is_head: bool, headers: &BTreeMap<String, String>) {
        let bytes = &self.files[name];
        let range = headers.get("range").filter(|_| !self.gives_no_parts);
        let from: usize = range.map_or(0, |range| {
            let number = range.trim_start_matches("bytes=").trim_end_matches('-');
            number.parse().unwrap()
        });
        let part = &bytes[from..];
        let (status, range) = if from > 0 {
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            ("206 Partial Content", range)
        } else {
            ("200 OK", String::new())
        };
        let headers = format!("{range}Content-Length: {}\r\n", part.len());
        let lost = self.lost_after.take_if(|_| name == "model.safetensors" && !is_head);
        let body = if is_head {
            b""
        } else {
            &part[..lost.unwrap_or(part.len())]
        };
        answer(stream, status, &headers, body);
    }
}

impl Hub {
    /// A hub with the files of a model that transformers saved.
    fn new(family: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("crates/ml/tests/pretrained")
            .join(family);
        let names = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"];
        let file = |name: &str| (name.to_owned(), std::fs::read(folder.join(name)).unwrap());
        let files: BTreeMap<_, _> = names.map(file).into();
        let sha256 = sha256(&files["model.safetensors"]);
        let state = Arc::new(Mutex::new(State {
            files,
            sha256,
            ..State::default()
        }));
        let [hub, store] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [endpoint, elsewhere] = [&hub, &store].map(|l| format!("http://{}", l.local_addr().unwrap()));
        for (listener, leads_to) in [(hub, Some(elsewhere)), (store, None)] {
            let state = state.clone();
            // It ends with the test's process.
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    state.lock().unwrap().serve(&stream.unwrap(), leads_to.as_deref());
                }
            });
        }
        Self { state, endpoint }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn fetch(&self, workspace: &Workspace, more: &[&str]) -> Run {
        workspace.run(&[&["fetch", MODEL, "model", "--endpoint", &self.endpoint], more].concat())
    }

    /// What was asked, and forgets it.
    fn asked(&self) -> Vec<(String, Option<String>, Option<String>)> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

/// Of the bytes, as `sha256sum` tells it.
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

/// The folder of a fetch that has not ended.
fn parts(workspace: &Workspace) -> PathBuf {
    workspace.path(".model.part")
}

#[test]
fn a_model_comes_whole_and_can_be_started_from() {
    let workspace = Workspace::new();
    let hub = Hub::new("distilbert");
    let run = hub.fetch(&workspace, &["--token", "secret"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let place = workspace.path("model").canonicalize().unwrap();
    let told = format!("fetched {MODEL} at {COMMIT} into {}", place.display());
    assert!(run.stderr.contains(&told), "{}", run.stderr);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let fetched = std::fs::read(workspace.path(&format!("model/{name}"))).unwrap();
        assert_eq!(fetched, hub.state.lock().unwrap().files[name], "{name}");
    }
    // A tokenizer.json says all that a vocab.txt does.
    let mut names: Vec<_> = std::fs::read_dir(workspace.path("model"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert!(!parts(&workspace).exists());
    for (line, _, token) in hub.asked() {
        let is_hub = line.contains(MODEL);
        assert_eq!(token.as_deref(), is_hub.then_some("Bearer secret"), "{line}");
        assert!(
            !is_hub || line.contains("/main/config.json") || line.contains(COMMIT),
            "{line}"
        );
    }
    workspace.write(
        "recipe.toml",
        "[data.texts]\nsource = \"text\"\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\nmax_length = 12\n\
         tokenizer = \"model/tokenizer.json\"\n[model.mine]\narchitecture = \"bert\"\npretrained = \"model\"\nclassifier = \"new\"\n\
         [step.teacher]\nkind = \"train\"\ndata = \"texts\"\nmodel = \"mine\"\nepochs = 1\n",
    );
    workspace.build(&[]);
    let again = hub.fetch(&workspace, &[]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("model is there already"), "{}", again.stderr);
}

#[test]
fn what_was_lost_on_the_way_goes_on_where_it_was() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    hub.change(|state| state.lost_after = Some(10_000));
    let run = hub.fetch(&workspace, &[]);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    assert!(run.stderr.contains("goes on where it was"), "{}", run.stderr);
    assert!(!workspace.path("model").exists());
    assert_eq!(
        std::fs::metadata(parts(&workspace).join("model.safetensors"))
            .unwrap()
            .len(),
        10_000
    );
    hub.asked();
    assert_eq!(hub.fetch(&workspace, &[]).code, Some(0));
    let ranges: Vec<String> = hub.asked().into_iter().filter_map(|(_, range, _)| range).collect();
    assert_eq!(ranges, ["bytes=10000-", "bytes=10000-"]);
    let fetched = std::fs::read(workspace.path("model/model.safetensors")).unwrap();
    assert_eq!(fetched, hub.state.lock().unwrap().files["model.safetensors"]);
}

#[test]
fn what_is_there_of_something_else_is_not_gone_on_with() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    let weights = parts(&workspace).join("model.safetensors");
    let whole = |workspace: &Workspace| {
        let run = hub.fetch(workspace, &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let fetched = std::fs::read(workspace.path("model/model.safetensors")).unwrap();
        assert_eq!(fetched, hub.state.lock().unwrap().files["model.safetensors"]);
        std::fs::remove_dir_all(workspace.path("model")).unwrap();
    };
    let begin = |commit: &str, bytes: usize| {
        std::fs::create_dir_all(parts(&workspace)).unwrap();
        std::fs::write(parts(&workspace).join("commit"), commit).unwrap();
        std::fs::write(&weights, vec![7; bytes]).unwrap();
    };
    // Of another commit, and longer than it can be.
    begin("another", 100);
    whole(&workspace);
    begin(COMMIT, 1 << 20);
    whole(&workspace);
    // From a hub that gives files whole.
    hub.change(|state| (state.gives_no_parts, state.lost_after) = (true, Some(10_000)));
    assert_eq!(hub.fetch(&workspace, &[]).code, Some(6));
    whole(&workspace);
    // Other bytes of the right length are seen by their hash, and do not stay.
    hub.change(|state| state.gives_no_parts = false);
    begin(COMMIT, 100);
    let run = hub.fetch(&workspace, &[]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    whole(&workspace);
}

#[test]
fn one_fetch_at_a_time_is_at_a_folder() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    std::fs::create_dir_all(parts(&workspace)).unwrap();
    let lock = std::fs::File::create(parts(&workspace).join("lock")).unwrap();
    lock.lock().unwrap();
    let run = hub.fetch(&workspace, &[]);
    assert!(
        run.code == Some(2) && run.stderr.contains("under way"),
        "{}",
        run.stderr
    );
    drop(lock);
    assert_eq!(hub.fetch(&workspace, &[]).code, Some(0));
}

#[test]
fn what_comes_damaged_is_thrown_away() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    hub.change(|state| state.sha256 = "0".repeat(64));
    let run = hub.fetch(&workspace, &[]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("came damaged: its SHA-256 is"), "{}", run.stderr);
    assert!(!workspace.path("model").exists() && !parts(&workspace).join("model.safetensors").exists());
}

#[test]
fn a_model_that_cannot_be_started_from_is_told_before_its_weights_come() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    hub.change(|state| {
        drop(
            state
                .files
                .insert("config.json".into(), b"{\"model_type\": \"roberta\"}".to_vec()),
        )
    });
    let run = hub.fetch(&workspace, &[]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    let told = format!("{MODEL} cannot be started from: its config.json");
    assert!(
        run.stderr.contains(&told) && run.stderr.contains("\"roberta\""),
        "{}",
        run.stderr
    );
    assert!(!hub.asked().iter().any(|(line, ..)| line.contains("model.safetensors")));
    assert!(!parts(&workspace).exists());

    // A proxy's page in place of a tokenizer, and a configuration of absurd length.
    let hub = Hub::new("bert");
    hub.change(|state| drop(state.files.insert("tokenizer.json".into(), b"<html>".to_vec())));
    let run = hub.fetch(&workspace, &[]);
    assert!(
        run.code == Some(2) && run.stderr.contains("tokenizer.json"),
        "{}",
        run.stderr
    );
    hub.change(|state| drop(state.files.insert("config.json".into(), vec![b' '; 2 << 20])));
    let run = hub.fetch(&workspace, &[]);
    assert!(
        run.code == Some(3) && run.stderr.contains("at most 1048576"),
        "{}",
        run.stderr
    );
    assert!(!workspace.path("model").exists());
}

#[test]
fn what_the_hub_does_not_give_is_told_with_what_to_do() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    hub.change(|state| drop(state.files.remove("model.safetensors")));
    let run = hub.fetch(&workspace, &[]);
    assert!(
        run.code == Some(2) && run.stderr.contains("pytorch_model.bin"),
        "{}",
        run.stderr
    );
    let absent = workspace.run(&["fetch", "someone/else", "other", "--endpoint", &hub.endpoint]);
    assert!(
        absent.code == Some(2) && absent.stderr.contains("the name may be wrong"),
        "{}",
        absent.stderr
    );
    let known = [
        "fetch",
        "someone/else",
        "other",
        "--token",
        "t",
        "--endpoint",
        &hub.endpoint,
    ];
    let absent = workspace.run(&known);
    assert!(
        absent.code == Some(2) && absent.stderr.contains("revision right?"),
        "{}",
        absent.stderr
    );
    let moved = workspace.run(&["fetch", "someone/moved", "other", "--endpoint", &hub.endpoint]);
    assert!(
        moved.code == Some(2) && moved.stderr.contains("elsewhere.invalid"),
        "{}",
        moved.stderr
    );
    for status in [401, 403] {
        hub.change(|state| state.status = Some(status));
        let run = hub.fetch(&workspace, &[]);
        assert!(
            run.code == Some(2) && run.stderr.contains("HF_TOKEN"),
            "{status}: {}",
            run.stderr
        );
    }
    for (name, endpoint) in [
        ("a/b/c", "http://127.0.0.1:1"),
        ("../up", "http://127.0.0.1:1"),
        ("a/b", "ftp://x"),
        ("a/b", "http://example.invalid"),
    ] {
        let run = workspace.run(&["fetch", name, "other", "--token", "t", "--endpoint", endpoint]);
        assert_eq!(run.code, Some(2), "{name}: {}", run.stderr);
    }
    assert!(!workspace.path("model").exists() && !workspace.path("other").exists());
}

#[test]
fn a_busy_hub_is_asked_again_and_a_new_name_followed() {
    let workspace = Workspace::empty();
    let hub = Hub::new("bert");
    hub.change(|state| {
        state.busy = 2;
        state.files.remove("tokenizer.json");
    });
    let run = workspace.run(&["fetch", "someone/old-name", "model", "--endpoint", &hub.endpoint]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let lines: Vec<String> = hub.asked().into_iter().map(|(line, ..)| line).collect();
    assert!(
        lines[..3]
            .iter()
            .all(|line| line.contains("old-name") && line.contains("config.json")),
        "{lines:?}"
    );
    assert!(lines[3].contains(MODEL), "{lines:?}");
    assert!(workspace.path("model/vocab.txt").exists());
}
