//! A machine whose memory and disk are files.

use serde::{Deserialize, Serialize};

/// A part of a saved machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What the VM wrote over its image.
    Disk,
    /// Its memory and the state of its devices.
    Memory,
}

impl Part {
    pub const ALL: [Self; 2] = [Self::Disk, Self::Memory];

    /// The name of its file and in routes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// A saved machine in the datastore: everything another host needs beside the
/// image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMachine {
    /// The run whose memory it is.
    pub run_epoch: u64,
    /// The hypervisor that saved it: "QEMU 10.0.2".
    pub hypervisor: String,
    pub parts: Vec<SavedPart>,
}

impl SavedMachine {
    /// Of all its parts together.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.parts.iter().map(|part| part.size_bytes);
        sizes.fold(0, u64::saturating_add)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPart {
    pub part: Part,
    pub size_bytes: u64,
    /// Hexadecimal SHA-256.
    pub sha256: String,
}
