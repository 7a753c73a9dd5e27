//! Backups: a machine's disks as they were at one instant, as files.

use std::path::PathBuf;

use vimana_model::BackupId;
use vimana_model::backup::DiskId;
use vimana_model::unit::MiB;

/// What a host holds of a backup until it is in the datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFiles {
    /// The backup that the files hold the changes since; all of the disks
    /// where absent.
    pub since: Option<BackupId>,
    /// The guest's file systems stood still for the instant.
    pub frozen: bool,
    pub files: Vec<BackupFile>,
}

/// A disk: a qcow2 file without a backing file. One that holds changes lies
/// over the same disk's file of the backup before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    pub disk: DiskId,
    pub path: PathBuf,
    /// What the machine sees of it.
    pub size: MiB,
}
