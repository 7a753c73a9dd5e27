//! Machines that hosts hold and that are not recorded there.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use vimana_model::{HostId, Timestamp, VmId};

use crate::column::Row;
use crate::entity::host;
use crate::entity::orphan::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrphanRecord {
    pub host_id: HostId,
    pub vm_id: VmId,
    pub run_epoch: u64,
    /// What the host says of it, for people.
    pub power: String,
    /// Someone asked for its removal.
    pub discarding: bool,
    pub first_seen_at: Timestamp,
}

/// # Errors
/// `Duplicate` "orphan".
pub async fn insert(tx: &WriteTx, orphan: &OrphanRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(orphan)?, "orphan").await?;
    count(tx, orphan.host_id, 1).await
}

/// Whether it was there.
pub async fn delete(tx: &WriteTx, host_id: HostId, vm_id: VmId) -> Result<bool> {
    let gone = Entity::delete_by_id((host_id.to_string(), vm_id.to_string()));
    if gone.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(false);
    }
    count(tx, host_id, -1).await?;
    Ok(true)
}

/// Whether it is there.
pub async fn set_discarding(tx: &WriteTx, host_id: HostId, vm_id: VmId) -> Result<bool> {
    let update = Entity::update_many()
        .col_expr(Column::Discarding, Expr::value(true))
        .filter(Column::HostId.eq(host_id.to_string()))
        .filter(Column::VmId.eq(vm_id.to_string()));
    Ok(update.exec(tx.raw()).await?.rows_affected > 0)
}

/// Those of one host, the oldest first.
pub async fn on_host(conn: &impl Conn, host_id: HostId) -> Result<Vec<OrphanRecord>> {
    let rows = Entity::find()
        .filter(Column::HostId.eq(host_id.to_string()))
        .order_by_asc(Column::FirstSeenAt)
        .order_by_asc(Column::VmId)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

async fn count(tx: &WriteTx, host_id: HostId, by: i64) -> Result<()> {
    host::Entity::update_many()
        .col_expr(
            host::Column::Orphans,
            Expr::col(host::Column::Orphans).add(by),
        )
        .filter(host::Column::Id.eq(host_id.to_string()))
        .exec(tx.raw())
        .await?;
    Ok(())
}

fn to_row(orphan: &OrphanRecord) -> Result<Model> {
    let OrphanRecord {
        host_id,
        vm_id,
        run_epoch,
        power,
        discarding,
        first_seen_at,
    } = orphan;
    let vm_id = vm_id.to_string();
    let row = Row {
        table: "orphans",
        key: &vm_id,
    };
    Ok(Model {
        host_id: host_id.to_string(),
        run_epoch: row.to_amount("run_epoch", *run_epoch)?,
        power: power.clone(),
        discarding: *discarding,
        first_seen_at: first_seen_at.as_ms(),
        vm_id,
    })
}

pub(crate) fn from_row(row: Model) -> Result<OrphanRecord> {
    let Model {
        host_id,
        vm_id,
        run_epoch,
        power,
        discarding,
        first_seen_at,
    } = row;
    let row = Row {
        table: "orphans",
        key: &vm_id.clone(),
    };
    Ok(OrphanRecord {
        host_id: row.parse("host_id", host_id)?,
        vm_id: row.parse("vm_id", vm_id)?,
        run_epoch: row.amount("run_epoch", run_epoch)?,
        power,
        discarding,
        first_seen_at: Timestamp::from_ms(first_seen_at),
    })
}
