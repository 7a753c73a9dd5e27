//! Places that hold images, saved machines and backups.

use std::fmt;
use std::path::{Component, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{DatastoreName, InvalidName};

/// The datastore that every installation has, in the server's own directory.
pub const MAIN: &str = "main";

/// A datastore's name and place, as an operator says them: `fast=/srv/fast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreDir {
    pub name: DatastoreName,
    pub path: PathBuf,
}

/// Why a text says no such thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatastoreDir {
    #[error("expected NAME=DIR, such as fast=/srv/fast")]
    Form,
    #[error("`{name}`: {error}")]
    Name { name: String, error: InvalidName },
    // It would depend on where the program was started.
    #[error("expected a path from / on, without `..`")]
    Path,
}

impl FromStr for DatastoreDir {
    type Err = InvalidDatastoreDir;

    fn from_str(text: &str) -> Result<Self, InvalidDatastoreDir> {
        let (name, path) = text.split_once('=').ok_or(InvalidDatastoreDir::Form)?;
        let name = DatastoreName::new(name).map_err(|error| InvalidDatastoreDir::Name {
            name: name.to_owned(),
            error,
        })?;
        let path = PathBuf::from(path);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(InvalidDatastoreDir::Path);
        }
        Ok(Self { name, path })
    }
}

/// How a datastore is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DatastoreState {
    Fine,
    /// Less than a tenth is left above its reserve.
    Low,
    /// What it keeps in reserve is all that is left: it takes nothing more.
    Full,
    /// It cannot be reached.
    Away,
}

impl DatastoreState {
    /// From the room there is; the reserve is not to be used.
    #[must_use]
    pub const fn of(capacity_bytes: u64, free_bytes: u64, reserve_bytes: u64) -> Self {
        let left = free_bytes.saturating_sub(reserve_bytes);
        if left == 0 {
            Self::Full
        } else if left < capacity_bytes / 10 {
            Self::Low
        } else {
            Self::Fine
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "Fine",
            Self::Low => "Low",
            Self::Full => "Full",
            Self::Away => "Away",
        }
    }

    /// One sentence for a person who meets the state for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Fine => "there is room",
            Self::Low => "less than a tenth is left",
            Self::Full => "it takes nothing more until something is removed",
            Self::Away => "it cannot be reached",
        }
    }
}

impl fmt::Display for DatastoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatastoreView {
    pub name: DatastoreName,
    pub state: DatastoreState,
    /// Backups go there.
    pub takes_backups: bool,
    /// What it holds of the tenant that asks, in bytes.
    pub used: StorageUse,
    /// For the provider's staff alone.
    pub room: Option<DatastoreRoom>,
}

/// What a datastore holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StorageUse {
    pub image_bytes: u64,
    /// Of stopped VMs.
    pub saved_bytes: u64,
    pub backup_bytes: u64,
}

impl StorageUse {
    #[must_use]
    pub const fn total_bytes(self) -> u64 {
        self.image_bytes
            .saturating_add(self.saved_bytes)
            .saturating_add(self.backup_bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatastoreRoom {
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    /// Kept free: nothing is taken in that would go below it.
    pub reserve_bytes: u64,
    /// What it holds of each tenant; of none is what all may use.
    pub tenants: Vec<TenantUse>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TenantUse {
    pub tenant: Option<crate::name::TenantName>,
    pub used: StorageUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datastore_is_full_when_only_its_reserve_is_left() {
        assert_eq!(DatastoreState::of(100, 50, 10), DatastoreState::Fine);
        assert_eq!(DatastoreState::of(100, 19, 10), DatastoreState::Low);
        assert_eq!(DatastoreState::of(100, 10, 10), DatastoreState::Full);
        assert_eq!(DatastoreState::of(100, 0, 0), DatastoreState::Full);
    }
}
