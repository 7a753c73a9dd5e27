//! What VMs hold of hosts.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    UpdateMany,
};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, VmId};

use crate::column::Row;
use crate::entity::claim::{Column, Entity, Model};
use crate::entity::host;
use crate::store::Raw as _;
use crate::{Conn, Result, StoreError, WriteTx, query};

/// What one VM holds of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    pub vm_id: VmId,
    pub host_id: HostId,
    pub resources: Resources,
}

/// How a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    Ok,
    NoRoom,
}

/// Claims room on a host: one conditional update of the host's sums, so that
/// the sum of claims stays within the capacity at every commit, whoever claims
/// beside it. [`Taken::NoRoom`] also when there is no such host.
///
/// # Errors
/// `Duplicate` "claim" when the VM holds one already, there or elsewhere; the
/// transaction must then be rolled back, for the sums have grown.
pub async fn take(tx: &WriteTx, claim: &ClaimRecord) -> Result<Taken> {
    let row = to_row(claim)?;
    match grow(tx, &row).await? {
        Taken::Ok => {}
        Taken::NoRoom => return Ok(Taken::NoRoom),
    }
    query::insert::<Entity>(tx, row, "claim").await?;
    Ok(Taken::Ok)
}

/// The same for what a VM holds of a host that is not its own, which whoever
/// asks records elsewhere.
pub(crate) async fn grow_host(tx: &WriteTx, claim: &ClaimRecord) -> Result<Taken> {
    grow(tx, &to_row(claim)?).await
}

/// Records that as what the VM holds; the host's sums stay as they are.
pub(crate) async fn enter(tx: &WriteTx, claim: &ClaimRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(claim)?, "claim").await
}

/// Gives that back.
pub(crate) async fn shrink_host(tx: &WriteTx, claim: &ClaimRecord) -> Result<()> {
    shrink(tx, &to_row(claim)?).await
}

/// Puts another claim in the place of what the VM has, and says what that was.
/// The hosts' sums stay as they are: each is somebody's already.
///
/// # Errors
/// `Conflict` where the VM holds nothing.
pub(crate) async fn replace(tx: &WriteTx, claim: &ClaimRecord) -> Result<Resources> {
    let before = find(tx, claim.vm_id).await?;
    let before = before.ok_or(StoreError::Conflict)?;
    let row = to_row(claim)?;
    Entity::update_many()
        .col_expr(Column::HostId, Expr::value(row.host_id))
        .col_expr(Column::Vcpus, Expr::value(row.vcpus))
        .col_expr(Column::MemoryMib, Expr::value(row.memory_mib))
        .col_expr(Column::DiskMib, Expr::value(row.disk_mib))
        .filter(Column::VmId.eq(row.vm_id))
        .exec(tx.raw())
        .await?;
    Ok(before.resources)
}

/// The conditional update of a host's sums.
async fn grow(tx: &WriteTx, row: &Model) -> Result<Taken> {
    // `n <= cap - used` cannot overflow, `used + n <= cap` could.
    let room = |used: host::Column, cap: host::Column, n: i64| {
        Expr::value(n).lte(Expr::col(cap).sub(Expr::col(used)))
    };
    let update = changed(&row.host_id, Change::Take, row)
        .col_expr(host::Column::Vms, Expr::col(host::Column::Vms).add(1_i64))
        .filter(room(
            host::Column::UsedVcpus,
            host::Column::CapVcpus,
            row.vcpus,
        ))
        .filter(room(
            host::Column::UsedMemoryMib,
            host::Column::CapMemoryMib,
            row.memory_mib,
        ))
        .filter(room(
            host::Column::UsedDiskMib,
            host::Column::CapDiskMib,
            row.disk_mib,
        ));
    if update.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(Taken::NoRoom);
    }
    Ok(Taken::Ok)
}

async fn shrink(tx: &WriteTx, row: &Model) -> Result<()> {
    changed(&row.host_id, Change::GiveBack, row)
        .col_expr(host::Column::Vms, Expr::col(host::Column::Vms).sub(1_i64))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// Gives back all that the VM holds, and says what it was; `None` when it
/// holds nothing (any more).
pub async fn give_back(tx: &WriteTx, vm_id: VmId) -> Result<Option<ClaimRecord>> {
    let rows = Entity::delete_many()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .exec_with_returning(tx.raw())
        .await?;
    let Some(row) = rows.into_iter().next() else {
        return Ok(None);
    };
    shrink(tx, &row).await?;
    from_row(row).map(Some)
}

/// Changes what the VM holds on its host to `resources`. What grows must have
/// room, by one conditional update; [`Taken::NoRoom`] leaves everything as it
/// was, also when the VM holds nothing. Doing it twice changes nothing.
///
/// # Errors
/// The database's.
pub async fn change(tx: &WriteTx, vm_id: VmId, resources: Resources) -> Result<Taken> {
    let found = Entity::find_by_id(vm_id.to_string()).lock_exclusive();
    let Some(row) = found.one(tx.raw()).await? else {
        return Ok(Taken::NoRoom);
    };
    let wanted = to_row(&ClaimRecord {
        vm_id,
        host_id: from_row(row.clone())?.host_id,
        resources,
    })?;
    let amounts = [
        (
            host::Column::UsedVcpus,
            host::Column::CapVcpus,
            wanted.vcpus.saturating_sub(row.vcpus),
        ),
        (
            host::Column::UsedMemoryMib,
            host::Column::CapMemoryMib,
            wanted.memory_mib.saturating_sub(row.memory_mib),
        ),
        (
            host::Column::UsedDiskMib,
            host::Column::CapDiskMib,
            wanted.disk_mib.saturating_sub(row.disk_mib),
        ),
    ];
    let update = host::Entity::update_many().filter(host::Column::Id.eq(row.host_id.as_str()));
    let update = amounts
        .into_iter()
        .fold(update, |update, (used, cap, more)| {
            let update = update.col_expr(used, Expr::col(used).add(more));
            // What shrinks always fits, even on a host that has shrunk itself.
            if more > 0 {
                update.filter(Expr::value(more).lte(Expr::col(cap).sub(Expr::col(used))))
            } else {
                update
            }
        });
    if update.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(Taken::NoRoom);
    }
    Entity::update_many()
        .col_expr(Column::Vcpus, Expr::value(wanted.vcpus))
        .col_expr(Column::MemoryMib, Expr::value(wanted.memory_mib))
        .col_expr(Column::DiskMib, Expr::value(wanted.disk_mib))
        .filter(Column::VmId.eq(row.vm_id))
        .exec(tx.raw())
        .await?;
    Ok(Taken::Ok)
}

/// Changes what volumes hold of a host's disk, from one size to another; what
/// grows must have room. [`Taken::NoRoom`] also when there is no such host.
pub async fn change_disk(tx: &WriteTx, host_id: HostId, from: MiB, to: MiB) -> Result<Taken> {
    let key = host_id.to_string();
    let row = Row {
        table: "hosts",
        key: &key,
    };
    let from = row.to_amount("used_disk_mib", from.0)?;
    let more = row.to_amount("used_disk_mib", to.0)?.saturating_sub(from);
    let (used, cap) = (host::Column::UsedDiskMib, host::Column::CapDiskMib);
    let mut update = host::Entity::update_many()
        .col_expr(used, Expr::col(used).add(more))
        .filter(host::Column::Id.eq(key.as_str()));
    if more > 0 {
        update = update.filter(Expr::value(more).lte(Expr::col(cap).sub(Expr::col(used))));
    }
    if update.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(Taken::NoRoom);
    }
    Ok(Taken::Ok)
}

/// All, in the order of their VMs' ids.
pub async fn list(conn: &impl Conn) -> Result<Vec<ClaimRecord>> {
    let found = Entity::find().order_by_asc(Column::VmId);
    query::all(found.all(conn.raw()).await?, from_row)
}

pub async fn find(conn: &impl Conn, vm_id: VmId) -> Result<Option<ClaimRecord>> {
    let row = Entity::find_by_id(vm_id.to_string())
        .one(conn.raw())
        .await?;
    row.map(from_row).transpose()
}

#[derive(Clone, Copy)]
enum Change {
    Take,
    GiveBack,
}

/// An update of the host's sums by a claim's amounts.
fn changed(host_id: &str, change: Change, claim: &Model) -> UpdateMany<host::Entity> {
    let sum = |column: host::Column, n: i64| match change {
        Change::Take => Expr::col(column).add(n),
        Change::GiveBack => Expr::col(column).sub(n),
    };
    let amounts = [
        (host::Column::UsedVcpus, claim.vcpus),
        (host::Column::UsedMemoryMib, claim.memory_mib),
        (host::Column::UsedDiskMib, claim.disk_mib),
    ];
    let update = host::Entity::update_many().filter(host::Column::Id.eq(host_id));
    amounts.into_iter().fold(update, |update, (column, n)| {
        update.col_expr(column, sum(column, n))
    })
}

fn to_row(claim: &ClaimRecord) -> Result<Model> {
    let ClaimRecord {
        vm_id,
        host_id,
        resources,
    } = claim;
    let vm_id = vm_id.to_string();
    let row = Row {
        table: "claims",
        key: &vm_id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    Ok(Model {
        vm_id,
        host_id: host_id.to_string(),
        vcpus,
        memory_mib,
        disk_mib,
    })
}

pub(crate) fn from_row(row: Model) -> Result<ClaimRecord> {
    let Model {
        vm_id,
        host_id,
        vcpus,
        memory_mib,
        disk_mib,
    } = row;
    let row = Row {
        table: "claims",
        key: &vm_id.clone(),
    };
    Ok(ClaimRecord {
        vm_id: row.parse("vm_id", vm_id)?,
        host_id: row.parse("host_id", host_id)?,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
    })
}
