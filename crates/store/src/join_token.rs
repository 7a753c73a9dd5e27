//! Permissions for hosts to join, known by the hash of their secret alone.

use std::fmt;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::name::HostName;
use vimana_model::{HostId, JoinTokenId, Timestamp};

use crate::column::{Row, time, to_time};
use crate::entity::join_token::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokenRecord {
    pub id: JoinTokenId,
    /// Hexadecimal SHA-256 of the secret.
    pub secret_hash: String,
    /// The name the host must have; any where there is none.
    pub host_name: Option<HostName>,
    /// Who asked for it, for people.
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    /// Who used it.
    pub host_id: Option<HostId>,
}

impl fmt::Debug for JoinTokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinTokenRecord({} by {})", self.id, self.created_by)
    }
}

/// # Errors
/// `Duplicate` "join token".
pub async fn insert(tx: &WriteTx, token: &JoinTokenRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(token), "join token").await
}

/// Also a used or expired one, as long as nobody swept it away.
pub async fn find_by_hash(conn: &impl Conn, secret_hash: &str) -> Result<Option<JoinTokenRecord>> {
    let found = Entity::find().filter(Column::SecretHash.eq(secret_hash));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Spends the token: one conditional update, so that of all who try at the
/// same time one alone is told that it was there to be spent.
pub async fn spend(tx: &WriteTx, id: JoinTokenId, host_id: HostId, now: Timestamp) -> Result<bool> {
    let update = Entity::update_many()
        .col_expr(Column::UsedAt, Expr::value(now.as_ms()))
        .col_expr(Column::HostId, Expr::value(host_id.to_string()))
        .filter(Column::Id.eq(id.to_string()))
        .filter(Column::UsedAt.is_null())
        .filter(Column::ExpiresAt.gt(now.as_ms()));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
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

fn to_row(token: &JoinTokenRecord) -> Model {
    let JoinTokenRecord {
        id,
        secret_hash,
        host_name,
        created_by,
        created_at,
        expires_at,
        used_at,
        host_id,
    } = token;
    Model {
        id: id.to_string(),
        secret_hash: secret_hash.clone(),
        host_name: host_name.as_ref().map(ToString::to_string),
        created_by: created_by.clone(),
        created_at: created_at.as_ms(),
        expires_at: expires_at.as_ms(),
        used_at: to_time(*used_at),
        host_id: host_id.map(|id| id.to_string()),
    }
}

pub(crate) fn from_row(row: Model) -> Result<JoinTokenRecord> {
    let Model {
        id,
        secret_hash,
        host_name,
        created_by,
        created_at,
        expires_at,
        used_at,
        host_id,
    } = row;
    let row = Row {
        table: "join_tokens",
        key: &id.clone(),
    };
    Ok(JoinTokenRecord {
        id: row.parse("id", id)?,
        secret_hash,
        host_name: row.parse_option("host_name", host_name)?,
        created_by,
        created_at: Timestamp::from_ms(created_at),
        expires_at: Timestamp::from_ms(expires_at),
        used_at: time(used_at),
        host_id: row.parse_option("host_id", host_id)?,
    })
}
