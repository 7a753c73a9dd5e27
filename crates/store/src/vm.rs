//! The durable machines that users own.

use vimana_model::name::{FlavorName, ImageName, UserName, VmName};
use vimana_model::pending::Explanation;
use vimana_model::ssh_key::SshKey;
use vimana_model::unit::Resources;
use vimana_model::user_data::UserData;
use vimana_model::vm::{Failure, HostRef};
use vimana_model::{HostId, ImageId, OperationId, TenantId, Timestamp, UserId, VmId, VmState};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, Debug, PartialEq)]
pub struct VmRecord {
    pub id: VmId,
    pub tenant_id: TenantId,
    pub owner_id: UserId,
    pub owner_name: UserName,
    pub name: VmName,
    pub state: VmState,
    pub state_since: Timestamp,
    pub failure: Option<Failure>,
    pub flavor_name: FlavorName,
    pub resources: Resources,
    pub image_id: ImageId,
    pub image_name: ImageName,
    pub ssh_key: Option<SshKey>,
    pub user_data: Option<UserData>,
    pub host: Option<HostRef>,
    pub run_epoch: u64,
    pub generation: u64,
    pub operation_id: Option<OperationId>,
    pub explanation: Option<Explanation>,
    pub explained_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// Which VMs to list; a field left out filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFilter {
    pub tenant: Option<TenantId>,
    /// The exact name.
    pub name: Option<String>,
    /// Any of these; empty for all.
    pub states: Vec<VmState>,
    pub limit: u32,
}

pub async fn insert(_tx: &WriteTx, _vm: &VmRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: VmId) -> Result<Option<VmRecord>> {
    todo!()
}
pub async fn lock(_tx: &WriteTx, _id: VmId) -> Result<Option<VmRecord>> {
    todo!()
}
pub async fn update(_tx: &WriteTx, _vm: &mut VmRecord) -> Result<()> {
    todo!()
}
pub async fn list(_conn: &impl Conn, _filter: &VmFilter) -> Result<Vec<VmRecord>> {
    todo!()
}
pub async fn find_many(_conn: &impl Conn, _ids: &[VmId]) -> Result<Vec<VmRecord>> {
    todo!()
}
pub async fn pending(_conn: &impl Conn) -> Result<Vec<VmRecord>> {
    todo!()
}
pub async fn on_host(_conn: &impl Conn, _host_id: HostId) -> Result<Vec<VmRecord>> {
    todo!()
}
