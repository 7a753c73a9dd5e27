//! Snapshots: points in time of a machine.

use serde::{Deserialize, Serialize};
use vimana_model::{SnapshotId, VmId, VolumeId};

/// What a snapshot keeps of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The root disk and every attached volume.
    Disks,
    /// The same, and the memory of a machine that runs.
    Memory,
    /// One attached volume, and nothing else.
    Volume(VolumeId),
}

/// One snapshot as the driver sees it. A later version may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSnapshot {
    pub vm_id: VmId,
    pub snapshot_id: SnapshotId,
    /// Whether the memory is in it, too.
    pub memory: bool,
}
