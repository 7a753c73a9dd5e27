//! The agent's directory: one agent at a time, one identity for ever.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vimana_model::HostId;

use crate::limits::LOCK_POLL;

/// Why a directory cannot serve an agent.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("another agent uses the data directory `{0}`")]
    InUse(PathBuf),
    #[error("cannot use `{path}` in the data directory: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("`{path}` does not hold a host's identity: {error}")]
    BadIdentity {
        path: PathBuf,
        error: serde_json::Error,
    },
}

/// `host.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    host_id: HostId,
}

/// An agent's own directory, locked as long as this value lives.
///
/// `host.json` names the host, `certificate.json` proves it, `ledger` is what
/// it was commanded, `images/` the image cache, `saved/` holds machines on
/// their way from the datastore; the rest belongs to the driver.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    host_id: HostId,
    /// Closed on exec, so that no machine inherits the lock.
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, locks it, and gives the host
    /// its id at the first time.
    ///
    /// # Errors
    /// Where another agent holds it, or it cannot be read or written.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        make_dir(root)?;
        let root = root.canonicalize().map_err(|error| io_error(root, error))?;
        let lock = lock(&root)?;
        let host_id = identity(&root)?;
        make_dir(&root.join("images"))?;
        make_dir(&root.join("saved"))?;
        Ok(Self {
            root,
            host_id,
            _lock: lock,
        })
    }

    /// As [`DataDir::open`], and waits where it is in use: a machine that a killed
    /// agent was just starting holds the lock until it has become QEMU. Blocks.
    ///
    /// # Errors
    /// As [`DataDir::open`]; in use for as long as `patience`.
    pub fn open_after_another(root: &Path, patience: Duration) -> Result<Self, DataDirError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::open(root) {
                Err(DataDirError::InUse(_)) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                opened => return opened,
            }
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.host_id
    }

    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    #[must_use]
    pub fn saved(&self) -> PathBuf {
        self.root.join("saved")
    }
}

/// Writes a file's entry in `directory` to the disk.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes what is called so in `directory`.
pub fn sweep(directory: &Path, prefix: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        error,
    }
}

fn make_dir(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_error(path, error))
}

fn lock(root: &Path) -> Result<File, DataDirError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| io_error(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
    }
}

fn identity(root: &Path) -> Result<HostId, DataDirError> {
    let path = root.join("host.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(|identity: Identity| identity.host_id)
            .map_err(|error| DataDirError::BadIdentity { path, error }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = Identity {
                host_id: new_host_id(),
            };
            write_identity(root, &path, &identity).map_err(|error| io_error(&path, error))?;
            Ok(identity.host_id)
        }
        Err(error) => Err(io_error(&path, error)),
    }
}

fn new_host_id() -> HostId {
    HostId::from_parts(unix_ms(), rand::random())
}

/// For an id that is made now.
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or_default()
}

fn write_identity(root: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let mut text = serde_json::to_vec(identity)?;
    text.push(b'\n');
    write_private(root, path, &text)
}

/// Writes a file in `directory` that its owner alone may read: whole or not at
/// all, also when power fails.
pub fn write_private(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_id_and_its_directory_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new");
        let first = DataDir::open(&root).unwrap();
        assert!(matches!(DataDir::open(&root), Err(DataDirError::InUse(_))));
        let id = first.host_id();
        drop(first);
        assert_eq!(DataDir::open(&root).unwrap().host_id(), id);
    }

    #[test]
    fn a_directory_that_is_let_go_of_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let refused = DataDir::open_after_another(dir.path(), Duration::ZERO);
        assert!(matches!(refused, Err(DataDirError::InUse(_))));
        let id = first.host_id();
        std::thread::scope(|scope| {
            let waits = || DataDir::open_after_another(dir.path(), Duration::from_secs(60));
            let second = scope.spawn(waits);
            drop(first);
            assert_eq!(second.join().unwrap().unwrap().host_id(), id);
        });
    }

    #[test]
    fn a_broken_identity_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("host.json"), "{}").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::BadIdentity { .. }), "{error}");
    }
}
