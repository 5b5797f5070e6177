//! Files of a model on a hub that speaks as Hugging Face's does: where a file is, which content it must have, and that content.
//!
//! A token is sent to the hub alone, and not to the store of large files that it leads to. What is read is checked against the
//! size and, for large files, the SHA-256 that the hub tells.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};
use ureq::{Agent, Body};

/// How long a connection, and the first word of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a hub may lead on to another place of its own, as it does for models that were renamed.
const MOST_STEPS: usize = 5;
/// How often a request is made that fails for a while.
const MOST_TRIES: u32 = 4;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 18;

/// What can go wrong with a hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address is none.
    #[error("{0}")]
    Address(String),
    /// It may not be read.
    #[error(
        "{what} may not be read ({status}): it is private or asks for consent; set HF_TOKEN to a token that may read it"
    )]
    Refused {
        /// The file.
        what: String,
        /// The answer.
        status: StatusCode,
    },
    /// It is not there.
    #[error("there is no {what}; {advice}")]
    Absent {
        /// The file.
        what: String,
        /// What to look at.
        advice: String,
    },
    /// The hub answers that something is wrong with it.
    #[error("{what} cannot be read: the hub answers {status}; try again later, and it goes on where it was")]
    Status {
        /// The file.
        what: String,
        /// The answer.
        status: StatusCode,
    },
    /// The hub cannot be reached, or the connection was lost.
    #[error("{what} cannot be read: {source}; run the same command again, and it goes on where it was")]
    Connection {
        /// The file.
        what: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// What came is not what the hub said it would be.
    #[error("{what} came damaged: {detail}; run the same command again")]
    Damaged {
        /// The file.
        what: String,
        /// How it differs.
        detail: String,
    },
    /// What came could not be written.
    #[error("what was fetched cannot be written: {0}")]
    Disk(io::Error),
}

/// A hub.
pub struct Hub {
    endpoint: String,
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
    /// The commit that it is of.
    pub commit: Option<String>,
    /// Its bytes, if the hub tells.
    pub size: Option<u64>,
    sha256: Option<String>,
}

impl Hub {
    /// The hub at `endpoint`.
    ///
    /// # Errors
    /// [`HubError::Address`] if that is no address of the web.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self, HubError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let host = endpoint
            .strip_prefix("https://")
            .or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', '@', ' '])) {
            return Err(HubError::Address(format!(
                "`{endpoint}` is no address of a hub: it is like https://huggingface.co"
            )));
        }
        let configuration = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .timeout_connect(Some(PATIENCE))
                .timeout_recv_response(Some(PATIENCE))
                .user_agent(concat!("orchestrate/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            endpoint,
            token: token.filter(|token| !token.is_empty()),
            asking: configuration().max_redirects(0).build().into(),
            reading: configuration().build().into(),
        })
    }

    /// Finds `file` of `model` at `revision`; nothing if the model, or that revision, has no such file.
    ///
    /// # Errors
    /// [`HubError::Refused`], [`HubError::Status`], [`HubError::Connection`].
    pub fn find(&self, model: &str, revision: &str, file: &str) -> Result<Option<Remote>, HubError> {
        let what = format!("{file} of {model}");
        let mut url = format!("{}/{model}/resolve/{revision}/{file}", self.endpoint);
        for _ in 0..MOST_STEPS {
            let headers = match self.ask(&url, &what)? {
                Some(headers) => headers,
                None => return Ok(None),
            };
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            // What leads to another place of the hub itself is the same file there.
            if let Some(place) =
                text("location").filter(|place| place.starts_with('/') && text("x-linked-etag").is_none())
            {
                url = format!("{}{place}", self.endpoint);
                continue;
            }
            let size = text("x-linked-size").or_else(|| text("content-length"));
            let etag = text("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
            return Ok(Some(Remote {
                what,
                url,
                commit: text("x-repo-commit")
                    .filter(|commit| is_hex(commit, 40))
                    .map(str::to_owned),
                size: size.and_then(|size| size.parse().ok()),
                sha256: etag.filter(|etag| is_hex(etag, 64)),
            }));
        }
        Err(HubError::Address(format!("{what} leads from place to place")))
    }

    /// The headers of `url`, or nothing if it is not there.
    fn ask(&self, url: &str, what: &str) -> Result<Option<HeaderMap>, HubError> {
        let request = || {
            let request = self.asking.head(url).header("Accept-Encoding", "identity");
            self.with_token(request).call()
        };
        let answer = patiently(request).map_err(|source| connection(what, source))?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() || status.is_redirection() => Ok(Some(answer.headers().clone())),
            status => Err(refusal(what, status)),
        }
    }

    fn with_token<Any>(&self, request: ureq::RequestBuilder<Any>) -> ureq::RequestBuilder<Any> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Writes what is missing of `remote` at the end of the file at `path`, and checks the whole; `told` hears of every piece.
    ///
    /// # Errors
    /// As [`Hub::find`]; [`HubError::Disk`]; [`HubError::Damaged`], for which the file is removed.
    pub fn fetch(&self, remote: &Remote, path: &Path, told: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let mut file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(HubError::Disk)?;
        let mut hash = Sha256::new();
        let mut have = io::copy(&mut file, &mut hash).map_err(HubError::Disk)?;
        told(have);
        if remote.size.is_none_or(|size| have < size) {
            have += self.append(remote, have, &mut file, &mut hash, told)?;
        }
        file.sync_all().map_err(HubError::Disk)?;
        let found = format!("{:x}", hash.finalize());
        let detail = if remote.size.is_some_and(|size| size != have) {
            format!("{have} bytes of {}", remote.size.unwrap_or(0))
        } else if remote.sha256.as_ref().is_some_and(|sha256| *sha256 != found) {
            format!("its SHA-256 is {found}")
        } else {
            return Ok(());
        };
        std::fs::remove_file(path).map_err(HubError::Disk)?;
        let what = remote.what.clone();
        Err(HubError::Damaged { what, detail })
    }

    /// Writes the bytes of `remote` from `from` on; gives how many came.
    fn append(
        &self,
        remote: &Remote,
        from: u64,
        file: &mut File,
        hash: &mut Sha256,
        told: &mut dyn FnMut(u64),
    ) -> Result<u64, HubError> {
        let what = remote.what.as_str();
        let request = || {
            let request = self.reading.get(&remote.url).header("Accept-Encoding", "identity");
            let request = self.with_token(request);
            if from == 0 {
                request.call()
            } else {
                request.header("Range", format!("bytes={from}-")).call()
            }
        };
        let answer = patiently(request).map_err(|source| connection(what, source))?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if from > 0 => {}
            StatusCode::OK => {
                // The whole of it, if parts are not given here.
                file.set_len(0).map_err(HubError::Disk)?;
                *hash = Sha256::new();
                return copy(answer.into_body(), what, file, hash, told, 0).map(|came| came.wrapping_sub(from));
            }
            status => return Err(refusal(what, status)),
        }
        copy(answer.into_body(), what, file, hash, told, from)
    }
}

/// Copies a body to its end.
fn copy(
    body: Body,
    what: &str,
    file: &mut File,
    hash: &mut Sha256,
    told: &mut dyn FnMut(u64),
    from: u64,
) -> Result<u64, HubError> {
    let mut reader = body.into_reader();
    let mut piece = vec![0; PIECE];
    let mut came = 0;
    loop {
        let count = reader
            .read(&mut piece)
            .map_err(|error| connection(what, ureq::Error::Io(error)))?;
        if count == 0 {
            return Ok(came);
        }
        hash.update(&piece[..count]);
        file.write_all(&piece[..count]).map_err(HubError::Disk)?;
        came += count as u64;
        told(from + came);
    }
}

/// Makes a request again, after a while, if a hub is busy or the network fails.
fn patiently(
    request: impl Fn() -> Result<ureq::http::Response<Body>, ureq::Error>,
) -> Result<ureq::http::Response<Body>, ureq::Error> {
    let mut tries = 1;
    loop {
        let answer = request();
        let passes = match &answer {
            Ok(answer) => {
                let status = answer.status();
                status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
            }
            Err(_) => true,
        };
        if !passes || tries == MOST_TRIES {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(250) * 2_u32.pow(tries));
        tries += 1;
    }
}

fn connection(what: &str, source: ureq::Error) -> HubError {
    HubError::Connection {
        what: what.to_owned(),
        source: Box::new(source),
    }
}

fn refusal(what: &str, status: StatusCode) -> HubError {
    let what = what.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HubError::Refused { what, status },
        _ => HubError::Status { what, status },
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
