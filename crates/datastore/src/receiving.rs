//! A file on its way into a datastore.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;

use crate::dir::{Reserve, sync_dir};

/// After so many bytes the room is looked at again.
const LOOK_EVERY: u64 = 64 << 20;

/// A file on its way into a datastore. Dropped unfinished, it leaves one that
/// the next try overwrites and a discard removes.
#[derive(Debug)]
pub struct Receiving {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    dir: PathBuf,
    reserve: Reserve,
    size_bytes: u64,
    looked_at: u64,
    hash: Sha256,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size_bytes: u64,
    /// Hexadecimal SHA-256.
    pub sha256: String,
}

impl Receiving {
    /// As `name` in `dir`, once it is whole.
    pub(crate) async fn begin(dir: &Path, name: &str, reserve: Reserve) -> io::Result<Self> {
        fs::create_dir_all(dir).await?;
        reserve.look().await?;
        let unfinished = dir.join(format!("{name}.part"));
        Ok(Self {
            file: File::create(&unfinished).await?,
            unfinished,
            path: dir.join(name),
            dir: dir.to_owned(),
            reserve,
            size_bytes: 0,
            looked_at: 0,
            hash: Sha256::new(),
        })
    }

    /// # Errors
    /// The file system's; [`io::ErrorKind::StorageFull`] where the reserve
    /// would be touched.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size_bytes.saturating_sub(self.looked_at) >= LOOK_EVERY {
            self.reserve.look().await?;
            self.looked_at = self.size_bytes;
        }
        self.hash.update(bytes);
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size_bytes = self.size_bytes.saturating_add(more);
        self.file.write_all(bytes).await
    }

    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes the file durable under its name, and says what was stored.
    ///
    /// # Errors
    /// The file system's.
    pub async fn finish(mut self) -> io::Result<Stored> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        fs::rename(&self.unfinished, &self.path).await?;
        sync_dir(&self.dir).await?;
        Ok(Stored {
            size_bytes: self.size_bytes,
            sha256: format!("{:x}", self.hash.finalize()),
        })
    }
}
