//! One server per SQLite file: a second would not see what the first keeps in
//! memory. PostgreSQL's servers know of each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::limits::{LOCK_PAUSE, MAX_LOCK_TRIES};
use crate::{Result, StoreError};

/// Held on a file beside the database's, which stays there when it is let go:
/// another could hold the one that was removed. The kernel lets go for a
/// process that dies.
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits a moment for one who is about to leave.
    pub async fn take(database: &Path) -> Result<Self> {
        // By its real name: who comes by way of a link locks the same.
        let database = database
            .canonicalize()
            .map_err(|error| io(database, error))?;
        let mut path = database.clone().into_os_string();
        path.push(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| io(Path::new(&path), error))?;
        for _ in 0..MAX_LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(io(Path::new(&path), error)),
            }
        }
        Err(StoreError::InUse {
            file: database.display().to_string(),
        })
    }
}

fn io(path: &Path, error: std::io::Error) -> StoreError {
    let told = std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    StoreError::Database(told.into())
}
