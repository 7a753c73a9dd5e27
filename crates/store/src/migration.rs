//! VMs that go from one host to another: what they hold of the other host.
//!
//! Until a migration is committed, the other host is the one that the VM goes to;
//! from then on it is the one where the VM was. A VM has one other host at most.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::{Deserialize, Serialize};
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::HostRef;
use vimana_model::{HostId, OperationId, VmId, VolumeId};

use crate::claim::{self, ClaimRecord, Taken};
use crate::column::Row;
use crate::entity::migration::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, StoreError, WriteTx, host_datastore, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationRecord {
    pub vm_id: VmId,
    pub operation_id: OperationId,
    /// The other host.
    pub peer: HostRef,
    /// Claimed of it for the machine itself.
    pub resources: Resources,
    /// The one of the other host that the disk among them is in.
    pub datastore: DatastoreName,
    /// The VM's disks.
    pub disks: Vec<Carried>,
    /// The VM has changed its host.
    pub committed: bool,
}

/// A disk that goes with a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// None for the machine's own.
    pub volume: Option<VolumeId>,
    /// The one of the other host that it is in, or is to be in.
    pub datastore: DatastoreName,
    /// The one of the VM's own host, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<DatastoreName>,
    pub size: MiB,
    /// Of a volume: see [`crate::volume::VolumeRecord::place`].
    #[serde(default)]
    pub place: u8,
    /// Both hosts reach it where it is: it is claimed once. Where it is copied, what a
    /// volume claims is claimed of both hosts until one of them has nothing of it.
    pub shared: bool,
    /// Of a volume: what snapshots claim of its datastore beside it
    /// ([`crate::snapshot::Elsewhere`]).
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub kept: MiB,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_nothing(amount: &MiB) -> bool {
    amount.0 == 0
}

impl Carried {
    /// All that a volume claims where it is.
    #[must_use]
    pub fn claimed(&self) -> MiB {
        MiB(self.size.0.saturating_add(self.kept.0))
    }

    /// The same once the two hosts have changed places.
    fn swapped(self) -> Self {
        match self.own {
            None => self,
            Some(own) => Self {
                own: Some(self.datastore),
                datastore: own,
                ..self
            },
        }
    }
}

impl MigrationRecord {
    /// What it holds of the other host.
    fn claim(&self) -> ClaimRecord {
        ClaimRecord {
            vm_id: self.vm_id,
            host_id: self.peer.id,
            resources: self.resources,
            datastore: self.datastore.clone(),
        }
    }

    /// Whether the machine's own disk stays where it is.
    #[must_use]
    pub fn shares_root(&self) -> bool {
        let mut shared = self.disks.iter().filter(|disk| disk.shared);
        shared.any(|disk| disk.volume.is_none())
    }

    /// The volumes that either host holds a copy of.
    pub fn copied_volumes(&self) -> impl Iterator<Item = (VolumeId, &Carried)> {
        let copied = self.disks.iter().filter(|disk| !disk.shared);
        copied.filter_map(|disk| Some((disk.volume?, disk)))
    }
}

/// Claims room on the host that a VM is to go to, and records that it does.
///
/// # Errors
/// `Duplicate` "migration" where it moves already; the transaction must then be
/// rolled back, for the host's sums have grown.
pub async fn begin(tx: &WriteTx, migration: &MigrationRecord) -> Result<Taken> {
    match claim::grow(tx, &migration.claim()).await? {
        Taken::Ok => {}
        Taken::NoRoom => return Ok(Taken::NoRoom),
    }
    query::insert::<Entity>(tx, to_row(migration)?, "migration").await?;
    Ok(Taken::Ok)
}

/// The two hosts change places: what the VM holds of either stays as it is, but for
/// a disk that both reach, which is the new one's from here on. Its volumes are
/// whoever asks's to bring along.
///
/// # Errors
/// `Conflict` where the VM holds nothing, or a host does not reach its disk.
pub async fn commit(tx: &WriteTx, migration: &MigrationRecord, from: &HostRef) -> Result<()> {
    let before = claim::find(tx, migration.vm_id).await?;
    let mut before = before.ok_or(StoreError::Conflict)?;
    let mut now = migration.claim();
    if migration.shares_root() {
        let disk = std::mem::take(&mut before.resources.disk_mib);
        now.resources.disk_mib = disk;
        let (from, to) = (from.id, migration.peer.id);
        host_datastore::hand_over(tx, &migration.datastore, from, to, disk).await?;
    }
    claim::replace(tx, &now).await?;
    let after = to_row(&MigrationRecord {
        peer: from.clone(),
        resources: before.resources,
        datastore: before.datastore,
        disks: migration
            .disks
            .iter()
            .cloned()
            .map(Carried::swapped)
            .collect(),
        committed: true,
        ..migration.clone()
    })?;
    Entity::update_many()
        .col_expr(Column::HostId, Expr::value(after.host_id))
        .col_expr(Column::HostName, Expr::value(after.host_name))
        .col_expr(Column::HostZone, Expr::value(after.host_zone))
        .col_expr(Column::Vcpus, Expr::value(after.vcpus))
        .col_expr(Column::MemoryMib, Expr::value(after.memory_mib))
        .col_expr(Column::DiskMib, Expr::value(after.disk_mib))
        .col_expr(Column::Datastore, Expr::value(after.datastore))
        .col_expr(Column::Disks, Expr::value(after.disks))
        .col_expr(Column::Committed, Expr::value(true))
        .filter(Column::VmId.eq(after.vm_id))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// The VM, which had no host, has come to the other one: what it held there is its
/// own claim from now on.
///
/// # Errors
/// `Duplicate` "claim" where it has one; the transaction must then be rolled back.
pub async fn settle(tx: &WriteTx, migration: &MigrationRecord) -> Result<()> {
    claim::enter(tx, &migration.claim()).await?;
    Entity::delete_by_id(migration.vm_id.to_string())
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// Nothing of the VM is left on the other host: what it held there is given back.
///
/// # Errors
/// The database's.
pub async fn end(tx: &WriteTx, vm_id: VmId) -> Result<()> {
    let rows = Entity::delete_many()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .exec_with_returning(tx.raw())
        .await?;
    for row in rows {
        claim::shrink(tx, &from_row(row)?.claim()).await?;
    }
    Ok(())
}

pub async fn find(conn: &impl Conn, vm_id: VmId) -> Result<Option<MigrationRecord>> {
    let row = Entity::find_by_id(vm_id.to_string())
        .one(conn.raw())
        .await?;
    row.map(from_row).transpose()
}

/// All, in the order of their VMs' ids.
pub async fn list(conn: &impl Conn) -> Result<Vec<MigrationRecord>> {
    let found = Entity::find().order_by_asc(Column::VmId);
    query::all(found.all(conn.raw()).await?, from_row)
}

/// Those whose other host this is, in the order of their VMs' ids.
pub async fn on_host(conn: &impl Conn, host: HostId) -> Result<Vec<MigrationRecord>> {
    let found = Entity::find()
        .filter(Column::HostId.eq(host.to_string()))
        .order_by_asc(Column::VmId);
    query::all(found.all(conn.raw()).await?, from_row)
}

fn to_row(migration: &MigrationRecord) -> Result<Model> {
    let MigrationRecord {
        vm_id,
        operation_id,
        peer,
        resources,
        datastore,
        disks,
        committed,
    } = migration;
    let vm_id = vm_id.to_string();
    let row = Row {
        table: "migrations",
        key: &vm_id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    let disks = row.to_json("disks", disks)?;
    Ok(Model {
        vm_id,
        operation_id: operation_id.to_string(),
        host_id: peer.id.to_string(),
        host_name: peer.name.clone(),
        host_zone: peer.zone.clone(),
        vcpus,
        memory_mib,
        disk_mib,
        committed: *committed,
        datastore: datastore.to_string(),
        disks,
    })
}

pub(crate) fn from_row(row: Model) -> Result<MigrationRecord> {
    let Model {
        vm_id,
        operation_id,
        host_id,
        host_name,
        host_zone,
        vcpus,
        memory_mib,
        disk_mib,
        committed,
        datastore,
        disks,
    } = row;
    let row = Row {
        table: "migrations",
        key: &vm_id.clone(),
    };
    Ok(MigrationRecord {
        vm_id: row.parse("vm_id", vm_id)?,
        operation_id: row.parse("operation_id", operation_id)?,
        peer: HostRef {
            id: row.parse("host_id", host_id)?,
            name: host_name,
            zone: host_zone,
        },
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        datastore: row.parse("datastore", datastore)?,
        disks: row.json("disks", &disks)?,
        committed,
    })
}
