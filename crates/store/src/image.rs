//! Bootable read-only content.

use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use vimana_model::image::ImageFormat;
use vimana_model::name::ImageName;
use vimana_model::unit::MiB;
use vimana_model::{ImageId, Timestamp};

use crate::column::Row;
use crate::entity::image::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    pub id: ImageId,
    pub name: ImageName,
    pub format: ImageFormat,
    /// Bytes as stored.
    pub size_bytes: u64,
    /// Size of the disk a guest sees.
    pub virtual_mib: MiB,
    /// Hexadecimal SHA-256 of the stored bytes.
    pub sha256: String,
    pub created_at: Timestamp,
}

/// # Errors
/// `Duplicate` "image name".
pub async fn insert(tx: &WriteTx, image: &ImageRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(image)?, "image name").await
}

pub async fn find(conn: &impl Conn, id: ImageId) -> Result<Option<ImageRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

pub async fn find_by_name(conn: &impl Conn, name: &ImageName) -> Result<Option<ImageRecord>> {
    let found = Entity::find().filter(Column::Name.eq(name.as_str()));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// All, by name.
pub async fn list(conn: &impl Conn) -> Result<Vec<ImageRecord>> {
    let mut images = query::all(Entity::find().all(conn.raw()).await?, from_row)?;
    // Here and not there: PostgreSQL sorts names by its locale.
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// Whether there was one.
pub async fn delete(tx: &WriteTx, id: ImageId) -> Result<bool> {
    let delete = Entity::delete_by_id(id.to_string());
    Ok(delete.exec(tx.raw()).await?.rows_affected > 0)
}

fn to_row(image: &ImageRecord) -> Result<Model> {
    let ImageRecord {
        id,
        name,
        format,
        size_bytes,
        virtual_mib,
        sha256,
        created_at,
    } = image;
    let id = id.to_string();
    let row = Row {
        table: "images",
        key: &id,
    };
    let format = row.to_slug("format", format)?;
    let size_bytes = row.to_amount("size_bytes", *size_bytes)?;
    let virtual_mib = row.to_amount("virtual_mib", virtual_mib.0)?;
    Ok(Model {
        id,
        name: name.to_string(),
        format,
        size_bytes,
        virtual_mib,
        sha256: sha256.clone(),
        created_at: created_at.as_ms(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<ImageRecord> {
    let Model {
        id,
        name,
        format,
        size_bytes,
        virtual_mib,
        sha256,
        created_at,
    } = row;
    let row = Row {
        table: "images",
        key: &id.clone(),
    };
    Ok(ImageRecord {
        id: row.parse("id", id)?,
        name: row.parse("name", name)?,
        format: row.slug("format", format)?,
        size_bytes: row.amount("size_bytes", size_bytes)?,
        virtual_mib: MiB(row.amount("virtual_mib", virtual_mib)?),
        sha256,
        created_at: Timestamp::from_ms(created_at),
    })
}
