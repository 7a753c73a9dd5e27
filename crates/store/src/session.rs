//! Browser sessions, known by the hash of their id alone.

use vimana_model::Timestamp;

use crate::{Conn, Result, WriteTx};

#[derive(Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub id_hash: String,
    /// JSON; the store does not look into it.
    pub data: String,
    pub expires_at: Timestamp,
}

pub async fn find(
    _conn: &impl Conn,
    _id_hash: &str,
    _now: Timestamp,
) -> Result<Option<SessionRecord>> {
    todo!()
}
pub async fn insert(_tx: &WriteTx, _session: &SessionRecord) -> Result<()> {
    todo!()
}
pub async fn update(_tx: &WriteTx, _session: &SessionRecord) -> Result<bool> {
    todo!()
}
pub async fn delete(_tx: &WriteTx, _id_hash: &str) -> Result<bool> {
    todo!()
}
pub async fn delete_expired(_tx: &WriteTx, _now: Timestamp) -> Result<u64> {
    todo!()
}
