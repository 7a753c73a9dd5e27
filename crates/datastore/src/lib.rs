//! The seam between the manager and a place where bytes are kept.
//!
//! A datastore holds items: a saved machine, a backup. An item is a few files,
//! each of which is received whole or not at all. Names of users never get
//! here; ids and numbers do. Every call is idempotent.

#[cfg(feature = "conformance")]
pub mod conformance;
mod dir;
mod receiving;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use tokio::fs::File;
use vimana_model::backup::DiskId;
use vimana_model::saved::Part;
use vimana_model::{BackupId, VmId};

pub use dir::DirDatastore;
pub use receiving::{Receiving, Stored};

/// Something that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Memory and disk of a stopped VM, of each run a copy.
    Saved(VmId),
    Backup(BackupId),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved(id) => id.fmt(f),
            Self::Backup(id) => id.fmt(f),
        }
    }
}

/// A name that is no item's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoItem;

impl FromStr for Item {
    type Err = NoItem;

    fn from_str(text: &str) -> Result<Self, NoItem> {
        let saved = text.parse().map(Self::Saved).ok();
        saved
            .or_else(|| text.parse().map(Self::Backup).ok())
            .ok_or(NoItem)
    }
}

/// A file of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemFile {
    Saved {
        vm: VmId,
        run_epoch: u64,
        part: Part,
    },
    Backup {
        backup: BackupId,
        disk: DiskId,
    },
}

impl ItemFile {
    #[must_use]
    pub const fn item(self) -> Item {
        match self {
            Self::Saved { vm, .. } => Item::Saved(vm),
            Self::Backup { backup, .. } => Item::Backup(backup),
        }
    }
}

/// What is kept of one VM: of each run the parts, and their sizes in bytes.
pub type Copies = BTreeMap<u64, BTreeMap<Part, u64>>;

/// What is kept of one backup: its disks' files, and their sizes in bytes.
pub type Disks = BTreeMap<DiskId, u64>;

/// Everything that is kept; of files only what was received as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub saved: BTreeMap<VmId, Copies>,
    pub backups: BTreeMap<BackupId, Disks>,
}

/// How much fits, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub capacity: u64,
    pub free: u64,
    /// Kept free: nothing is received that would go below it.
    pub reserve: u64,
}

/// Keeps items.
#[async_trait]
pub trait DatastoreDriver: Send + Sync + 'static {
    /// Removes all that is kept of an item; fine if there is nothing.
    async fn discard(&self, item: Item) -> io::Result<()>;

    /// The items of which something is kept, in order.
    async fn holds(&self) -> io::Result<Vec<Item>>;

    async fn contents(&self) -> io::Result<Contents>;

    async fn room(&self) -> io::Result<Room>;

    /// Begins a file anew; what an earlier try left is overwritten, and what
    /// was received as a whole stays until the new one is.
    /// [`io::ErrorKind::StorageFull`] where only the reserve is left.
    ///
    /// A place whose bytes hosts carry by another way has none here.
    async fn receive(&self, _file: ItemFile) -> io::Result<Receiving> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A file that was received, and its size.
    async fn open(&self, _file: ItemFile) -> io::Result<(File, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where a program of this machine can read a file that was received.
    fn path(&self, _file: ItemFile) -> Option<PathBuf> {
        None
    }
}
