//! Facts that happened, in one gapless sequence.

use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::{HostId, TenantId, Timestamp, VmId};

use crate::{Conn, Result, WriteTx};

/// A fact without its place in the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    pub actor: Actor,
    pub tenant_id: Option<TenantId>,
    pub vm_id: Option<VmId>,
    pub host_id: Option<HostId>,
    pub event: EventKind,
}

/// A fact and the tenant that may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    pub view: EventView,
    pub tenant_id: Option<TenantId>,
}

pub async fn append(_tx: &WriteTx, _events: &[NewEvent]) -> Result<u64> {
    todo!()
}
pub async fn for_vm(_conn: &impl Conn, _vm_id: VmId, _limit: u32) -> Result<Vec<EventView>> {
    todo!()
}
pub async fn after(_conn: &impl Conn, _seq: u64, _limit: u32) -> Result<Vec<EventRecord>> {
    todo!()
}
pub async fn last_seq(_conn: &impl Conn) -> Result<u64> {
    todo!()
}
