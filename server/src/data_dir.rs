//! The server's directory: its own, and locked while it runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Where everything is in the directory.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
}

/// The directory, locked until dropped.
#[derive(Debug)]
pub struct DataDir {
    layout: Layout,
    _lock: File,
}

impl Deref for DataDir {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.layout
    }
}

impl DataDir {
    /// Makes the directory where it is missing and locks it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let layout = Layout::of(path)?;
        let path = layout.path();
        make_private(path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the data directory {}", path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                layout,
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => bail!(
                "another server runs on the data directory {}; stop it first, or use another directory",
                path.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

impl Layout {
    /// Touches nothing.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).context("the data directory")?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database_url(&self) -> String {
        format!("sqlite://{}", self.path.join("vimana.db").display())
    }

    pub fn images(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Memory and disks of stopped VMs.
    pub fn saved(&self) -> PathBuf {
        self.path.join("saved")
    }

    /// Where tools on this machine ask the server.
    pub fn control(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }
}

/// Makes a directory and what is missing above it, for the owner alone.
pub fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
