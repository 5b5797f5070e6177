//! Files of a model on a hub that speaks as Hugging Face's does: where a file is, what the hub says of it, and its content.
//!
//! A token is sent to the hub alone, and not to the store of large files that it leads to. What is read is held against the
//! size and, for large files, the SHA-256 that the hub tells; nothing is read beyond that size.

mod error;

pub use error::HubError;

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

/// How long a connection, the first word of an answer, and every further piece may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a hub may lead on to another place of its own, as it does for models that were renamed.
const MOST_STEPS: usize = 5;
/// How often a request is made that fails for a while.
const MOST_TRIES: u32 = 4;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 18;

/// A hub.
pub struct Hub {
    /// What addresses begin with.
    endpoint: String,
    /// The endpoint without its path.
    origin: String,
    token: Option<String>,
    /// Does not follow redirections, so that what the hub says of a large file is seen.
    asking: Agent,
    reading: Agent,
}

/// A file on a hub.
#[derive(Debug, Clone)]
pub struct Remote {
    /// For messages.
    what: String,
    url: String,
    /// The commit that it is of, if the hub tells.
    pub commit: Option<String>,
    /// Its bytes, if the hub tells.
    pub size: Option<u64>,
    sha256: Option<String>,
}

impl Hub {
    /// The hub at `endpoint`.
    ///
    /// # Errors
    /// [`HubError::Address`] if that is no address of the web, or the token would be sent for everyone to read.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self, HubError> {
        let refuse = |why: String| Err(HubError::Address(why));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let parts = endpoint
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "https" | "http"));
        let Some((scheme, rest)) = parts.filter(|(_, rest)| !rest.contains(['@', ' ', '?', '#'])) else {
            return refuse(format!(
                "`{endpoint}` is no address of a hub: it is like https://huggingface.co"
            ));
        };
        let host = rest.split('/').next().unwrap_or(rest);
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return refuse("the token has characters that no token has".to_owned());
        }
        let is_here = ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            let port = host.strip_prefix(name);
            port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
        });
        if token.is_some() && scheme == "http" && !is_here {
            return refuse(format!(
                "the token would go to `{endpoint}` for everyone on the way to read: use https"
            ));
        }
        let configuration = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .https_only(scheme == "https")
                .timeout_resolve(Some(PATIENCE))
                .timeout_connect(Some(PATIENCE))
                .timeout_recv_response(Some(PATIENCE))
                .timeout_per_read(Some(PATIENCE))
                .user_agent(concat!("orchestrate/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            origin: format!("{scheme}://{host}"),
            token: token.map(str::to_owned),
            asking: configuration().max_redirects(0).build().into(),
            reading: configuration().build().into(),
            endpoint,
        })
    }

    /// Finds `file` of `model` at `revision`; nothing if the model, or that revision, has no such file.
    ///
    /// # Errors
    /// [`HubError::Refused`], [`HubError::Status`], [`HubError::Connection`], [`HubError::Broken`], and [`HubError::Address`] if
    /// another host has taken over.
    pub fn find(&self, model: &str, revision: &str, file: &str) -> Result<Option<Remote>, HubError> {
        let mut found = Remote {
            what: format!("{file} of {model} at {revision}"),
            url: format!("{}/{model}/resolve/{revision}/{file}", self.endpoint),
            commit: None,
            size: None,
            sha256: None,
        };
        for _ in 0..MOST_STEPS {
            let Some((status, headers)) = self.ask(&found)? else {
                return Ok(None);
            };
            found.hear(&headers);
            if !status.is_redirection() {
                let size = header(&headers, "content-length").and_then(|size| size.parse().ok());
                found.size = found.size.or(size);
                return Ok(Some(found));
            }
            // A redirection's own length is that of its page, and says nothing of the file.
            let place = header(&headers, "location").unwrap_or_default();
            if place.starts_with('/') && !place.starts_with("//") {
                found.url = format!("{}{place}", self.origin);
            } else if place
                .strip_prefix(&self.origin)
                .is_some_and(|rest| rest.starts_with('/'))
            {
                found.url = place.to_owned();
            } else if found.size.is_some() || found.sha256.is_some() {
                // To its store.
                return Ok(Some(found));
            } else {
                let endpoint = &self.endpoint;
                return Err(HubError::Address(format!(
                    "{endpoint} leads to {place}: if that is the hub, name it with --endpoint"
                )));
            }
        }
        Err(HubError::Address(format!("{} leads from place to place", found.what)))
    }

    /// The status and headers of a file, or nothing if it is not there.
    fn ask(&self, remote: &Remote) -> Result<Option<(StatusCode, HeaderMap)>, HubError> {
        let request = || {
            let request = self.asking.head(&remote.url).header("Accept-Encoding", "identity");
            self.with_token(request).call()
        };
        let answer = patiently(request).map_err(|source| HubError::of(&remote.what, source))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() || status.is_redirection() => Ok(Some((status, answer.headers().clone()))),
            status => Err(HubError::of_status(&remote.what, status)),
        }
    }

    fn with_token<Any>(&self, request: ureq::RequestBuilder<Any>) -> ureq::RequestBuilder<Any> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Makes the file at `path` what `remote` is, going on behind what is there of it, with at most `most` bytes; `told` hears how
    /// many there are.
    ///
    /// # Errors
    /// As [`Hub::find`]; [`HubError::Disk`]; [`HubError::Damaged`], for which the file is removed.
    pub fn fetch(&self, remote: &Remote, path: &Path, most: u64, told: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let damaged = |detail: String| {
            // What is removed is worth nothing, and the error that there is says more.
            let _ = std::fs::remove_file(path);
            Err(HubError::Damaged {
                what: remote.what.clone(),
                detail,
            })
        };
        if remote.size.is_some_and(|size| size > most) {
            return damaged(format!(
                "the hub has {} bytes, and at most {most} can be meant",
                remote.size.unwrap_or(0)
            ));
        }
        let mut content = Content::open(path, remote.size.unwrap_or(most), told).map_err(HubError::Disk)?;
        // Where the hub does not say how much there is, nothing says that what is there is a part of it.
        if remote.size.is_none() {
            content.empty().map_err(HubError::Disk)?;
        }
        if remote.size != Some(content.bytes) {
            self.append(remote, &mut content)?;
        }
        content.file.sync_all().map_err(HubError::Disk)?;
        let found = format!("{:x}", content.hash.finalize());
        if content.is_over {
            return damaged(format!("it has more than {} bytes", content.most));
        }
        if remote.sha256.as_ref().is_some_and(|sha256| *sha256 != found) {
            return damaged(format!("its SHA-256 is {found}"));
        }
        Ok(())
    }

    /// Adds what is missing of `remote`.
    fn append(&self, remote: &Remote, content: &mut Content) -> Result<(), HubError> {
        let what = remote.what.as_str();
        let ask = |from: u64| {
            let request = || {
                let request = self.reading.get(&remote.url).header("Accept-Encoding", "identity");
                let request = self.with_token(request);
                if from == 0 {
                    request.call()
                } else {
                    request.header("Range", format!("bytes={from}-")).call()
                }
            };
            patiently(request).map_err(|source| HubError::of(what, source))
        };
        let mut answer = ask(content.bytes)?;
        let begins = |answer: &Response<Body>, from: u64| {
            let range = header(answer.headers(), "content-range");
            range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
        };
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT && begins(&answer, content.bytes);
        if content.bytes > 0 && !goes_on {
            // Parts are not given here, or not this one.
            content.empty().map_err(HubError::Disk)?;
            if answer.status() != StatusCode::OK {
                answer = ask(0)?;
            }
        }
        if !answer.status().is_success() {
            return Err(HubError::of_status(what, answer.status()));
        }
        content.take(answer.into_body(), what)?;
        if remote.size.is_some_and(|size| content.bytes < size) {
            let source = ureq::Error::Io(io::ErrorKind::UnexpectedEof.into());
            return Err(HubError::of(what, source));
        }
        Ok(())
    }
}

impl Remote {
    /// Takes over what headers say of the file; what was said first counts.
    fn hear(&mut self, headers: &HeaderMap) {
        let commit = header(headers, "x-repo-commit").filter(|commit| is_hex(commit, 40));
        let etag = header(headers, "x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let size = header(headers, "x-linked-size").and_then(|size| size.parse().ok());
        self.commit = self.commit.take().or(commit.map(str::to_owned));
        self.size = self.size.or(size);
        self.sha256 = self
            .sha256
            .take()
            .or(etag.filter(|etag| is_hex(etag, 64)).map(str::to_owned));
    }
}

/// A file that is being fetched.
struct Content<'a> {
    file: File,
    hash: Sha256,
    bytes: u64,
    most: u64,
    /// Whether there was more than that.
    is_over: bool,
    told: &'a mut dyn FnMut(u64),
}

impl<'a> Content<'a> {
    /// What is at `path`, of which no more than `most` bytes can be meant.
    fn open(path: &Path, most: u64, told: &'a mut dyn FnMut(u64)) -> io::Result<Self> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash)?;
        let mut content = Self {
            file,
            hash,
            bytes,
            most,
            is_over: false,
            told,
        };
        if bytes > most {
            content.empty()?;
        }
        (content.told)(content.bytes);
        Ok(content)
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    /// Adds a body, up to the piece with which there would be more than there can be.
    fn take(&mut self, body: Body, what: &str) -> Result<(), HubError> {
        let mut reader = body.into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let count = reader
                .read(&mut piece)
                .map_err(|error| HubError::of(what, ureq::Error::Io(error)))?;
            if count == 0 {
                return Ok(());
            }
            if self.bytes + count as u64 > self.most {
                self.is_over = true;
                return Ok(());
            }
            self.hash.update(&piece[..count]);
            self.file.write_all(&piece[..count]).map_err(HubError::Disk)?;
            self.bytes += count as u64;
            (self.told)(self.bytes);
        }
    }
}

/// Makes a request again, after a while, if a hub is busy or the network fails.
fn patiently(request: impl Fn() -> Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ureq::Error> {
    let mut tries = 1;
    loop {
        let answer = request();
        let passes = match &answer {
            Ok(answer) => {
                let status = answer.status();
                status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
            }
            Err(error) => HubError::passes(error),
        };
        if !passes || tries == MOST_TRIES {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(250) * 2_u32.pow(tries));
        tries += 1;
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
