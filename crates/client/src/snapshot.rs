//! Snapshots of VMs.

use vimana_model::snapshot::{SnapshotView, TakeSnapshot};
use vimana_model::vm::AcceptedView;
use vimana_model::{Result, SnapshotId, VmId};

use crate::Client;
use crate::transport::Items;

impl Client {
    /// Oldest first.
    pub async fn snapshots(&self, vm: VmId) -> Result<Vec<SnapshotView>> {
        let list: Items<_> = self.get(&of(vm)).await?;
        Ok(list.items)
    }

    pub async fn take_snapshot(&self, vm: VmId, form: &TakeSnapshot) -> Result<AcceptedView> {
        self.post_json(&of(vm), form).await
    }

    pub async fn revert(&self, vm: VmId, snapshot: SnapshotId) -> Result<AcceptedView> {
        self.post(&format!("{}/{snapshot}/revert", of(vm))).await
    }

    pub async fn delete_snapshot(&self, vm: VmId, snapshot: SnapshotId) -> Result<AcceptedView> {
        self.delete(&format!("{}/{snapshot}", of(vm))).await
    }
}

fn of(vm: VmId) -> String {
    format!("/api/v1/vms/{vm}/snapshots")
}
