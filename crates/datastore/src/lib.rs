//! The seam between the manager and a place where bytes are kept.
//!
//! A datastore holds items: a saved machine, a backup. An item is a few files,
//! each of which is received whole or not at all. Names of users never get
//! here; ids and numbers do. Every call is idempotent.

#[cfg(feature = "conformance")]
pub mod conformance;
mod dir;
mod receiving;
mod staging;
mod turn;

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

/// What is here of a file that is to be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub size_bytes: u64,
    /// Of these bytes: hexadecimal SHA-256.
    pub sha256: String,
    /// It was received as a whole, and there is no later try.
    pub is_whole: bool,
}

impl Received {
    #[must_use]
    pub fn nothing() -> Self {
        use sha2::{Digest as _, Sha256};
        Self {
            size_bytes: 0,
            sha256: format!("{:x}", Sha256::digest([])),
            is_whole: false,
        }
    }
}

/// Why a file cannot be gone on with.
#[derive(Debug)]
pub enum ResumeError {
    /// So many bytes are here, not as many as was said.
    Elsewhere {
        at: u64,
    },
    Io(io::Error),
}

impl From<io::Error> for ResumeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Keeps items.
#[async_trait]
pub trait DatastoreDriver: Send + Sync + 'static {
    /// Removes all that is kept of an item, and what is staged of it; fine if
    /// there is nothing.
    async fn discard(&self, item: Item) -> io::Result<()>;

    /// The items of which something is kept, in order.
    async fn holds(&self) -> io::Result<Vec<Item>>;

    async fn contents(&self) -> io::Result<Contents>;

    async fn room(&self) -> io::Result<Room>;

    /// Begins a file anew; what an earlier try left is overwritten, and what
    /// was received as a whole stays until the new one is. An earlier try that is
    /// still at it ends. What came of earlier runs of a machine goes.
    /// [`io::ErrorKind::StorageFull`] where only the reserve is left,
    /// [`io::ErrorKind::ResourceBusy`] where a later try took over.
    ///
    /// A place whose bytes hosts carry by another way has none here.
    async fn receive(&self, _file: ItemFile) -> io::Result<Receiving> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What is here of a file, read once more. An earlier try that is still at
    /// it ends, so that this stays true.
    async fn received(&self, _file: ItemFile) -> io::Result<Received> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As [`DatastoreDriver::receive`], after the first `offset` bytes, which
    /// are here.
    async fn resume(&self, _file: ItemFile, _offset: u64) -> Result<Receiving, ResumeError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }

    /// The items of which a file was received in part, in order; that alone
    /// does not count as held.
    async fn staged(&self) -> io::Result<Vec<Item>> {
        Ok(Vec::new())
    }

    /// Removes what was received in part of an item, and ends who is at it.
    async fn discard_staged(&self, _item: Item) -> io::Result<()> {
        Ok(())
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
