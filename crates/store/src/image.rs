//! Bootable read-only content.

use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use vimana_model::image::{ImageContent, ImageFormat, ImageSource, ImageState, Origin};
use vimana_model::name::{ImageName, UserName};
use vimana_model::unit::MiB;
use vimana_model::{ImageId, OperationId, TenantId, Timestamp};

use crate::column::Row;
use crate::entity::image::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    pub id: ImageId,
    /// Absent where it is for all.
    pub tenant_id: Option<TenantId>,
    pub owner_name: Option<UserName>,
    pub name: ImageName,
    pub state: ImageState,
    pub state_since: Timestamp,
    pub failure: Option<String>,
    pub origin: Origin,
    /// What is needed to import it, as long as it may be needed.
    pub order: Option<ImageOrder>,
    pub content: Option<ImageContent>,
    /// The latest import.
    pub operation_id: Option<OperationId>,
    pub generation: u64,
    pub created_at: Timestamp,
}

/// How an image is to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOrder {
    pub source: ImageSource,
    /// Hexadecimal SHA-256 or SHA-512 of what is fetched.
    pub checksum: Option<String>,
    pub declared: Option<ImageFormat>,
}

const NAME: &str = "image name";

/// # Errors
/// `Duplicate` "image name" where another image of the tenant, or another one
/// for all, holds it.
pub async fn insert(tx: &WriteTx, image: &ImageRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(image)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: ImageId) -> Result<Option<ImageRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[ImageId]) -> Result<Vec<ImageRecord>> {
    let mut images = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let chunk = chunk.iter().map(ImageId::to_string);
        let found = Entity::find().filter(Column::Id.is_in(chunk));
        for row in found.all(conn.raw()).await? {
            images.push(from_row(row)?);
        }
    }
    Ok(images)
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: ImageId) -> Result<Option<ImageRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// What a tenant means by a name: its own image, or else one for all.
pub async fn find_by_name(
    conn: &impl Conn,
    tenant: Option<TenantId>,
    name: &ImageName,
) -> Result<Option<ImageRecord>> {
    let found = Entity::find()
        .filter(Column::LiveName.eq(name.as_str()))
        .filter(seen_by(tenant));
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    // Its own comes before the one for all.
    Ok(found
        .into_iter()
        .max_by_key(|image| image.tenant_id.is_some()))
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `image`.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile, `Duplicate`
/// "image name"; `image` is unchanged then.
pub async fn update(tx: &WriteTx, image: &mut ImageRecord) -> Result<()> {
    let row = to_row(image)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, NAME).await?;
    image.generation = image.generation.saturating_add(1);
    Ok(())
}

/// All that a tenant sees and that are not removed, by name; without a tenant
/// those for all.
pub async fn list(conn: &impl Conn, tenant: Option<TenantId>) -> Result<Vec<ImageRecord>> {
    let found = Entity::find()
        .filter(Column::State.ne(REMOVED))
        .filter(seen_by(tenant));
    let mut images = query::all(found.all(conn.raw()).await?, from_row)?;
    // Here and not there: PostgreSQL sorts names by its locale.
    images.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(images)
}

/// All in this state since before `since`, of every tenant.
pub async fn in_state(
    conn: &impl Conn,
    state: ImageState,
    since: Timestamp,
) -> Result<Vec<ImageRecord>> {
    let row = Row {
        table: "images",
        key: "",
    };
    let found = Entity::find()
        .filter(Column::State.eq(row.to_slug("state", &state)?))
        .filter(Column::StateSince.lte(since.as_ms()));
    query::all(found.all(conn.raw()).await?, from_row)
}

const REMOVED: &str = "removed";

fn seen_by(tenant: Option<TenantId>) -> Condition {
    let own = tenant.map(|tenant| Column::TenantId.eq(tenant.to_string()));
    Condition::any()
        .add(Column::TenantId.is_null())
        .add_option(own)
}

fn to_row(image: &ImageRecord) -> Result<Model> {
    let ImageRecord {
        id,
        tenant_id,
        owner_name,
        name,
        state,
        state_since,
        failure,
        origin,
        order,
        content,
        operation_id,
        generation,
        created_at,
    } = image;
    let id = id.to_string();
    let row = Row {
        table: "images",
        key: &id,
    };
    let slug = |column, format: Option<ImageFormat>| {
        format
            .map(|format| row.to_slug(column, &format))
            .transpose()
    };
    let amount = |column, amount: Option<u64>| {
        amount
            .map(|amount| row.to_amount(column, amount))
            .transpose()
    };
    let declared = order.as_ref().and_then(|order| order.declared);
    let content = content.as_ref();
    Ok(Model {
        tenant_id: tenant_id.map(|id| id.to_string()),
        owner_name: owner_name.as_ref().map(ToString::to_string),
        name: name.to_string(),
        live_name: state.holds_name().then(|| name.to_string()),
        state: row.to_slug("state", state)?,
        state_since: state_since.as_ms(),
        failure: failure.clone(),
        origin: row.to_json("origin", origin)?,
        source: order
            .as_ref()
            .map(|order| source_text(&row, &order.source))
            .transpose()?,
        checksum: order.as_ref().and_then(|order| order.checksum.clone()),
        declared: slug("declared", declared)?,
        format: slug("format", content.map(|content| content.format))?,
        size_bytes: amount("size_bytes", content.map(|content| content.size_bytes))?,
        virtual_mib: amount("virtual_mib", content.map(|content| content.virtual_mib.0))?,
        sha256: content.map(|content| content.sha256.clone()),
        operation_id: operation_id.map(|id| id.to_string()),
        generation: row.to_amount("generation", *generation)?,
        created_at: created_at.as_ms(),
        id: id.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<ImageRecord> {
    let Model {
        id,
        tenant_id,
        owner_name,
        name,
        live_name,
        state,
        state_since,
        failure,
        origin,
        source,
        checksum,
        declared,
        format,
        size_bytes,
        virtual_mib,
        sha256,
        operation_id,
        generation,
        created_at,
    } = row;
    let row = Row {
        table: "images",
        key: &id.clone(),
    };
    let state: ImageState = row.slug("state", state)?;
    if live_name.is_some() != state.holds_name() {
        return Err(row.corrupt("live_name"));
    }
    let order = match (source, checksum, declared) {
        (Some(source), checksum, declared) => Some(ImageOrder {
            source: source_of(&row, source)?,
            checksum,
            declared: declared
                .map(|declared| row.slug("declared", declared))
                .transpose()?,
        }),
        (None, None, None) => None,
        (None, _, _) => return Err(row.corrupt("source")),
    };
    let content = match (format, size_bytes, virtual_mib, sha256) {
        (Some(format), Some(size_bytes), Some(virtual_mib), Some(sha256)) => Some(ImageContent {
            format: row.slug("format", format)?,
            size_bytes: row.amount("size_bytes", size_bytes)?,
            virtual_mib: MiB(row.amount("virtual_mib", virtual_mib)?),
            sha256,
        }),
        (None, None, None, None) => None,
        _ => return Err(row.corrupt("format")),
    };
    if state.has_content() && content.is_none() {
        return Err(row.corrupt("format"));
    }
    Ok(ImageRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse_option("tenant_id", tenant_id)?,
        owner_name: row.parse_option("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        state,
        state_since: Timestamp::from_ms(state_since),
        failure,
        origin: row.json("origin", &origin)?,
        order,
        content,
        operation_id: row.parse_option("operation_id", operation_id)?,
        generation: row.amount("generation", generation)?,
        created_at: Timestamp::from_ms(created_at),
    })
}

// What begins like this is no URL of a scheme that images come from.
const UPLOAD: &str = "upload:";
const PATH: &str = "path:";
const VOLUME: &str = "volume:";

fn source_text(row: &Row<'_>, source: &ImageSource) -> Result<String> {
    Ok(match source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Upload(upload) => format!("{UPLOAD}{}", row.to_json("source", upload)?),
        ImageSource::Path(path) => format!("{PATH}{path}"),
        ImageSource::Volume(id) => format!("{VOLUME}{id}"),
    })
}

fn source_of(row: &Row<'_>, text: String) -> Result<ImageSource> {
    if let Some(json) = text.strip_prefix(UPLOAD) {
        return Ok(ImageSource::Upload(row.json("source", json)?));
    }
    if let Some(id) = text.strip_prefix(VOLUME) {
        return Ok(ImageSource::Volume(row.parse("source", id.to_owned())?));
    }
    Ok(match text.strip_prefix(PATH) {
        Some(path) => ImageSource::Path(path.to_owned()),
        None => ImageSource::Url(text),
    })
}
