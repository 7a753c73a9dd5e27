//! What is done with VMs again and again.

use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};
use vimana_model::name::{DatastoreName, UserName};
use vimana_model::schedule::{Schedule, ScheduleKind};
use vimana_model::{TenantId, Timestamp, VmId};

use crate::column::{Row, time, to_time};
use crate::entity::schedule::{Column, Entity, Model};
use crate::entity::vm;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRecord {
    pub vm_id: VmId,
    pub kind: ScheduleKind,
    /// Who set it: what it makes is theirs.
    pub owner_name: UserName,
    pub schedule: Schedule,
    pub next_at: Timestamp,
    pub last_at: Option<Timestamp>,
    /// Why the last one did not come to be.
    pub trouble: Option<String>,
}

/// Takes the place of the VM's schedule of that kind, if it has one.
pub async fn put(tx: &WriteTx, schedule: &ScheduleRecord) -> Result<()> {
    delete(tx, schedule.vm_id, schedule.kind).await?;
    let row = to_row(schedule)?.into_active_model();
    Entity::insert(row).exec_without_returning(tx.raw()).await?;
    Ok(())
}

/// Whether there was one.
pub async fn delete(tx: &WriteTx, vm_id: VmId, kind: ScheduleKind) -> Result<bool> {
    let deleted = Entity::delete_many()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .filter(Column::Kind.eq(slug(kind)?))
        .exec(tx.raw())
        .await?;
    Ok(deleted.rows_affected > 0)
}

/// Removes all of one VM.
pub async fn delete_all(tx: &WriteTx, vm_id: VmId) -> Result<()> {
    Entity::delete_many()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .exec(tx.raw())
        .await?;
    Ok(())
}

pub async fn for_vm(conn: &impl Conn, vm_id: VmId) -> Result<Vec<ScheduleRecord>> {
    in_order(
        conn,
        Entity::find().filter(Column::VmId.eq(vm_id.to_string())),
    )
    .await
}

/// Those of a tenant's VMs, the next one first.
pub async fn for_tenant(conn: &impl Conn, tenant: TenantId) -> Result<Vec<ScheduleRecord>> {
    let vms = Query::select()
        .column(vm::Column::Id)
        .from(vm::Entity)
        .and_where(vm::Column::TenantId.eq(tenant.to_string()))
        .to_owned();
    in_order(conn, Entity::find().filter(Column::VmId.in_subquery(vms))).await
}

/// Those whose time has come, at most `most`; also those whose time is farther
/// away than it ever is: the clock was set back meanwhile.
pub async fn due(conn: &impl Conn, now: Timestamp, most: u64) -> Result<Vec<ScheduleRecord>> {
    let beyond = Expr::col(Column::EveryS).mul(1000).add(now.as_ms());
    let found = Entity::find().filter(
        Condition::any()
            .add(Column::NextAt.lte(now.as_ms()))
            .add(Expr::col(Column::NextAt).gt(beyond)),
    );
    in_order(conn, found.limit(most)).await
}

/// One server alone takes on what is due at `was`: whether it is this one.
pub async fn take(tx: &WriteTx, schedule: &ScheduleRecord, next_at: Timestamp) -> Result<bool> {
    let taken = Entity::update_many()
        .col_expr(Column::NextAt, Expr::value(next_at.as_ms()))
        .filter(Column::VmId.eq(schedule.vm_id.to_string()))
        .filter(Column::Kind.eq(slug(schedule.kind)?))
        .filter(Column::NextAt.eq(schedule.next_at.as_ms()))
        .exec(tx.raw())
        .await?;
    Ok(taken.rows_affected > 0)
}

/// What came of the last one.
pub async fn tell(
    tx: &WriteTx,
    (vm_id, kind): (VmId, ScheduleKind),
    at: Timestamp,
    trouble: Option<&str>,
) -> Result<()> {
    Entity::update_many()
        .col_expr(Column::LastAt, Expr::value(at.as_ms()))
        .col_expr(Column::Trouble, Expr::value(trouble.map(str::to_owned)))
        .filter(Column::VmId.eq(vm_id.to_string()))
        .filter(Column::Kind.eq(slug(kind)?))
        .exec(tx.raw())
        .await?;
    Ok(())
}

async fn in_order(conn: &impl Conn, found: Select<Entity>) -> Result<Vec<ScheduleRecord>> {
    let rows = found
        .order_by_asc(Column::NextAt)
        .order_by_asc(Column::VmId)
        .order_by_asc(Column::Kind)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

fn slug(kind: ScheduleKind) -> Result<String> {
    let row = Row {
        table: "schedules",
        key: "",
    };
    row.to_slug("kind", &kind)
}

fn to_row(schedule: &ScheduleRecord) -> Result<Model> {
    let ScheduleRecord {
        vm_id,
        kind,
        owner_name,
        schedule,
        next_at,
        last_at,
        trouble,
    } = schedule;
    let key = vm_id.to_string();
    let row = Row {
        table: "schedules",
        key: &key,
    };
    Ok(Model {
        vm_id: key.clone(),
        kind: slug(*kind)?,
        owner_name: owner_name.to_string(),
        every_s: row.to_amount("every_s", schedule.every_s)?,
        keep: i64::from(schedule.keep),
        full_every: i64::from(schedule.full_every),
        datastore: schedule.datastore.as_ref().map(DatastoreName::to_string),
        next_at: next_at.as_ms(),
        last_at: to_time(*last_at),
        trouble: trouble.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<ScheduleRecord> {
    let Model {
        vm_id,
        kind,
        owner_name,
        every_s,
        keep,
        full_every,
        datastore,
        next_at,
        last_at,
        trouble,
    } = row;
    let row = Row {
        table: "schedules",
        key: &vm_id.clone(),
    };
    Ok(ScheduleRecord {
        vm_id: row.parse("vm_id", vm_id)?,
        kind: row.slug("kind", kind)?,
        owner_name: row.parse("owner_name", owner_name)?,
        schedule: Schedule {
            every_s: row.amount("every_s", every_s)?,
            keep: row.amount("keep", keep)?,
            full_every: row.amount("full_every", full_every)?,
            datastore: row.parse_option("datastore", datastore)?,
        },
        next_at: Timestamp::from_ms(next_at),
        last_at: time(last_at),
        trouble,
    })
}
