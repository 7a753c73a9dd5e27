//! Browser sessions, known by the hash of their id alone.

use std::fmt;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::Timestamp;

use crate::entity::session::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, PartialEq, Eq)]
pub struct SessionRecord {
    pub id_hash: String,
    /// JSON; the store does not look into it.
    pub data: String,
    pub expires_at: Timestamp,
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionRecord(until {})", self.expires_at)
    }
}

/// Never one that has expired by `now`.
pub async fn find(
    conn: &impl Conn,
    id_hash: &str,
    now: Timestamp,
) -> Result<Option<SessionRecord>> {
    let found = Entity::find_by_id(id_hash).filter(Column::ExpiresAt.gt(now.as_ms()));
    let row = found.one(conn.raw()).await?;
    Ok(row.map(from_row))
}

/// # Errors
/// `Duplicate` "session".
pub async fn insert(tx: &WriteTx, session: &SessionRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(session), "session").await
}

/// Whether there is such a session. Never brings back one that was deleted
/// meanwhile: who signed out stays signed out.
pub async fn update(tx: &WriteTx, session: &SessionRecord) -> Result<bool> {
    let Model {
        id_hash,
        data,
        expires_at,
    } = to_row(session);
    let update = Entity::update_many()
        .col_expr(Column::Data, Expr::value(data))
        .col_expr(Column::ExpiresAt, Expr::value(expires_at))
        .filter(Column::IdHash.eq(id_hash));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// Whether there was one.
pub async fn delete(tx: &WriteTx, id_hash: &str) -> Result<bool> {
    let delete = Entity::delete_many().filter(Column::IdHash.eq(id_hash));
    Ok(delete.exec(tx.raw()).await?.rows_affected > 0)
}

/// None lives beyond `latest`, what a new one would live to: the clock was set
/// back.
pub async fn bring_back(tx: &WriteTx, latest: Timestamp) -> Result<()> {
    let update = Entity::update_many()
        .col_expr(Column::ExpiresAt, Expr::value(latest.as_ms()))
        .filter(Column::ExpiresAt.gt(latest.as_ms()));
    update.exec(tx.raw()).await?;
    Ok(())
}

/// How many there were.
pub async fn delete_expired(tx: &WriteTx, now: Timestamp) -> Result<u64> {
    let delete = Entity::delete_many().filter(Column::ExpiresAt.lte(now.as_ms()));
    Ok(delete.exec(tx.raw()).await?.rows_affected)
}

fn to_row(session: &SessionRecord) -> Model {
    let SessionRecord {
        id_hash,
        data,
        expires_at,
    } = session;
    Model {
        id_hash: id_hash.clone(),
        data: data.clone(),
        expires_at: expires_at.as_ms(),
    }
}

pub(crate) fn from_row(row: Model) -> SessionRecord {
    let Model {
        id_hash,
        data,
        expires_at,
    } = row;
    SessionRecord {
        id_hash,
        data,
        expires_at: Timestamp::from_ms(expires_at),
    }
}
