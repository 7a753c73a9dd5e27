//! What can go wrong on a host.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use crate::text;

/// The kind decides what the engine does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A newer Incarnation is known; the call is out of date.
    Superseded,
    /// The host does not hold such an Incarnation.
    NoSuchVm,
    /// The host does not hold such a volume.
    NoSuchVolume,
    /// The machine has no such snapshot.
    NoSuchSnapshot,
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
    /// What it needs is in another use: a volume is attached, a machine runs.
    Conflict,
    /// This hypervisor, or this agent, cannot do that.
    Unsupported,
    /// Anything else on this host, also what a later version has a word for.
    #[serde(other)]
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
            | Self::NoSuchVolume
            | Self::NoSuchSnapshot
            | Self::NoSpace
            | Self::Hypervisor
            | Self::BadImage
            | Self::Cancelled
            | Self::Conflict
            | Self::Unsupported => false,
        }
    }
}

/// A fault with a message for people: lower case, no period, no path, no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    #[serde(deserialize_with = "text::deserialize")]
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_without_a_word_here_is_one_of_the_host() {
        let later = json!({ "kind": "too_hot", "message": "95 °C\n", "sensor": 3 });
        let read: Fault = serde_json::from_value(later).unwrap();
        assert_eq!(read, Fault::new(FaultKind::Host, "95 °C "));
        let known = serde_json::to_value(FaultKind::Host).unwrap();
        assert_eq!(known, "host");
    }
}
