//! API tokens, known by the hash of their text alone.

use std::fmt;

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::{Timestamp, TokenId, UserId};

use crate::column::Row;
use crate::entity::token::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: TokenId,
    pub user_id: UserId,
    /// Hexadecimal SHA-256 of the token's text.
    pub hash: String,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRecord({} of {})", self.id, self.user_id)
    }
}

/// # Errors
/// `Duplicate` "token".
pub async fn insert(tx: &WriteTx, token: &TokenRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(token), "token").await
}

/// Also an expired one, as long as nobody swept it away: the caller looks at
/// `expires_at`, and can tell the user what happened.
pub async fn find_by_hash(conn: &impl Conn, hash: &str) -> Result<Option<TokenRecord>> {
    let found = Entity::find().filter(Column::Hash.eq(hash));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Whether there was one.
pub async fn delete_by_hash(tx: &WriteTx, hash: &str) -> Result<bool> {
    let delete = Entity::delete_many().filter(Column::Hash.eq(hash));
    Ok(delete.exec(tx.raw()).await?.rows_affected > 0)
}

/// None is from the future: where the clock was set back, they count from now
/// on, and live as long as they were to.
pub async fn bring_back(tx: &WriteTx, now: Timestamp) -> Result<()> {
    query::bring_back::<Entity>(tx, Column::CreatedAt, Column::ExpiresAt, now).await
}

/// How many there were.
pub async fn delete_expired(tx: &WriteTx, now: Timestamp) -> Result<u64> {
    let delete = Entity::delete_many().filter(Column::ExpiresAt.lte(now.as_ms()));
    Ok(delete.exec(tx.raw()).await?.rows_affected)
}

fn to_row(token: &TokenRecord) -> Model {
    let TokenRecord {
        id,
        user_id,
        hash,
        expires_at,
        created_at,
    } = token;
    Model {
        id: id.to_string(),
        user_id: user_id.to_string(),
        hash: hash.clone(),
        expires_at: expires_at.as_ms(),
        created_at: created_at.as_ms(),
    }
}

pub(crate) fn from_row(row: Model) -> Result<TokenRecord> {
    let Model {
        id,
        user_id,
        hash,
        expires_at,
        created_at,
    } = row;
    let row = Row {
        table: "tokens",
        key: &id.clone(),
    };
    Ok(TokenRecord {
        id: row.parse("id", id)?,
        user_id: row.parse("user_id", user_id)?,
        hash,
        expires_at: Timestamp::from_ms(expires_at),
        created_at: Timestamp::from_ms(created_at),
    })
}
