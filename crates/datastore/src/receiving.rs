//! A file on its way into a datastore.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::dir::{Reserve, blocking};
use crate::turn::Turn;

/// After so many bytes the room is looked at again.
const LOOK_EVERY: u64 = 64 << 20;

/// A file on its way into a datastore. Dropped unfinished, it leaves what has
/// come of it for who resumes it; the next that begins it anew overwrites that,
/// and a discard removes it.
#[derive(Debug)]
pub struct Receiving {
    staged: Arc<Staged>,
    place: Place,
    reserve: Reserve,
    size_bytes: u64,
    looked_at: u64,
    hash: Sha256,
}

/// The file that is written. Writes under way hold it, so that nobody else has
/// it before they are through.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    turn: Turn,
}

/// Where a file goes once it is whole.
#[derive(Debug)]
pub struct Place {
    /// The datastore's; it is there.
    pub root: PathBuf,
    pub dir: PathBuf,
    pub name: String,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size_bytes: u64,
    /// Hexadecimal SHA-256.
    pub sha256: String,
}

impl Receiving {
    /// Goes on in `file` at `path` after what `hash` is of.
    pub(crate) fn after(
        (file, path, turn): (File, PathBuf, Turn),
        (hash, size_bytes): (Sha256, u64),
        place: Place,
        reserve: Reserve,
    ) -> Self {
        Self {
            staged: Arc::new(Staged { file, path, turn }),
            place,
            reserve,
            size_bytes,
            looked_at: size_bytes,
            hash,
        }
    }

    /// # Errors
    /// The file system's; [`io::ErrorKind::StorageFull`] where the reserve
    /// would be touched, [`io::ErrorKind::ResourceBusy`] where a later one took
    /// the file over.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.staged.turn.still()?;
        if self.size_bytes.saturating_sub(self.looked_at) >= LOOK_EVERY {
            self.reserve.look().await?;
            self.looked_at = self.size_bytes;
        }
        self.hash.update(bytes);
        let (staged, chunk, at) = (Arc::clone(&self.staged), bytes.to_vec(), self.size_bytes);
        blocking(move || staged.file.write_all_at(&chunk, at)).await?;
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size_bytes = self.size_bytes.saturating_add(more);
        Ok(())
    }

    /// Bytes of the file that are here, with those of earlier tries.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Ends when a later one takes the file over, or it is discarded.
    #[must_use]
    pub fn overtaken(&self) -> CancellationToken {
        self.staged.turn.over().clone()
    }

    /// Makes the file durable under its name, and says what was stored.
    ///
    /// # Errors
    /// The file system's; [`io::ErrorKind::ResourceBusy`] as of
    /// [`Receiving::write`].
    pub async fn finish(self) -> io::Result<Stored> {
        let (staged, place) = (self.staged, self.place);
        blocking(move || {
            staged.file.sync_all()?;
            staged.turn.still()?;
            place.take(&staged.path)
        })
        .await?;
        Ok(Stored {
            size_bytes: self.size_bytes,
            sha256: format!("{:x}", self.hash.finalize()),
        })
    }
}

impl Place {
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Moves a file here that is durable. Blocks.
    fn take(&self, from: &Path) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        std::fs::rename(from, self.path())?;
        // The directories may be new as well.
        let dirs = self.dir.ancestors();
        for dir in dirs.take_while(|dir| dir.starts_with(&self.root)) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}
