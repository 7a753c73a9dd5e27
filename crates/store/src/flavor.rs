//! Named sizes.

use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    QueryFilter as _, QuerySelect as _,
};
use vimana_model::name::FlavorName;
use vimana_model::unit::Resources;
use vimana_model::{FlavorId, Timestamp};

use crate::column::Row;
use crate::entity::flavor::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlavorRecord {
    pub id: FlavorId,
    pub name: FlavorName,
    pub resources: Resources,
    pub created_at: Timestamp,
}

/// # Errors
/// `Duplicate` "flavor name".
pub async fn insert(tx: &WriteTx, flavor: &FlavorRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(flavor)?, "flavor name").await
}

pub async fn find_by_name(conn: &impl Conn, name: &FlavorName) -> Result<Option<FlavorRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// All, by memory, then vCPUs, then name.
pub async fn list(conn: &impl Conn) -> Result<Vec<FlavorRecord>> {
    let mut flavors = query::all(Entity::find().all(conn.raw()).await?, from_row)?;
    // Here and not there: PostgreSQL sorts names by its locale.
    flavors.sort_by(|a, b| {
        let size = |flavor: &FlavorRecord| (flavor.resources.memory_mib, flavor.resources.vcpus);
        size(a).cmp(&size(b)).then_with(|| a.name.cmp(&b.name))
    });
    Ok(flavors)
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock_by_name(tx: &WriteTx, name: &FlavorName) -> Result<Option<FlavorRecord>> {
    let found = Entity::find()
        .filter(Column::Name.eq(name.as_str()))
        .lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// Gives it another size.
pub async fn update(tx: &WriteTx, flavor: &FlavorRecord) -> Result<()> {
    let row = to_row(flavor)?.into_active_model().reset_all();
    Entity::update(row).exec(tx.raw()).await?;
    Ok(())
}

pub async fn delete(tx: &WriteTx, id: FlavorId) -> Result<()> {
    Entity::delete_by_id(id.to_string()).exec(tx.raw()).await?;
    Ok(())
}

fn to_row(flavor: &FlavorRecord) -> Result<Model> {
    let FlavorRecord {
        id,
        name,
        resources,
        created_at,
    } = flavor;
    let id = id.to_string();
    let row = Row {
        table: "flavors",
        key: &id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    Ok(Model {
        id,
        name: name.to_string(),
        vcpus,
        memory_mib,
        disk_mib,
        created_at: created_at.as_ms(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<FlavorRecord> {
    let Model {
        id,
        name,
        vcpus,
        memory_mib,
        disk_mib,
        created_at,
    } = row;
    let row = Row {
        table: "flavors",
        key: &id.clone(),
    };
    Ok(FlavorRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        created_at: Timestamp::from_ms(created_at),
    })
}
