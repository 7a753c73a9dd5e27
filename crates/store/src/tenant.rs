//! Tenants.

use vimana_model::name::TenantName;
use vimana_model::{TenantId, Timestamp};

use crate::{Conn, Result, WriteTx};

/// A boundary of isolation and quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    pub id: TenantId,
    pub name: TenantName,
    pub created_at: Timestamp,
}

pub async fn insert(_tx: &WriteTx, _tenant: &TenantRecord) -> Result<()> {
    todo!()
}
pub async fn find(_conn: &impl Conn, _id: TenantId) -> Result<Option<TenantRecord>> {
    todo!()
}
pub async fn find_by_name(_conn: &impl Conn, _name: &TenantName) -> Result<Option<TenantRecord>> {
    todo!()
}
