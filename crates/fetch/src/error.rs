//! Why a file is not to be had.

use std::net::IpAddr;

/// A verb phrase about the source, for people.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    #[error("is at {0}, an address that may not be fetched from")]
    Forbidden(IpAddr),
    #[error("leads on to `{to}`: {why}")]
    Redirect { to: String, why: String },
    #[error("is not there")]
    NotFound,
    #[error("may not be read: {0}")]
    Denied(String),
    /// It will be the same the next time.
    #[error("cannot be fetched: {0}")]
    Broken(String),
    /// It may be over the next time.
    #[error("cannot be fetched right now: {0}")]
    Away(String),
}

impl FetchError {
    /// Whether it may be over when it is tried again.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    pub(crate) fn silent() -> Self {
        Self::Away("its server does not answer".to_owned())
    }
}
