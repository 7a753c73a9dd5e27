//! What was answered to requests that carried a key.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::{Timestamp, UserId};

use crate::column::Row;
use crate::entity::idempotency::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

/// One answered request.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    pub user_id: UserId,
    pub key: String,
    /// Tells requests with the same key apart.
    pub fingerprint: String,
    /// The answer, as JSON.
    pub answer: String,
    pub created_at: Timestamp,
}

/// # Errors
/// `Duplicate` "idempotency key".
pub async fn insert(tx: &WriteTx, record: &IdempotencyRecord) -> Result<()> {
    let IdempotencyRecord {
        user_id,
        key,
        fingerprint,
        answer,
        created_at,
    } = record.clone();
    let row = Model {
        user_id: user_id.to_string(),
        idempotency_key: key,
        fingerprint,
        answer,
        created_at: created_at.as_ms(),
    };
    query::insert::<Entity>(tx, row, "idempotency key").await
}

pub async fn find(
    conn: &impl Conn,
    user_id: UserId,
    key: &str,
) -> Result<Option<IdempotencyRecord>> {
    let found = Entity::find_by_id((user_id.to_string(), key.to_owned()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// None is from the future: where the clock was set back, they count from now
/// on.
pub async fn bring_back(tx: &WriteTx, now: Timestamp) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::CreatedAt, Expr::value(now.as_ms()))
        .filter(Column::CreatedAt.gt(now.as_ms()));
    update.exec(tx.raw()).await?;
    Ok(())
}

/// Forgets what was answered before `then`.
pub async fn delete_before(tx: &WriteTx, then: Timestamp) -> Result<u64> {
    let deletion = Entity::delete_many().filter(Column::CreatedAt.lt(then.as_ms()));
    Ok(deletion.exec(tx.raw()).await?.rows_affected)
}

pub(crate) fn from_row(row: Model) -> Result<IdempotencyRecord> {
    let Model {
        user_id,
        idempotency_key,
        fingerprint,
        answer,
        created_at,
    } = row;
    let row = Row {
        table: "idempotency_keys",
        key: &user_id.clone(),
    };
    Ok(IdempotencyRecord {
        user_id: row.parse("user_id", user_id)?,
        key: idempotency_key,
        fingerprint,
        answer,
        created_at: Timestamp::from_ms(created_at),
    })
}
