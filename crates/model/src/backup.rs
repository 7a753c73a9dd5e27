//! Copies of a VM's disks at one instant, in a datastore: they outlive the VM
//! and its host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::id::InvalidId;
use crate::image::ImageView;
use crate::name::{BackupName, DatastoreName, FlavorName, ImageName, VmName, VolumeName};
use crate::operation::OperationView;
use crate::unit::{MiB, Resources};
use crate::vm::field;
use crate::{BackupId, Error, ImageId, TenantId, Timestamp, VmId, VolumeId};

/// Most backups of one VM.
pub const MAX_BACKUPS: usize = 512;

/// Where a backup is in its life.
///
/// ```text
/// Making ──▶ Ready ──▶ Removing ──▶ Removed
///    ▼                    ▲
///  Failed ────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BackupState {
    /// Its VM's host is copying the disks to the datastore.
    Making,
    /// All of it is in the datastore.
    Ready,
    /// It did not come to be; nothing of it is kept.
    Failed,
    /// Deleted; the datastore is still to remove it.
    Removing,
    /// Nothing of it is left but this record.
    Removed,
}

impl BackupState {
    pub const ALL: [Self; 5] = [
        Self::Making,
        Self::Ready,
        Self::Failed,
        Self::Removing,
        Self::Removed,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Making => "Making",
            Self::Ready => "Ready",
            Self::Failed => "Failed",
            Self::Removing => "Removing",
            Self::Removed => "Removed",
        }
    }

    /// Whether its files are to be in the datastore.
    #[must_use]
    pub const fn has_content(self) -> bool {
        matches!(self, Self::Making | Self::Ready)
    }

    /// Whether it is shown, and its name taken by it.
    #[must_use]
    pub const fn is_shown(self) -> bool {
        matches!(self, Self::Making | Self::Ready | Self::Failed)
    }

    /// Whether a VM or an image can be made from it.
    ///
    /// # Errors
    /// The sentence that refuses it; the backup is its subject.
    pub const fn judge_restore(self) -> Result<(), Refusal> {
        match self {
            Self::Ready => Ok(()),
            Self::Making => Err(Refusal("is still being made")),
            Self::Failed => Err(Refusal("failed; nothing of it is kept")),
            Self::Removing | Self::Removed => Err(Refusal("is deleted")),
        }
    }

    /// Whether it can be deleted, as far as its state says.
    ///
    /// # Errors
    /// The sentence that refuses it; the backup is its subject.
    pub const fn judge_delete(self) -> Result<(), Refusal> {
        match self {
            Self::Ready | Self::Failed => Ok(()),
            Self::Making => Err(Refusal("is still being made; cancel that first")),
            Self::Removing | Self::Removed => Err(Refusal("is deleted")),
        }
    }
}

impl fmt::Display for BackupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A disk of a VM: the one it boots from, or a volume. As text `root`, or the
/// volume's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DiskId {
    Root,
    Volume(VolumeId),
}

const ROOT: &str = "root";

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str(ROOT),
            Self::Volume(id) => id.fmt(f),
        }
    }
}

impl FromStr for DiskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            ROOT => Ok(Self::Root),
            id => id.parse().map(Self::Volume),
        }
    }
}

impl TryFrom<String> for DiskId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<DiskId> for String {
    fn from(disk: DiskId) -> Self {
        disk.to_string()
    }
}

/// A disk in a backup, as it lies in the datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptDisk {
    pub disk: DiskId,
    /// What a machine sees of it.
    pub size_mib: MiB,
    /// Bytes of its file.
    pub size_bytes: u64,
    /// Hexadecimal SHA-256 of its file.
    pub sha256: String,
}

/// What a host made, of all of a machine's disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeBackup {
    /// The backup that it holds the changes since; all of the disks where
    /// absent.
    pub since: Option<BackupId>,
    /// The guest's file systems stood still for the instant: its agent
    /// answered.
    pub frozen: bool,
    pub disks: Vec<KeptDisk>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupView {
    pub id: BackupId,
    pub tenant_id: TenantId,
    pub vm_id: VmId,
    pub vm_name: VmName,
    pub name: BackupName,
    pub state: BackupState,
    pub datastore: DatastoreName,
    /// It holds the changes since that one, and needs it; absent where it is
    /// full.
    pub since: Option<BackupId>,
    /// Made by the VM's schedule, which removes it in its time.
    pub scheduled: bool,
    /// The guest's agent brought its file systems to rest for it.
    pub frozen: bool,
    /// The VM's size then.
    pub resources: Resources,
    pub flavor: FlavorName,
    pub image: ImageName,
    pub disks: Vec<DiskView>,
    /// Bytes in the datastore.
    pub stored_bytes: u64,
    /// Why it failed.
    pub failure: Option<String>,
    /// Name of the user who asked for it.
    pub owner: String,
    pub created_at: Timestamp,
}

/// A disk in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskView {
    /// `root`, or the id of a volume.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub disk: DiskId,
    /// The volume's name.
    pub volume: Option<VolumeName>,
    pub size_mib: MiB,
    pub stored_bytes: u64,
}

/// The form that makes a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TakeBackup {
    /// After the time, where empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The first one for backups, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// All of the disks, even where the changes since the last one would do.
    #[serde(default)]
    pub full: bool,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRequest {
    pub name: Option<BackupName>,
    pub datastore: Option<DatastoreName>,
    pub full: bool,
}

impl TakeBackup {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming each field at fault.
    pub fn check(&self) -> Result<BackupRequest, Error> {
        let name = Some(self.name.trim()).filter(|name| !name.is_empty());
        let name = field("name", name.map(BackupName::new).transpose());
        let datastore = self.datastore.as_deref().map(DatastoreName::new);
        match (name, field("datastore", datastore.transpose())) {
            (Ok(name), Ok(datastore)) => Ok(BackupRequest {
                name,
                datastore,
                full: self.full,
            }),
            (name, datastore) => {
                let fields = [name.err(), datastore.err()];
                Err(Error::invalid(fields.into_iter().flatten().collect()))
            }
        }
    }
}

/// The form that makes a new VM from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RestoreBackup {
    /// Of the new VM.
    pub name: String,
    /// Its size; that of the VM then, where that flavor is still offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// Make no volumes of the backup's other disks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_only: bool,
}

/// The answer to a restore that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptedRestore {
    /// That the VM is made by way of.
    pub image: ImageView,
    /// Its import: when that is through, the VM is there.
    pub operation: OperationView,
    /// The volumes that are made beside it of the backup's other disks; each can
    /// be attached once its content has been read.
    #[serde(default)]
    pub volumes: Vec<VolumeName>,
}

/// What is to become of an image, once it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    Vm(Restoration),
    /// It is what a volume begins as, which is recorded already.
    Volume,
}

/// The VM that an image is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    pub name: VmName,
    pub flavor: FlavorName,
    pub ssh_key: Option<String>,
    pub by: crate::UserId,
    /// Made together with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<RestoredVolume>,
}

/// A volume that one of a backup's disks is to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoredVolume {
    pub disk: DiskId,
    pub name: VolumeName,
    pub size: MiB,
}

/// Which of a backup's disks an image is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FromBackup {
    pub backup_id: BackupId,
    /// `root`, or the id of a volume.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    #[serde(default = "root")]
    pub disk: DiskId,
}

/// The same, and what is to become of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSource {
    pub from: FromBackup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becomes: Option<Becomes>,
}

const fn root() -> DiskId {
    DiskId::Root
}

/// An image that a restore goes by way of, told apart from what people make.
#[must_use]
pub fn restored_image_name(id: ImageId) -> String {
    format!("restored-{}", id.uuid().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_the_root_disk_or_a_volume() {
        let volume = DiskId::Volume(VolumeId::from_parts(1, [1; 10]));
        for disk in [DiskId::Root, volume] {
            assert_eq!(disk.to_string().parse(), Ok(disk));
        }
        for strange in ["", "disk", "../root", "vm_00"] {
            assert!(strange.parse::<DiskId>().is_err(), "{strange}");
        }
    }

    #[test]
    fn a_backup_needs_no_name_and_takes_no_strange_one() {
        let form = TakeBackup::default();
        assert_eq!(form.check().unwrap().name, None);
        let wrong = TakeBackup {
            name: "../x".to_owned(),
            datastore: Some("a/b".to_owned()),
            full: false,
        };
        let fields = wrong.check().unwrap_err().fields;
        let names: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(names, ["name", "datastore"]);
    }
}
