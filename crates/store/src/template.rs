//! Presets a user starts from.

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QuerySelect as _,
};
use vimana_model::name::{FlavorName, ImageName, TemplateName, UserName};
use vimana_model::template::TemplateInput;
use vimana_model::user_data::UserData;
use vimana_model::{TemplateId, TenantId, Timestamp};

use crate::column::Row;
use crate::entity::template::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRecord {
    pub id: TemplateId,
    /// Absent where it is for all.
    pub tenant_id: Option<TenantId>,
    pub owner_name: UserName,
    pub name: TemplateName,
    pub description: String,
    pub image: Option<ImageName>,
    pub flavor: Option<FlavorName>,
    pub user_data: Option<UserData>,
    pub inputs: Vec<TemplateInput>,
    pub generation: u64,
    pub created_at: Timestamp,
}

const NAME: &str = "template name";

/// # Errors
/// `Duplicate` "template name" where another template of the tenant, or another
/// one for all, has it.
pub async fn insert(tx: &WriteTx, template: &TemplateRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(template)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: TemplateId) -> Result<Option<TemplateRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: TemplateId) -> Result<Option<TemplateRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// What a tenant means by a name: its own template, or else one for all.
pub async fn find_by_name(
    conn: &impl Conn,
    tenant: TenantId,
    name: &TemplateName,
) -> Result<Option<TemplateRecord>> {
    let found = Entity::find()
        .filter(Column::Name.eq(name.as_str()))
        .filter(seen_by(tenant));
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    // Its own comes before the one for all.
    Ok(found
        .into_iter()
        .max_by_key(|template| template.tenant_id.is_some()))
}

/// All that a tenant sees, by name.
pub async fn list(conn: &impl Conn, tenant: TenantId) -> Result<Vec<TemplateRecord>> {
    let found = Entity::find().filter(seen_by(tenant));
    let mut templates = query::all(found.all(conn.raw()).await?, from_row)?;
    // Here and not there: PostgreSQL sorts names by its locale.
    templates.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(templates)
}

/// How many a tenant has of its own; without a tenant, how many are for all.
pub async fn count(conn: &impl Conn, tenant: Option<TenantId>) -> Result<u64> {
    let of = match tenant {
        Some(tenant) => Column::TenantId.eq(tenant.to_string()),
        None => Column::TenantId.is_null(),
    };
    Ok(Entity::find().filter(of).count(conn.raw()).await?)
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `template`.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile,
/// `Duplicate` "template name"; `template` is unchanged then.
pub async fn update(tx: &WriteTx, template: &mut TemplateRecord) -> Result<()> {
    let row = to_row(template)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, NAME).await?;
    template.generation = template.generation.saturating_add(1);
    Ok(())
}

pub async fn delete(tx: &WriteTx, id: TemplateId) -> Result<()> {
    Entity::delete_by_id(id.to_string()).exec(tx.raw()).await?;
    Ok(())
}

fn seen_by(tenant: TenantId) -> Condition {
    Condition::any()
        .add(Column::TenantId.is_null())
        .add(Column::TenantId.eq(tenant.to_string()))
}

fn to_row(template: &TemplateRecord) -> Result<Model> {
    let TemplateRecord {
        id,
        tenant_id,
        owner_name,
        name,
        description,
        image,
        flavor,
        user_data,
        inputs,
        generation,
        created_at,
    } = template;
    let id = id.to_string();
    let row = Row {
        table: "templates",
        key: &id,
    };
    Ok(Model {
        tenant_id: tenant_id.map(|id| id.to_string()),
        owner_name: owner_name.to_string(),
        name: name.to_string(),
        description: description.clone(),
        image_name: image.as_ref().map(ToString::to_string),
        flavor_name: flavor.as_ref().map(ToString::to_string),
        user_data: user_data.as_ref().map(|data| data.as_str().to_owned()),
        inputs: row.to_json("inputs", inputs)?,
        generation: row.to_amount("generation", *generation)?,
        created_at: created_at.as_ms(),
        id: id.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<TemplateRecord> {
    let Model {
        id,
        tenant_id,
        owner_name,
        name,
        description,
        image_name,
        flavor_name,
        user_data,
        inputs,
        generation,
        created_at,
    } = row;
    let row = Row {
        table: "templates",
        key: &id.clone(),
    };
    Ok(TemplateRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse_option("tenant_id", tenant_id)?,
        owner_name: row.parse("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        description,
        image: row.parse_option("image_name", image_name)?,
        flavor: row.parse_option("flavor_name", flavor_name)?,
        user_data: row.parse_option("user_data", user_data)?,
        inputs: row.json("inputs", &inputs)?,
        generation: row.amount("generation", generation)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
