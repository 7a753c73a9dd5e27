//! The marker that machines were stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::BootTime;
use crate::limits::RECORD_BYTES;

const FILE: &str = "fenced.json";
const NEW: &str = "fenced.json.new";

/// The lease was over and the host's machines were stopped. It stays until
/// the agent has told the server and forgets it.
// Unknown fields are fine: agent and watchdog need not be of one build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Random id of the host's own run, without which `at_ms` means nothing.
    pub boot_id: String,
    /// When the lease was over.
    pub at_ms: BootTime,
    /// Ids of the VMs that were killed, in order.
    pub vms: Vec<String>,
    /// No process of theirs was left.
    pub complete: bool,
}

impl Fenced {
    /// What is on record; `None` where nothing is.
    ///
    /// # Errors
    /// Where the record cannot be read or understood.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(data_dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(RECORD_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Removes the record, unless it says something else by now.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget(&self, data_dir: &Path) -> io::Result<()> {
        if Self::read(data_dir)?.as_ref() != Some(self) {
            return Ok(());
        }
        match fs::remove_file(data_dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync(data_dir)),
        }
    }

    /// Puts it on record, whole or not at all, and on the disk.
    pub(crate) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let new = data_dir.join(NEW);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, data_dir.join(FILE))?;
        sync(data_dir)
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_stays_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Fenced::read(dir.path()).unwrap(), None);
        let first = Fenced {
            boot_id: "a".to_owned(),
            at_ms: BootTime::from_ms(7),
            vms: vec!["vm_1".to_owned()],
            complete: true,
        };
        first.write(dir.path()).unwrap();
        let second = Fenced {
            at_ms: BootTime::from_ms(8),
            ..first.clone()
        };
        second.write(dir.path()).unwrap();
        first.forget(dir.path()).unwrap();
        let read = Fenced::read(dir.path()).unwrap();
        assert_eq!(read, Some(second.clone()), "it is news");
        second.forget(dir.path()).unwrap();
        second.forget(dir.path()).unwrap();
        assert_eq!(Fenced::read(dir.path()).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
