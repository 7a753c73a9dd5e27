//! Why there is no image.

use std::io;

use vimana_fetch::FetchError;
use vimana_format::{Content, Refusal};

use crate::LocalError;

/// A verb phrase about the source or the image, for people.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error("broke off {times} times without bringing anything: {last}")]
    Fruitless { times: u32, last: String },
    #[error("has another {kind} than was said: {found}")]
    Checksum { kind: &'static str, found: String },
    #[error("is {found}, not {declared} as was said")]
    Mismatch {
        declared: &'static str,
        found: &'static str,
    },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("is {0}, which is not accepted here")]
    NotAccepted(&'static str),
    #[error("is larger than the {0} bytes that are allowed")]
    TooLarge(u64),
    #[error("has a disk of {is} bytes, more than the {allowed} that are allowed")]
    DiskTooLarge { is: u64, allowed: u64 },
    #[error("unpacks to far more than it could honestly hold")]
    Bomb,
    #[error("cannot be unpacked: {0}")]
    Packed(String),
    #[error("cannot be converted: {0}")]
    Converted(String),
    #[error("cannot be stored: {0}")]
    Io(#[from] io::Error),
    #[error("changed again and again while it was fetched")]
    Changed,
    /// Nobody waits for it any more.
    #[error("is no longer wanted")]
    Deserted,
    #[error("cannot be imported because of a defect here")]
    Defect,
}

impl From<vimana_format::Error> for ImportError {
    fn from(error: vimana_format::Error) -> Self {
        match error {
            vimana_format::Error::Refused(refusal) => Self::Refused(refusal),
            vimana_format::Error::Io(error) => Self::Io(error),
        }
    }
}

impl ImportError {
    pub(crate) fn panicked(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "the taking in of an image ended by itself");
        Self::Defect
    }

    pub(crate) fn mismatch(declared: Content, found: Content) -> Self {
        Self::Mismatch {
            declared: declared.name(),
            found: found.name(),
        }
    }
}
