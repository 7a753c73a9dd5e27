//! Points in time of a VM: its disks at one instant, with its memory or
//! without, or one of its volumes alone.

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::name::SnapshotName;
use crate::state::VmState;
use crate::unit::{MiB, Resources};
use crate::vm::field;
use crate::{Error, FieldError, SnapshotId, Timestamp, VmId};

/// Most snapshots of one VM.
pub const MAX_SNAPSHOTS: usize = 64;

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// It is being taken; it may not come to be.
    Taking,
    Ready,
    /// It is being deleted.
    Removing,
}

impl SnapshotState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taking => "Taking",
            Self::Ready => "Ready",
            Self::Removing => "Removing",
        }
    }
}

impl std::fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a snapshot holds beside the disks of its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Then {
    pub memory: bool,
    /// The VM's size when it was taken.
    pub resources: Resources,
}

impl Then {
    /// Whether a VM of this state and size can go back to it.
    ///
    /// # Errors
    /// The sentence that refuses it; the snapshot is its subject.
    pub fn judge_revert(self, state: VmState, now: Resources) -> Result<(), Refusal> {
        if state != VmState::Running {
            return Ok(());
        }
        if !self.memory {
            return Err(Refusal("has no memory in it; power the VM off first"));
        }
        let same = (self.resources.vcpus, self.resources.memory_mib) == (now.vcpus, now.memory_mib);
        if same {
            Ok(())
        } else {
            Err(Refusal(
                "has the memory of another size; power the VM off to go back to its disks alone",
            ))
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotView {
    pub id: SnapshotId,
    pub vm_id: VmId,
    pub name: SnapshotName,
    pub state: SnapshotState,
    /// Whether the memory is in it, so that a running VM can go back to it.
    pub memory: bool,
    /// The VM's size when it was taken.
    pub resources: Resources,
    /// Whether the root disk is in it; otherwise it is of one volume alone.
    #[serde(default = "yes")]
    pub root: bool,
    /// Names of the volumes that are in it.
    pub volumes: Vec<String>,
    /// Disk that is kept free for it, on the host and in its datastores: what it
    /// takes when every block changes after it.
    pub claimed_mib: MiB,
    /// Taken by the VM's schedule, which deletes it in its time.
    #[serde(default)]
    pub scheduled: bool,
    /// What the VM had come from when it was taken.
    pub parent_id: Option<SnapshotId>,
    /// The VM's disks have come from it: it was taken, or gone back to, last.
    pub current: bool,
    /// Name of the user who took it.
    pub owner: String,
    pub created_at: Timestamp,
}

const fn yes() -> bool {
    true
}

impl SnapshotView {
    #[must_use]
    pub const fn then(&self) -> Then {
        Then {
            memory: self.memory,
            resources: self.resources,
        }
    }
}

/// The form that takes a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TakeSnapshot {
    pub name: String,
    /// The memory, too: of a running VM alone. It stands still for as long as
    /// that takes.
    #[serde(default)]
    pub memory: bool,
    /// Name or id of a volume that the VM has: that alone, without the root
    /// disk and other volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

impl TakeSnapshot {
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] naming the field at fault.
    pub fn check(&self) -> Result<SnapshotName, Error> {
        let name = field("name", SnapshotName::new(self.name.as_str()))?;
        if self.memory && self.volume.is_some() {
            let message = "a snapshot of one volume has no memory in it";
            return Err(FieldError::new("memory", message).into());
        }
        Ok(name)
    }
}
