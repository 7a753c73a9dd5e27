//! Machines with an agent.

use vimana_model::host::{Accelerator, HostState};
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::Resources;
use vimana_model::{HostId, Timestamp};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
    pub connected: bool,
    pub hypervisor: String,
    pub accelerator: Accelerator,
    pub accelerator_note: String,
    pub capacity: Resources,
    /// Sum of the claims on it; only `claim` writes it.
    pub used: Resources,
    /// Number of the claims on it; only `claim` writes it.
    pub vms: u32,
    pub agent_version: String,
    pub connected_since: Option<Timestamp>,
    pub silent_since: Option<Timestamp>,
}

pub async fn insert(_tx: &WriteTx, _host: &HostRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: HostId) -> Result<Option<HostRecord>> {
    todo!()
}
pub async fn list(_conn: &impl Conn) -> Result<Vec<HostRecord>> {
    todo!()
}
pub async fn update_facts(_tx: &WriteTx, _host: &HostRecord) -> Result<bool> {
    todo!()
}
pub async fn disconnect_all(_tx: &WriteTx, _now: Timestamp) -> Result<Vec<HostId>> {
    todo!()
}
