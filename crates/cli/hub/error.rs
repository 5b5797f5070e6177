//! What can go wrong with a hub, and what to do about it.

use std::io;
use ureq::http::StatusCode;

/// An answer, or none, that is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// What the command line says cannot be asked.
    #[error("{0}")]
    Address(String),
    /// It may not be read, or there is no such model: hubs do not tell strangers which.
    #[error(
        "{what} is not given out ({status}): the name may be wrong, or the model is private or asks for consent; then set HF_TOKEN to \
         a token that may read it"
    )]
    Refused {
        /// The file.
        what: String,
        /// The answer.
        status: StatusCode,
    },
    /// It is not there.
    #[error("there is no {what}: {advice}")]
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
    /// It cannot be asked, and to try again would not help.
    #[error("{what} cannot be read: {source}")]
    Broken {
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
    Disk(#[source] io::Error),
}

impl HubError {
    /// Whether it may be otherwise in a moment.
    pub(super) fn passes(error: &ureq::Error) -> bool {
        match error {
            ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
            ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            _ => false,
        }
    }

    pub(super) fn of(what: &str, source: ureq::Error) -> Self {
        let what = what.to_owned();
        if Self::passes(&source) {
            let source = Box::new(source);
            return Self::Connection { what, source };
        }
        let source = Box::new(source);
        Self::Broken { what, source }
    }

    pub(super) fn of_status(what: &str, status: StatusCode) -> Self {
        let what = what.to_owned();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused { what, status },
            _ => Self::Status { what, status },
        }
    }
}
