//! Amounts with their unit in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Mebibytes (2^20 bytes).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct MiB(pub u64);

impl MiB {
    /// The amount in bytes; `None` where it does not fit 64 bits.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        self.0.checked_mul(1 << 20)
    }

    /// Whole mebibytes in `bytes`, rounded down.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes >> 20)
    }
}

/// For people: `512 MiB`, `2 GiB`, `1.5 GiB`.
impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1024 => return write!(f, "{} MiB", self.0),
            1024..1_048_576 => (1024, "GiB"),
            _ => (1_048_576, "TiB"),
        };
        let tenths = u128::from(self.0) * 10 / unit;
        match tenths % 10 {
            0 => write!(f, "{} {name}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

/// What a VM takes of a host, and what a host has to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Resources {
    pub vcpus: u32,
    pub memory_mib: MiB,
    pub disk_mib: MiB,
}

impl Resources {
    /// Component-wise difference, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: MiB(self.memory_mib.0.saturating_sub(other.memory_mib.0)),
            disk_mib: MiB(self.disk_mib.0.saturating_sub(other.disk_mib.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_read_well() {
        let shown: Vec<String> = [0, 128, 1024, 1536, 2048, 1_048_576]
            .map(|n| MiB(n).to_string())
            .into();
        assert_eq!(
            shown,
            ["0 MiB", "128 MiB", "1 GiB", "1.5 GiB", "2 GiB", "1 TiB"]
        );
    }

    #[test]
    fn bytes_that_do_not_fit_are_none() {
        assert_eq!(MiB(u64::MAX).bytes(), None);
        assert_eq!(MiB(2).bytes(), Some(2_097_152));
    }
}
