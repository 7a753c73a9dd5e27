//! Snapshots: points in time of a machine.

use serde::{Deserialize, Serialize};
use vimana_model::{SnapshotId, VmId};

/// One snapshot as the driver sees it. A later version may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSnapshot {
    pub vm_id: VmId,
    pub snapshot_id: SnapshotId,
    /// Whether the memory is in it, too.
    pub memory: bool,
}
