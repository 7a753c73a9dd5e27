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
    /// Anything else on this host.
    Host,
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
