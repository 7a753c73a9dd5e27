//! Tenants.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::name::TenantName;
use vimana_model::{TenantId, Timestamp};

use crate::column::Row;
use crate::entity::tenant::{Column, Entity, Model};
use crate::{Conn, Result, WriteTx, query};

/// A boundary of isolation and quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    pub id: TenantId,
    pub name: TenantName,
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

pub async fn find_by_name(conn: &impl Conn, name: &TenantName) -> Result<Option<TenantRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

fn to_row(tenant: &TenantRecord) -> Model {
    let TenantRecord {
        id,
        name,
        created_at,
    } = tenant;
    Model {
        id: id.to_string(),
        name: name.to_string(),
        created_at: created_at.as_ms(),
    }
}

fn from_row(row: Model) -> Result<TenantRecord> {
    let Model {
        id,
        name,
        created_at,
    } = row;
    let row = Row {
        table: "tenants",
        key: &id.clone(),
    };
    Ok(TenantRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
