//! Facts that happened, in one gapless sequence.

use sea_orm::sea_query::{Expr, ExprTrait as _, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::{HostId, ImageId, RequestId, TenantId, Timestamp, VmId, VolumeId};

use crate::column::Row;
use crate::entity::event::{Column, Entity, Model};
use crate::entity::event_counter;
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

/// A fact without its place in the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Timestamp,
    pub actor: Actor,
    pub tenant_id: Option<TenantId>,
    pub vm_id: Option<VmId>,
    pub host_id: Option<HostId>,
    pub request_id: Option<RequestId>,
    pub image_id: Option<ImageId>,
    pub volume_id: Option<VolumeId>,
    pub event: EventKind,
}

/// A fact and the tenant that may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    pub view: EventView,
    pub tenant_id: Option<TenantId>,
}

/// Puts facts at the end of the sequence, in the given order, and says the
/// last number.
///
/// Call it last in a transaction: from here to its end, others that append
/// wait. For that wait the sequence has no gaps and grows in the order of the
/// commits, so a reader who saw number n never later finds a smaller one new.
pub async fn append(tx: &WriteTx, events: &[NewEvent]) -> Result<u64> {
    if events.is_empty() {
        return last_seq(tx).await;
    }
    let counter = Row {
        table: "event_counter",
        key: "1",
    };
    let added = counter.to_amount("seq", events.len())?;
    let rows = event_counter::Entity::update_many()
        .col_expr(
            event_counter::Column::Seq,
            Expr::col(event_counter::Column::Seq).add(added),
        )
        .exec_with_returning(tx.raw())
        .await?;
    let last = rows.first().ok_or_else(|| counter.corrupt("id"))?.seq;
    let before = last.saturating_sub(added);
    let mut rows = Vec::with_capacity(events.len());
    for (event, seq) in events.iter().zip(before.saturating_add(1)..) {
        rows.push(to_row(event, seq)?.into_active_model());
    }
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(CHUNK));
        Entity::insert_many(rows)
            .exec_without_returning(tx.raw())
            .await?;
        rows = rest;
    }
    counter.amount("seq", last)
}

/// The latest `limit` facts about a VM, oldest of them first.
pub async fn for_vm(conn: &impl Conn, id: VmId, limit: u32) -> Result<Vec<EventView>> {
    latest(conn, Column::VmId.eq(id.to_string()), limit).await
}

/// The latest `limit` facts about a host itself, oldest of them first.
pub async fn for_host(conn: &impl Conn, id: HostId, limit: u32) -> Result<Vec<EventView>> {
    let about = Column::HostId
        .eq(id.to_string())
        .and(Column::VmId.is_null());
    latest(conn, about, limit).await
}

/// The latest `limit` facts about an image, oldest of them first.
pub async fn for_image(conn: &impl Conn, id: ImageId, limit: u32) -> Result<Vec<EventView>> {
    latest(conn, Column::ImageId.eq(id.to_string()), limit).await
}

/// The latest `limit` facts about a volume, oldest of them first.
pub async fn for_volume(conn: &impl Conn, id: VolumeId, limit: u32) -> Result<Vec<EventView>> {
    latest(conn, Column::VolumeId.eq(id.to_string()), limit).await
}

/// The latest `limit` facts about a request, oldest of them first.
pub async fn for_request(conn: &impl Conn, id: RequestId, limit: u32) -> Result<Vec<EventView>> {
    latest(conn, Column::RequestId.eq(id.to_string()), limit).await
}

async fn latest(conn: &impl Conn, about: SimpleExpr, limit: u32) -> Result<Vec<EventView>> {
    let rows = Entity::find()
        .filter(about)
        .order_by_desc(Column::Seq)
        .limit(u64::from(limit))
        .all(conn.raw())
        .await?;
    let newest_first = rows.into_iter().rev();
    newest_first
        .map(|row| from_row(row).map(|event| event.view))
        .collect()
}

/// The first `limit` facts after number `seq`, in order.
pub async fn after(conn: &impl Conn, seq: u64, limit: u32) -> Result<Vec<EventRecord>> {
    let Ok(seq) = i64::try_from(seq) else {
        return Ok(Vec::new());
    };
    let rows = Entity::find()
        .filter(Column::Seq.gt(seq))
        .order_by_asc(Column::Seq)
        .limit(u64::from(limit))
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// The number of the latest fact; 0 before the first.
pub async fn last_seq(conn: &impl Conn) -> Result<u64> {
    let row = Row {
        table: "event_counter",
        key: "1",
    };
    let found = event_counter::Entity::find().one(conn.raw()).await?;
    row.amount("seq", found.ok_or_else(|| row.corrupt("id"))?.seq)
}

fn to_row(event: &NewEvent, seq: i64) -> Result<Model> {
    let NewEvent {
        at,
        actor,
        tenant_id,
        vm_id,
        host_id,
        request_id,
        image_id,
        volume_id,
        event,
    } = event;
    let row = Row {
        table: "events",
        key: &seq.to_string(),
    };
    Ok(Model {
        seq,
        at: at.as_ms(),
        actor: row.to_json("actor", actor)?,
        tenant_id: tenant_id.map(|id| id.to_string()),
        vm_id: vm_id.map(|id| id.to_string()),
        host_id: host_id.map(|id| id.to_string()),
        event: row.to_json("event", event)?,
        request_id: request_id.map(|id| id.to_string()),
        image_id: image_id.map(|id| id.to_string()),
        volume_id: volume_id.map(|id| id.to_string()),
    })
}

pub(crate) fn from_row(row: Model) -> Result<EventRecord> {
    let Model {
        seq,
        at,
        actor,
        tenant_id,
        vm_id,
        host_id,
        event,
        request_id,
        image_id,
        volume_id,
    } = row;
    let row = Row {
        table: "events",
        key: &seq.to_string(),
    };
    let view = EventView {
        seq: row.amount("seq", seq)?,
        at: Timestamp::from_ms(at),
        actor: row.json("actor", &actor)?,
        vm_id: row.parse_option("vm_id", vm_id)?,
        host_id: row.parse_option("host_id", host_id)?,
        request_id: row.parse_option("request_id", request_id)?,
        image_id: row.parse_option("image_id", image_id)?,
        volume_id: row.parse_option("volume_id", volume_id)?,
        event: row.json("event", &event)?,
    };
    Ok(EventRecord {
        view,
        tenant_id: row.parse_option("tenant_id", tenant_id)?,
    })
}
