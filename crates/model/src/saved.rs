//! A machine whose memory and disks are files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::VolumeId;
use crate::id::InvalidId;

/// A part of a saved machine. As text, in routes and as a file's name, `disk`,
/// `memory`, or the volume's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// What the VM wrote over its image.
    Disk,
    /// Its memory and the state of its devices.
    Memory,
    /// One of its volumes.
    Volume(VolumeId),
}

const DISK: &str = "disk";
const MEMORY: &str = "memory";

impl Part {
    /// Those that every saved machine has.
    pub const OWN: [Self; 2] = [Self::Disk, Self::Memory];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str(DISK),
            Self::Memory => f.write_str(MEMORY),
            Self::Volume(id) => id.fmt(f),
        }
    }
}

impl FromStr for Part {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            DISK => Ok(Self::Disk),
            MEMORY => Ok(Self::Memory),
            id => id.parse().map(Self::Volume),
        }
    }
}

impl TryFrom<String> for Part {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
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

    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.parts.iter().any(|saved| saved.part == part)
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
