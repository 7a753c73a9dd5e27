//! What VMs hold of hosts.

use vimana_model::unit::Resources;
use vimana_model::{HostId, VmId};

use crate::{Conn, Result, WriteTx};

/// What one VM holds of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    pub vm_id: VmId,
    pub host_id: HostId,
    pub resources: Resources,
}

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    Ok,
    NoRoom,
}

pub async fn take(_tx: &WriteTx, _claim: &ClaimRecord) -> Result<Taken> {
    todo!()
}
pub async fn give_back(_tx: &WriteTx, _vm_id: VmId) -> Result<Option<ClaimRecord>> {
    todo!()
}
pub async fn keep_disk_only(_tx: &WriteTx, _vm_id: VmId) -> Result<Option<ClaimRecord>> {
    todo!()
}
pub async fn list(_conn: &impl Conn) -> Result<Vec<ClaimRecord>> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _vm_id: VmId) -> Result<Option<ClaimRecord>> {
    todo!()
}
