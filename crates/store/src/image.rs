//! Bootable read-only content.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use serde::{Deserialize, Serialize};
use vimana_model::image::{
    Fetched, ImageContent, ImageFormat, ImageSource, ImageState, Origin, RefreshEvery,
};
use vimana_model::name::{ImageName, UserName};
use vimana_model::unit::MiB;
use vimana_model::{ImageId, OperationId, TenantId, Timestamp};

use crate::column::{Row, time, to_time};
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
    pub refresh: Option<ImageRefresh>,
    /// When a successor took its name.
    pub superseded_at: Option<Timestamp>,
}

impl ImageRecord {
    /// What is being brought in to take its place.
    #[must_use]
    pub fn successor(&self) -> Option<&Successor> {
        self.refresh.as_ref()?.successor.as_ref()
    }
}

/// How an image is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRefresh {
    pub every: RefreshEvery,
    /// When its source is asked next; nothing until it is imported.
    pub next_at: Option<Timestamp>,
    /// When it was last known to be what its source has.
    pub last_at: Option<Timestamp>,
    /// Why it was not, since then.
    pub failure: Option<String>,
    /// What told the source's content from another when it came.
    pub version: Option<String>,
    /// What is being brought in.
    pub successor: Option<Successor>,
}

impl ImageRefresh {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new(every: RefreshEvery) -> Self {
        Self {
            every,
            next_at: None,
            last_at: None,
            failure: None,
            version: None,
            successor: None,
        }
    }
}

/// The image that is to take another's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Successor {
    pub id: ImageId,
    /// Known once it has come.
    pub content: Option<ImageContent>,
    pub fetched: Option<Fetched>,
    pub version: Option<String>,
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

/// The tenant and the bytes of every image that has some.
pub async fn sizes(conn: &impl Conn) -> Result<Vec<(Option<TenantId>, u64)>> {
    let found = Entity::find().filter(Column::SizeBytes.is_not_null());
    let all = query::all(found.all(conn.raw()).await?, from_row)?;
    let sizes = all.into_iter().filter_map(|image| {
        let content = image.content?;
        Some((image.tenant_id, content.size_bytes))
    });
    Ok(sizes.collect())
}

/// Ready images whose source is to be asked, those first that wait for longest.
/// A clock that was set back lets nobody wait for longer than it should.
pub async fn due_for_refresh(conn: &impl Conn, now: Timestamp, limit: u64) -> Result<Vec<ImageId>> {
    let beyond = Expr::col(Column::RefreshAt)
        .sub(Expr::col(Column::RefreshSeconds).mul(1000))
        .gt(now.as_ms());
    let due = Condition::any()
        .add(Column::RefreshAt.lte(now.as_ms()))
        .add(beyond);
    let found = Entity::find()
        .filter(Column::State.eq(READY))
        .filter(due)
        .order_by_asc(Column::RefreshAt)
        .limit(limit);
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    Ok(found.into_iter().map(|image| image.id).collect())
}

/// Ready images whose name another one has taken.
pub async fn superseded(conn: &impl Conn) -> Result<Vec<ImageRecord>> {
    let found = Entity::find()
        .filter(Column::State.eq(READY))
        .filter(Column::SupersededAt.is_not_null());
    query::all(found.all(conn.raw()).await?, from_row)
}

/// The images that are being brought in to take another's place.
pub async fn successors(conn: &impl Conn) -> Result<Vec<ImageId>> {
    let found = Entity::find().filter(Column::Successor.is_not_null());
    let found = query::all(found.all(conn.raw()).await?, from_row)?;
    let refreshed = found.into_iter().filter_map(|image| image.refresh);
    Ok(refreshed
        .filter_map(|refresh| refresh.successor)
        .map(|successor| successor.id)
        .collect())
}

const READY: &str = "ready";
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
        refresh,
        superseded_at,
    } = image;
    let refresh = refresh.as_ref();
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
        refresh_seconds: amount(
            "refresh_seconds",
            refresh.map(|refresh| refresh.every.seconds()),
        )?,
        refresh_at: to_time(refresh.and_then(|refresh| refresh.next_at)),
        refreshed_at: to_time(refresh.and_then(|refresh| refresh.last_at)),
        refresh_failure: refresh.and_then(|refresh| refresh.failure.clone()),
        source_version: refresh.and_then(|refresh| refresh.version.clone()),
        successor: row.to_json_option(
            "successor",
            refresh.and_then(|refresh| refresh.successor.as_ref()),
        )?,
        superseded_at: to_time(*superseded_at),
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
        refresh_seconds,
        refresh_at,
        refreshed_at,
        refresh_failure,
        source_version,
        successor,
        superseded_at,
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
    let nothing = (&refresh_at, &refreshed_at) == (&None, &None)
        && (&refresh_failure, &source_version, &successor) == (&None, &None, &None);
    let refresh = match refresh_seconds {
        Some(seconds) => {
            let every = RefreshEvery::new(row.amount("refresh_seconds", seconds)?);
            Some(ImageRefresh {
                every: every.map_err(|_| row.corrupt("refresh_seconds"))?,
                next_at: time(refresh_at),
                last_at: time(refreshed_at),
                failure: refresh_failure,
                version: source_version,
                successor: row.json_option("successor", successor)?,
            })
        }
        None if nothing => None,
        None => return Err(row.corrupt("refresh_seconds")),
    };
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
        refresh,
        superseded_at: time(superseded_at),
    })
}

// What begins like this is no URL of a scheme that images come from.
const UPLOAD: &str = "upload:";
const PATH: &str = "path:";
const BACKUP: &str = "backup:";
const VOLUME: &str = "volume:";

fn source_text(row: &Row<'_>, source: &ImageSource) -> Result<String> {
    Ok(match source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Upload(upload) => format!("{UPLOAD}{}", row.to_json("source", upload)?),
        ImageSource::Path(path) => format!("{PATH}{path}"),
        ImageSource::Backup(backup) => format!("{BACKUP}{}", row.to_json("source", backup)?),
        ImageSource::Volume(id) => format!("{VOLUME}{id}"),
    })
}

fn source_of(row: &Row<'_>, text: String) -> Result<ImageSource> {
    if let Some(json) = text.strip_prefix(UPLOAD) {
        return Ok(ImageSource::Upload(row.json("source", json)?));
    }
    if let Some(json) = text.strip_prefix(BACKUP) {
        return Ok(ImageSource::Backup(row.json("source", json)?));
    }
    if let Some(id) = text.strip_prefix(VOLUME) {
        return Ok(ImageSource::Volume(row.parse("source", id.to_owned())?));
    }
    Ok(match text.strip_prefix(PATH) {
        Some(path) => ImageSource::Path(path.to_owned()),
        None => ImageSource::Url(text),
    })
}
