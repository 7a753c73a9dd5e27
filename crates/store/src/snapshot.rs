//! Points in time of VMs.

use std::collections::BTreeMap;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use serde::{Deserialize, Serialize};
use vimana_model::name::{DatastoreName, SnapshotName, UserName, VolumeName};
use vimana_model::snapshot::SnapshotState;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{SnapshotId, Timestamp, VmId, VolumeId};

use crate::column::Row;
use crate::entity::snapshot::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    pub id: SnapshotId,
    pub vm_id: VmId,
    /// What the VM's disks had come from.
    pub parent_id: Option<SnapshotId>,
    pub owner_name: UserName,
    pub name: SnapshotName,
    pub state: SnapshotState,
    pub memory: bool,
    /// The VM's size when it was taken.
    pub resources: Resources,
    /// Whether the root disk is in it.
    pub root: bool,
    /// Those that are in it.
    pub volumes: Vec<Held>,
    /// What it claims where the VM's own disk is.
    pub claimed: MiB,
    /// Taken by the VM's schedule.
    pub scheduled: bool,
    pub created_at: Timestamp,
}

impl SnapshotRecord {
    /// What it claims of other datastores of the host than that.
    pub fn elsewhere(&self) -> impl Iterator<Item = &Elsewhere> {
        self.volumes
            .iter()
            .filter_map(|held| held.elsewhere.as_ref())
    }

    /// The volume that it is of, and of nothing else.
    #[must_use]
    pub fn only_volume(&self) -> Option<VolumeId> {
        let mut volumes = self.volumes.iter().map(|held| held.id);
        volumes.next().filter(|_| !self.root)
    }
}

/// A volume that is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub id: VolumeId,
    pub name: VolumeName,
    /// How large it was; unknown of older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<MiB>,
    /// What it claims, where that is not of the host's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
}

/// Room in a further datastore of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    pub datastore: DatastoreName,
    pub size: MiB,
}

const NAME: &str = "snapshot name";

/// # Errors
/// `Duplicate` "snapshot name" where another snapshot of the VM has it.
pub async fn insert(tx: &WriteTx, snapshot: &SnapshotRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(snapshot)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: SnapshotId) -> Result<Option<SnapshotRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// All of one VM, the oldest first.
pub async fn for_vm(conn: &impl Conn, vm_id: VmId) -> Result<Vec<SnapshotRecord>> {
    let rows = Entity::find()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// Who may write it is decided by the generation of its VM, written in the
/// same transaction.
pub async fn set_state(tx: &WriteTx, id: SnapshotId, state: SnapshotState) -> Result<()> {
    let key = id.to_string();
    let row = Row {
        table: "snapshots",
        key: &key,
    };
    let slug = row.to_slug("state", &state)?;
    Entity::update_many()
        .col_expr(Column::State, Expr::value(slug))
        .filter(Column::Id.eq(key.as_str()))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// Removes it; what had come from it comes from its parent now.
pub async fn delete(tx: &WriteTx, snapshot: &SnapshotRecord) -> Result<()> {
    let parent = snapshot.parent_id.map(|id| id.to_string());
    Entity::update_many()
        .col_expr(Column::ParentId, Expr::value(parent))
        .filter(Column::ParentId.eq(snapshot.id.to_string()))
        .exec(tx.raw())
        .await?;
    Entity::delete_by_id(snapshot.id.to_string())
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// Removes all of one VM.
pub async fn delete_all(tx: &WriteTx, vm_id: VmId) -> Result<()> {
    Entity::delete_many()
        .filter(Column::VmId.eq(vm_id.to_string()))
        .exec(tx.raw())
        .await?;
    Ok(())
}

/// What the snapshots of each VM claim, in sum.
pub fn claimed<'a>(snapshots: impl IntoIterator<Item = &'a SnapshotRecord>) -> BTreeMap<VmId, MiB> {
    let mut sums: BTreeMap<VmId, MiB> = BTreeMap::new();
    for snapshot in snapshots {
        let sum = sums.entry(snapshot.vm_id).or_insert(MiB(0));
        sum.0 = sum.0.saturating_add(snapshot.claimed.0);
    }
    sums
}

fn to_row(snapshot: &SnapshotRecord) -> Result<Model> {
    let SnapshotRecord {
        id,
        vm_id,
        parent_id,
        owner_name,
        name,
        state,
        memory,
        resources,
        root,
        volumes,
        claimed,
        scheduled,
        created_at,
    } = snapshot;
    let id = id.to_string();
    let row = Row {
        table: "snapshots",
        key: &id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    Ok(Model {
        vm_id: vm_id.to_string(),
        parent_id: parent_id.map(|id| id.to_string()),
        owner_name: owner_name.to_string(),
        name: name.to_string(),
        state: row.to_slug("state", state)?,
        memory: *memory,
        vcpus,
        memory_mib,
        disk_mib,
        root: *root,
        volumes: row.to_json("volumes", volumes)?,
        claimed_mib: row.to_amount("claimed_mib", claimed.0)?,
        scheduled: *scheduled,
        created_at: created_at.as_ms(),
        id: id.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<SnapshotRecord> {
    let Model {
        id,
        vm_id,
        parent_id,
        owner_name,
        name,
        state,
        memory,
        vcpus,
        memory_mib,
        disk_mib,
        root,
        volumes,
        claimed_mib,
        created_at,
        scheduled,
    } = row;
    let row = Row {
        table: "snapshots",
        key: &id.clone(),
    };
    Ok(SnapshotRecord {
        id: row.parse("id", id)?,
        vm_id: row.parse("vm_id", vm_id)?,
        parent_id: row.parse_option("parent_id", parent_id)?,
        owner_name: row.parse("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        state: row.slug("state", state)?,
        memory,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        root,
        volumes: row.json("volumes", &volumes)?,
        claimed: MiB(row.amount("claimed_mib", claimed_mib)?),
        scheduled,
        created_at: Timestamp::from_ms(created_at),
    })
}
