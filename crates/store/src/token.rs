//! API tokens, known by the hash of their text alone.

use vimana_model::{Timestamp, TokenId, UserId};

use crate::{Conn, Result, WriteTx};

#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: TokenId,
    pub user_id: UserId,
    /// Hexadecimal SHA-256 of the token's text.
    pub hash: String,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

pub async fn insert(_tx: &WriteTx, _token: &TokenRecord) -> Result<()> {
    todo!()
}
pub async fn find_by_hash(_conn: &impl Conn, _hash: &str) -> Result<Option<TokenRecord>> {
    todo!()
}
pub async fn delete_by_hash(_tx: &WriteTx, _hash: &str) -> Result<bool> {
    todo!()
}
pub async fn delete_expired(_tx: &WriteTx, _now: Timestamp) -> Result<u64> {
    todo!()
}
