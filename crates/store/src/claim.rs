//! What VMs hold of hosts.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    UpdateMany,
};
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{HostId, VmId};

use crate::column::Row;
use crate::entity::claim::{Column, Entity, Model};
use crate::entity::host;
use crate::store::Raw as _;
use crate::{Conn, Result, StoreError, WriteTx, host_datastore, query};

/// What one VM holds of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRecord {
    pub vm_id: VmId,
    pub host_id: HostId,
    pub resources: Resources,
    /// The one of the host that the disk among them is in: its own directory, or a
    /// further one that has sums of its own.
    pub datastore: DatastoreName,
}

impl ClaimRecord {
    /// What is held of the host itself, and what of its further datastore.
    fn parts(&self) -> (Resources, MiB) {
        if self.datastore.is_local() {
            return (self.resources, MiB(0));
        }
        let own = Resources {
            disk_mib: MiB(0),
            ..self.resources
        };
        (own, self.resources.disk_mib)
    }
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
/// beside it; and the same of the datastore. [`Taken::NoRoom`] also when there is
/// no such host, or it has no such datastore.
///
/// # Errors
/// `Duplicate` "claim" when the VM holds one already, there or elsewhere; the
/// transaction must then be rolled back, for the sums have grown.
pub async fn take(tx: &WriteTx, claim: &ClaimRecord) -> Result<Taken> {
    match grow(tx, claim).await? {
        Taken::Ok => {}
        Taken::NoRoom => return Ok(Taken::NoRoom),
    }
    enter(tx, claim).await?;
    Ok(Taken::Ok)
}

/// Records that as what the VM holds; the sums stay as they are.
pub(crate) async fn enter(tx: &WriteTx, claim: &ClaimRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(claim)?, "claim").await
}

/// Puts another claim in the place of what the VM has. The sums stay as they are:
/// each is somebody's already.
///
/// # Errors
/// `Conflict` where the VM holds nothing.
pub(crate) async fn replace(tx: &WriteTx, claim: &ClaimRecord) -> Result<()> {
    let row = to_row(claim)?;
    let updated = Entity::update_many()
        .col_expr(Column::HostId, Expr::value(row.host_id))
        .col_expr(Column::Vcpus, Expr::value(row.vcpus))
        .col_expr(Column::MemoryMib, Expr::value(row.memory_mib))
        .col_expr(Column::DiskMib, Expr::value(row.disk_mib))
        .col_expr(Column::Datastore, Expr::value(row.datastore))
        .filter(Column::VmId.eq(row.vm_id))
        .exec(tx.raw())
        .await?;
    if updated.rows_affected == 0 {
        return Err(StoreError::Conflict);
    }
    Ok(())
}

/// The sums of [`take`], for whoever records elsewhere what they are for.
pub(crate) async fn grow(tx: &WriteTx, claim: &ClaimRecord) -> Result<Taken> {
    let (own, elsewhere) = claim.parts();
    let (host_id, datastore) = (claim.host_id, &claim.datastore);
    if elsewhere > MiB(0) {
        match host_datastore::change(tx, host_id, datastore, MiB(0), elsewhere).await? {
            Taken::Ok => {}
            Taken::NoRoom => return Ok(Taken::NoRoom),
        }
    }
    let grown = grow_host(tx, host_id, own).await?;
    if grown == Taken::NoRoom && elsewhere > MiB(0) {
        // What shrinks always fits.
        let _back = host_datastore::change(tx, host_id, datastore, elsewhere, MiB(0)).await?;
    }
    Ok(grown)
}

/// Gives that back.
pub(crate) async fn shrink(tx: &WriteTx, claim: &ClaimRecord) -> Result<()> {
    let (own, elsewhere) = claim.parts();
    if elsewhere > MiB(0) {
        let (host_id, datastore) = (claim.host_id, &claim.datastore);
        let _back = host_datastore::change(tx, host_id, datastore, elsewhere, MiB(0)).await?;
    }
    changed(claim.host_id, Change::GiveBack, own)?
        .col_expr(host::Column::Vms, Expr::col(host::Column::Vms).sub(1_i64))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// The conditional update of a host's sums.
async fn grow_host(tx: &WriteTx, host_id: HostId, more: Resources) -> Result<Taken> {
    let [vcpus, memory_mib, disk_mib] = amounts(host_id, more)?;
    // `n <= cap - used` cannot overflow, `used + n <= cap` could.
    let room = |used: host::Column, cap: host::Column, n: i64| {
        Expr::value(n).lte(Expr::col(cap).sub(Expr::col(used)))
    };
    let update = changed(host_id, Change::Take, more)?
        .col_expr(host::Column::Vms, Expr::col(host::Column::Vms).add(1_i64))
        .filter(room(host::Column::UsedVcpus, host::Column::CapVcpus, vcpus))
        .filter(room(
            host::Column::UsedMemoryMib,
            host::Column::CapMemoryMib,
            memory_mib,
        ))
        .filter(room(
            host::Column::UsedDiskMib,
            host::Column::CapDiskMib,
            disk_mib,
        ));
    if update.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(Taken::NoRoom);
    }
    Ok(Taken::Ok)
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
    let claim = from_row(row)?;
    shrink(tx, &claim).await?;
    Ok(Some(claim))
}

/// Changes what the VM holds on its host to `resources`. What grows must have
/// room, by one conditional update each of host and datastore; [`Taken::NoRoom`]
/// leaves everything as it was, also when the VM holds nothing. Doing it twice
/// changes nothing.
///
/// # Errors
/// The database's.
pub async fn change(tx: &WriteTx, vm_id: VmId, resources: Resources) -> Result<Taken> {
    let found = Entity::find_by_id(vm_id.to_string()).lock_exclusive();
    let Some(row) = found.one(tx.raw()).await? else {
        return Ok(Taken::NoRoom);
    };
    let before = from_row(row)?;
    let wanted = ClaimRecord {
        resources,
        ..before.clone()
    };
    let (host_id, datastore) = (before.host_id, &before.datastore);
    let ((own, elsewhere), (wanted_own, wanted_elsewhere)) = (before.parts(), wanted.parts());
    if elsewhere != wanted_elsewhere {
        let changed =
            host_datastore::change(tx, host_id, datastore, elsewhere, wanted_elsewhere).await?;
        match changed {
            Taken::Ok => {}
            Taken::NoRoom => return Ok(Taken::NoRoom),
        }
    }
    if change_host(tx, host_id, own, wanted_own).await? == Taken::NoRoom {
        // Whoever asked for more goes on without it. What it had fits.
        let _back =
            host_datastore::change(tx, host_id, datastore, wanted_elsewhere, elsewhere).await?;
        return Ok(Taken::NoRoom);
    }
    replace(tx, &wanted).await?;
    Ok(Taken::Ok)
}

/// What the VM holds of disk, it holds of that datastore of its host from now on: how
/// much that is. The sums stay as they are.
///
/// # Errors
/// `Conflict` where the VM holds nothing.
pub async fn relocate(tx: &WriteTx, vm_id: VmId, datastore: &DatastoreName) -> Result<MiB> {
    let before = find(tx, vm_id).await?.ok_or(StoreError::Conflict)?;
    let size = before.resources.disk_mib;
    let datastore = datastore.clone();
    replace(
        tx,
        &ClaimRecord {
            datastore,
            ..before
        },
    )
    .await?;
    Ok(size)
}

async fn change_host(
    tx: &WriteTx,
    host_id: HostId,
    from: Resources,
    to: Resources,
) -> Result<Taken> {
    let (from, to) = (amounts(host_id, from)?, amounts(host_id, to)?);
    let columns = [
        (host::Column::UsedVcpus, host::Column::CapVcpus),
        (host::Column::UsedMemoryMib, host::Column::CapMemoryMib),
        (host::Column::UsedDiskMib, host::Column::CapDiskMib),
    ];
    let more = from.into_iter().zip(to);
    let more = more.map(|(from, to)| to.saturating_sub(from));
    let update = host::Entity::update_many().filter(host::Column::Id.eq(host_id.to_string()));
    let update = columns
        .into_iter()
        .zip(more)
        .fold(update, |update, ((used, cap), more)| {
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

/// An update of the host's sums by those amounts.
fn changed(host_id: HostId, change: Change, by: Resources) -> Result<UpdateMany<host::Entity>> {
    let sum = |column: host::Column, n: i64| match change {
        Change::Take => Expr::col(column).add(n),
        Change::GiveBack => Expr::col(column).sub(n),
    };
    let [vcpus, memory_mib, disk_mib] = amounts(host_id, by)?;
    let amounts = [
        (host::Column::UsedVcpus, vcpus),
        (host::Column::UsedMemoryMib, memory_mib),
        (host::Column::UsedDiskMib, disk_mib),
    ];
    let update = host::Entity::update_many().filter(host::Column::Id.eq(host_id.to_string()));
    Ok(amounts.into_iter().fold(update, |update, (column, n)| {
        update.col_expr(column, sum(column, n))
    }))
}

/// As the columns have them.
fn amounts(host_id: HostId, resources: Resources) -> Result<[i64; 3]> {
    let row = Row {
        table: "claims",
        key: &host_id.to_string(),
    };
    row.to_resources(resources)
}

fn to_row(claim: &ClaimRecord) -> Result<Model> {
    let ClaimRecord {
        vm_id,
        host_id,
        resources,
        datastore,
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
        datastore: datastore.to_string(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<ClaimRecord> {
    let Model {
        vm_id,
        host_id,
        vcpus,
        memory_mib,
        disk_mib,
        datastore,
    } = row;
    let row = Row {
        table: "claims",
        key: &vm_id.clone(),
    };
    Ok(ClaimRecord {
        vm_id: row.parse("vm_id", vm_id)?,
        host_id: row.parse("host_id", host_id)?,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        datastore: row.parse("datastore", datastore)?,
    })
}
