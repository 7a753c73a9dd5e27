//! Named sizes.

use vimana_model::name::FlavorName;
use vimana_model::unit::Resources;
use vimana_model::{FlavorId, Timestamp};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlavorRecord {
    pub id: FlavorId,
    pub name: FlavorName,
    pub resources: Resources,
    pub created_at: Timestamp,
}

pub async fn insert(_tx: &WriteTx, _flavor: &FlavorRecord) -> Result<()> {
    todo!()
}
pub async fn find_by_name(_conn: &impl Conn, _name: &FlavorName) -> Result<Option<FlavorRecord>> {
    todo!()
}
pub async fn list(_conn: &impl Conn) -> Result<Vec<FlavorRecord>> {
    todo!()
}
