//! Writable disks that outlive the VMs they are attached to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::error::FieldError;
use crate::name::{DatastoreName, ImageName, VmName, VolumeName};
use crate::operation::OperationView;
use crate::unit::MiB;
use crate::vm::{HostRef, field};
use crate::{Error, TenantId, Timestamp, VmId, VolumeId};

/// The smallest and the largest volume.
pub const MIN_VOLUME: MiB = MiB(1);
pub const MAX_VOLUME: MiB = MiB(16 << 20);

/// Where a volume is in its life.
///
/// ```text
/// Ready ⇄ Attaching, Detaching ⇄ Attached
///   ▼                               ▼ (goes with its VM)
/// Removing ──▶ Removed ◀── Removing ┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// No VM has it.
    Ready,
    Attaching,
    Attached,
    Detaching,
    /// Deleted; its host is still to remove it.
    Removing,
    /// Nothing of it is left but this record.
    Removed,
}

impl VolumeState {
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Attaching,
        Self::Attached,
        Self::Detaching,
        Self::Removing,
        Self::Removed,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Attaching => "Attaching",
            Self::Attached => "Attached",
            Self::Detaching => "Detaching",
            Self::Removing => "Removing",
            Self::Removed => "Removed",
        }
    }

    /// One sentence for a person who meets the state for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ready => "no VM has it",
            Self::Attaching => "a VM is being given it",
            Self::Attached => "a VM has it",
            Self::Detaching => "it is being taken from its VM",
            Self::Removing => "deleted; its host is still to remove it",
            Self::Removed => "nothing of it is left",
        }
    }

    /// Whether a VM has it, or may.
    #[must_use]
    pub const fn has_vm(self) -> bool {
        matches!(self, Self::Attaching | Self::Attached | Self::Detaching)
    }

    /// Whether its name is taken by it.
    #[must_use]
    pub const fn holds_name(self) -> bool {
        !matches!(self, Self::Removing | Self::Removed)
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something a person can ask of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum VolumeAction {
    /// Give it to a VM.
    Attach,
    /// Take it from its VM.
    Detach,
    /// Make it larger.
    Grow,
    /// Bring it to another datastore.
    Move,
    /// Keep it when its VM goes, or not.
    Change,
    /// Make an image of what is on it.
    Copy,
    /// Remove it and its content.
    Delete,
}

impl VolumeAction {
    pub const ALL: [Self; 7] = [
        Self::Attach,
        Self::Detach,
        Self::Grow,
        Self::Move,
        Self::Change,
        Self::Copy,
        Self::Delete,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Change => "change",
            Self::Copy => "copy",
            Self::Delete => "delete",
        }
    }

    /// Whether the action is accepted in `state`.
    ///
    /// # Errors
    /// The sentence that refuses it; the volume is its subject.
    pub const fn judge(self, state: VolumeState) -> Result<(), Refusal> {
        use VolumeState as S;
        let refusal = match (self, state) {
            (Self::Attach | Self::Delete, S::Ready)
            | (Self::Detach, S::Attached)
            | (Self::Grow | Self::Move | Self::Copy, S::Ready | S::Attached)
            | (Self::Change, S::Ready | S::Attaching | S::Attached | S::Detaching) => return Ok(()),
            (_, S::Removing | S::Removed) => "is deleted",
            (Self::Attach, S::Attached) => "is attached to a VM already",
            (_, S::Attaching) => "is just being attached",
            (_, S::Detaching) => "is just being detached",
            (Self::Detach, S::Ready) => "is attached to no VM",
            (Self::Delete, S::Attached) => "is attached to a VM; detach it first",
        };
        Err(Refusal(refusal))
    }
}

impl fmt::Display for VolumeAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether what a volume begins with is at hand, so that it can be attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum VolumeContent {
    AtHand,
    /// It is still being brought in.
    Coming,
    /// It will not come.
    Missing {
        /// A sentence about the content.
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VolumeView {
    pub id: VolumeId,
    pub tenant_id: TenantId,
    pub name: VolumeName,
    pub state: VolumeState,
    pub size_mib: MiB,
    /// The image it began as a copy of.
    pub image: Option<ImageName>,
    pub content: VolumeContent,
    /// The VM that has it.
    pub vm: Option<VmRef>,
    /// Where its bytes are; nowhere before it is first attached.
    pub host: Option<HostRef>,
    /// Which of that host's datastores has them.
    pub datastore: DatastoreName,
    /// The one that it is on its way to.
    pub moving_to: Option<DatastoreName>,
    /// Deleted together with the VM that has it.
    pub delete_with_vm: bool,
    /// Name of the user who made it.
    pub owner: String,
    pub created_at: Timestamp,
}

/// A VM, as others point to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VmRef {
    pub id: VmId,
    pub name: VmName,
}

/// A volume, and the operation that was just accepted for it, where there is one:
/// of a VM, or the import of what it is to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptedVolume {
    pub volume: VolumeView,
    pub operation: Option<OperationView>,
}

/// The form that makes a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    pub name: String,
    pub size_mib: MiB,
    /// Name of an image that it begins as a copy of; empty otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The datastore of its host that it is made in: `local` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Delete it together with the VM that has it.
    #[serde(default)]
    pub delete_with_vm: bool,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    pub name: VolumeName,
    pub size: MiB,
    pub image: Option<ImageName>,
    pub datastore: DatastoreName,
    pub delete_with_vm: bool,
}

impl CreateVolume {
    /// Checks every field and reports all that are wrong at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<VolumeRequest, Error> {
        let name = field("name", VolumeName::new(self.name.as_str()));
        let size = size(self.size_mib);
        let image = self.image.as_deref().filter(|name| !name.trim().is_empty());
        let image = field("image", image.map(ImageName::new).transpose());
        let datastore = self.datastore.as_deref();
        let datastore = datastore.filter(|name| !name.trim().is_empty());
        let datastore = field("datastore", datastore.map(DatastoreName::new).transpose());
        match (name, size, image, datastore) {
            (Ok(name), Ok(size), Ok(image), Ok(datastore)) => Ok(VolumeRequest {
                name,
                size,
                image,
                datastore: datastore.unwrap_or_else(DatastoreName::local),
                delete_with_vm: self.delete_with_vm,
            }),
            (name, size, image, datastore) => Err(Error::invalid(
                [name.err(), size.err(), image.err(), datastore.err()]
                    .into_iter()
                    .flatten()
                    .collect(),
            )),
        }
    }
}

/// The form that changes a volume; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeVolume {
    /// Delete it together with the VM that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_with_vm: Option<bool>,
}

/// The form that makes a volume larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrowVolume {
    pub size_mib: MiB,
}

impl GrowVolume {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(self) -> Result<MiB, Error> {
        Ok(size(self.size_mib)?)
    }
}

/// The form that brings a volume to another datastore of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MoveVolume {
    pub datastore: String,
}

impl MoveVolume {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<DatastoreName, Error> {
        let name = DatastoreName::new(self.datastore.as_str());
        Ok(field("datastore", name)?)
    }
}

/// The form that gives a volume to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    pub vm_id: VmId,
}

/// The form that makes another volume of what is on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CloneVolume {
    /// What the new one is to be called.
    pub name: String,
    /// Delete it together with the VM that has it.
    #[serde(default)]
    pub delete_with_vm: bool,
}

impl CloneVolume {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<VolumeName, Error> {
        Ok(field("name", VolumeName::new(self.name.as_str()))?)
    }
}

fn size(size: MiB) -> Result<MiB, FieldError> {
    if (MIN_VOLUME..=MAX_VOLUME).contains(&size) {
        return Ok(size);
    }
    let message = format!("from {MIN_VOLUME} to {MAX_VOLUME}");
    Err(FieldError::new("size_mib", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_action_has_its_answer() {
        let mut table = String::new();
        for action in VolumeAction::ALL {
            for state in VolumeState::ALL {
                let answer = match action.judge(state) {
                    Ok(()) => "accepted".to_owned(),
                    Err(refusal) => format!("refused: the volume {refusal}"),
                };
                table.push_str(&format!("{action:<7} {state:<9} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_volume_has_a_name_and_a_sensible_size() {
        let wrong = CreateVolume {
            name: "../x".to_owned(),
            size_mib: MiB(0),
            ..CreateVolume::default()
        };
        let fields = wrong.check().unwrap_err().fields;
        let names: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(names, ["name", "size_mib"]);
        let grown = GrowVolume {
            size_mib: MiB(u64::MAX),
        };
        assert!(grown.check().is_err());
    }
}
