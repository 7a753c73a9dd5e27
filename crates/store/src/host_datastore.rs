//! Places for volumes that hosts have besides their own directories.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{DatastoreId, HostId};

use crate::claim::Taken;
use crate::column::Row;
use crate::entity::host_datastore::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, StoreError, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDatastoreRecord {
    pub host_id: HostId,
    pub name: DatastoreName,
    pub id: DatastoreId,
    pub capacity: MiB,
    /// Sum of what disks hold there; only [`change`] and [`hand_over`] write it.
    pub used: MiB,
    /// The same of all hosts that reach it; kept by nobody.
    pub used_by_all: MiB,
    /// Its host has named it when it connected last.
    pub present: bool,
}

/// Writes a new one, or all but `used` of one that is known.
pub async fn put(tx: &WriteTx, datastore: &HostDatastoreRecord) -> Result<()> {
    let row = to_row(datastore)?;
    let updated = Entity::update_many()
        .col_expr(Column::DatastoreId, Expr::value(row.datastore_id.clone()))
        .col_expr(Column::CapMib, Expr::value(row.cap_mib))
        .col_expr(Column::Present, Expr::value(row.present))
        .filter(Column::HostId.eq(row.host_id.as_str()))
        .filter(Column::Name.eq(row.name.as_str()))
        .exec(tx.raw())
        .await?;
    if updated.rows_affected == 0 {
        let row = row.into_active_model();
        Entity::insert(row).exec_without_returning(tx.raw()).await?;
    }
    Ok(())
}

/// Of one host, by name.
pub async fn for_host(conn: &impl Conn, host_id: HostId) -> Result<Vec<HostDatastoreRecord>> {
    for_hosts(conn, &[host_id]).await
}

/// Of those hosts, by host and name.
pub async fn for_hosts(conn: &impl Conn, hosts: &[HostId]) -> Result<Vec<HostDatastoreRecord>> {
    let mut rows = Vec::new();
    for chunk in hosts.chunks(CHUNK) {
        let chunk = chunk.iter().map(HostId::to_string);
        let found = Entity::find().filter(Column::HostId.is_in(chunk));
        rows.extend(found.all(conn.raw()).await?);
    }
    let mut found = sorted(rows)?;
    let ids: BTreeSet<DatastoreId> = found.iter().map(|one| one.id).collect();
    let ids: Vec<DatastoreId> = ids.into_iter().collect();
    let mut sharing = Vec::new();
    for chunk in ids.chunks(CHUNK) {
        let chunk = chunk.iter().map(DatastoreId::to_string);
        let rows = Entity::find().filter(Column::DatastoreId.is_in(chunk));
        sharing.extend(rows.all(conn.raw()).await?);
    }
    sum_up(&mut found, &sorted(sharing)?);
    Ok(found)
}

/// Of all hosts, by host and name.
pub async fn list(conn: &impl Conn) -> Result<Vec<HostDatastoreRecord>> {
    let found = Entity::find().order_by_asc(Column::HostId);
    let mut found = sorted(found.all(conn.raw()).await?)?;
    let all = found.clone();
    sum_up(&mut found, &all);
    Ok(found)
}

/// What all that reach them hold of each.
fn sum_up(found: &mut [HostDatastoreRecord], all: &[HostDatastoreRecord]) {
    let mut sums: BTreeMap<DatastoreId, u64> = BTreeMap::new();
    for one in all {
        let sum = sums.entry(one.id).or_default();
        *sum = sum.saturating_add(one.used.0);
    }
    for one in found {
        one.used_by_all = MiB(sums.get(&one.id).copied().unwrap_or_default());
    }
}

/// Changes what disks hold of a host's datastore, from one size to another;
/// what grows must have room there, beside what those of all hosts hold
/// that reach it. [`Taken::NoRoom`] also where the host has no such datastore.
pub async fn change(
    tx: &WriteTx,
    host_id: HostId,
    name: &DatastoreName,
    from: MiB,
    to: MiB,
) -> Result<Taken> {
    let key = format!("{host_id} {name}");
    let row = Row {
        table: "host_datastores",
        key: &key,
    };
    let from = row.to_amount("used_mib", from.0)?;
    let more = row.to_amount("used_mib", to.0)?.saturating_sub(from);
    // What shrinks always fits.
    if more > 0 {
        let found = Entity::find_by_id((host_id.to_string(), name.to_string()));
        let found = found.one(tx.raw()).await?;
        let Some(found) = found.filter(|found| found.present) else {
            return Ok(Taken::NoRoom);
        };
        // Whoever claims of it, of whichever host, waits or comes again.
        let all = Entity::find()
            .filter(Column::DatastoreId.eq(found.datastore_id))
            .order_by_asc(Column::HostId)
            .lock_exclusive();
        let all = all.all(tx.raw()).await?;
        let used = all
            .iter()
            .map(|row| row.used_mib)
            .fold(0, i64::saturating_add);
        if more > found.cap_mib.saturating_sub(used) {
            return Ok(Taken::NoRoom);
        }
    }
    let update = Entity::update_many()
        .col_expr(Column::UsedMib, Expr::col(Column::UsedMib).add(more))
        .filter(Column::HostId.eq(host_id.to_string()))
        .filter(Column::Name.eq(name.as_str()));
    if update.exec(tx.raw()).await?.rows_affected == 0 {
        return Ok(Taken::NoRoom);
    }
    Ok(Taken::Ok)
}

/// What one host's disks held of a datastore that both reach is the other one's:
/// of the datastore itself, nothing changes.
///
/// # Errors
/// `Conflict` where either does not reach it.
pub async fn hand_over(
    tx: &WriteTx,
    name: &DatastoreName,
    from: HostId,
    to: HostId,
    amount: MiB,
) -> Result<()> {
    let key = format!("{from} {name}");
    let row = Row {
        table: "host_datastores",
        key: &key,
    };
    let amount = row.to_amount("used_mib", amount.0)?;
    let mut both = [(from, -amount), (to, amount)];
    // In an order of its own, so that of two nobody waits for the other.
    both.sort_by_key(|(host, _)| *host);
    for (host, more) in both {
        let update = Entity::update_many()
            .col_expr(Column::UsedMib, Expr::col(Column::UsedMib).add(more))
            .filter(Column::HostId.eq(host.to_string()))
            .filter(Column::Name.eq(name.as_str()));
        if update.exec(tx.raw()).await?.rows_affected == 0 {
            return Err(StoreError::Conflict);
        }
    }
    Ok(())
}

/// Here and not there: PostgreSQL sorts names by its locale.
fn sorted(rows: Vec<Model>) -> Result<Vec<HostDatastoreRecord>> {
    let mut found = query::all(rows, from_row)?;
    found.sort_by(|a, b| (a.host_id, &a.name).cmp(&(b.host_id, &b.name)));
    Ok(found)
}

fn to_row(datastore: &HostDatastoreRecord) -> Result<Model> {
    let HostDatastoreRecord {
        host_id,
        name,
        id,
        capacity,
        used,
        used_by_all: _,
        present,
    } = datastore;
    let key = format!("{host_id} {name}");
    let row = Row {
        table: "host_datastores",
        key: &key,
    };
    Ok(Model {
        host_id: host_id.to_string(),
        name: name.to_string(),
        datastore_id: id.to_string(),
        cap_mib: row.to_amount("cap_mib", capacity.0)?,
        used_mib: row.to_amount("used_mib", used.0)?,
        present: *present,
    })
}

pub(crate) fn from_row(row: Model) -> Result<HostDatastoreRecord> {
    let Model {
        host_id,
        name,
        datastore_id,
        cap_mib,
        used_mib,
        present,
    } = row;
    let key = format!("{host_id} {name}");
    let row = Row {
        table: "host_datastores",
        key: &key,
    };
    Ok(HostDatastoreRecord {
        host_id: row.parse("host_id", host_id)?,
        name: row.parse("name", name)?,
        id: row.parse("datastore_id", datastore_id)?,
        capacity: MiB(row.amount("cap_mib", cap_mib)?),
        used: MiB(row.amount("used_mib", used_mib)?),
        used_by_all: MiB(0),
        present,
    })
}
