//! What can go wrong on a host.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

/// The kind decides what the engine does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A newer Incarnation is known; the call is out of date.
    Superseded,
    /// The host does not hold such an Incarnation.
    NoSuchVm,
    /// No disk space left.
    NoSpace,
    /// The hypervisor refused or broke.
    Hypervisor,
    /// The image is not what was promised: size, checksum or format.
    BadImage,
    /// A later call for the same VM overtook this one.
    Cancelled,
    /// A part that is needed is away now and may come back: the server, the
    /// datastore.
    Unavailable,
    /// This hypervisor, or this agent, cannot do that.
    Unsupported,
    /// Anything else on this host.
    Host,
}

impl FaultKind {
    /// Whether trying the same again may well succeed.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        match self {
            Self::Unavailable | Self::Host => true,
            Self::Superseded
            | Self::NoSuchVm
            | Self::NoSpace
            | Self::Hypervisor
            | Self::BadImage
            | Self::Cancelled
            | Self::Unsupported => false,
        }
    }
}

/// A fault with a message for people: lower case, no period, no path, no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// An I/O fault while doing `what` ("writing the disk"), told apart into
    /// a full disk and everything else.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
        if full.contains(&error.kind()) {
            return Self::new(
                FaultKind::NoSpace,
                format!("{what}: the host's disk is full"),
            );
        }
        Self::new(FaultKind::Host, format!("{what}: {error}"))
    }
}
