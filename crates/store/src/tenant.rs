//! Tenants.

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use vimana_model::name::TenantName;
use vimana_model::tenant::TenantKind;
use vimana_model::{TenantId, Timestamp};

use crate::column::Row;
use crate::entity::tenant::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

/// A boundary of isolation and quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    pub id: TenantId,
    pub name: TenantName,
    pub kind: TenantKind,
    pub created_at: Timestamp,
}

/// # Errors
/// `Duplicate` "tenant name".
pub async fn insert(tx: &WriteTx, tenant: &TenantRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(tenant), "tenant name").await
}

pub async fn find(conn: &impl Conn, id: TenantId) -> Result<Option<TenantRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: TenantId) -> Result<Option<TenantRecord>> {
    // SQLite has one writer at a time and no such clause: it is left out there. What
    // is inserted beside it only needs the tenant to stay: to wait for that, too,
    // would make two who both have inserted something wait for each other.
    let found = Entity::find_by_id(id.to_string()).lock(LockType::NoKeyUpdate);
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

pub async fn find_by_name(conn: &impl Conn, name: &TenantName) -> Result<Option<TenantRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// All, by name.
pub async fn list(conn: &impl Conn) -> Result<Vec<TenantRecord>> {
    let mut tenants = query::all(Entity::find().all(conn.raw()).await?, from_row)?;
    tenants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tenants)
}

/// Whether there is such a tenant.
pub async fn set_kind(tx: &WriteTx, id: TenantId, kind: TenantKind) -> Result<bool> {
    let update = Entity::update_many()
        .col_expr(Column::Kind, Expr::value(kind.name()))
        .filter(Column::Id.eq(id.to_string()));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

fn to_row(tenant: &TenantRecord) -> Model {
    let TenantRecord {
        id,
        name,
        kind,
        created_at,
    } = tenant;
    Model {
        id: id.to_string(),
        name: name.to_string(),
        created_at: created_at.as_ms(),
        kind: kind.name().to_owned(),
    }
}

pub(crate) fn from_row(row: Model) -> Result<TenantRecord> {
    let Model {
        id,
        name,
        created_at,
        kind,
    } = row;
    let row = Row {
        table: "tenants",
        key: &id.clone(),
    };
    Ok(TenantRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        kind: row.slug("kind", kind)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
