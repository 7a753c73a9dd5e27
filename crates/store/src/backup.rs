//! Copies of VMs' disks in datastores.

use std::collections::BTreeMap;

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};
use serde::{Deserialize, Serialize};
use vimana_model::backup::{BackupState, DiskId};
use vimana_model::name::{
    BackupName, DatastoreName, FlavorName, ImageName, UserName, VmName, VolumeName,
};
use vimana_model::unit::{MiB, Resources};
use vimana_model::{BackupId, TenantId, Timestamp, VmId};

use crate::column::Row;
use crate::entity::backup::{Column, Entity, Model};
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRecord {
    pub id: BackupId,
    pub tenant_id: TenantId,
    pub vm_id: VmId,
    pub vm_name: VmName,
    pub owner_name: UserName,
    pub name: BackupName,
    pub state: BackupState,
    pub datastore: DatastoreName,
    /// What it holds the changes since; while it is being made, what it may.
    pub since: Option<BackupId>,
    /// Made by the VM's schedule.
    pub scheduled: bool,
    /// The guest's file systems stood still for it.
    pub frozen: bool,
    /// The VM's size then.
    pub resources: Resources,
    pub flavor_name: FlavorName,
    pub image_name: ImageName,
    pub disks: Vec<DiskRecord>,
    /// What it claims of the VM's host while it is being made.
    pub claimed: MiB,
    pub failure: Option<String>,
    pub generation: u64,
    pub created_at: Timestamp,
}

/// A disk of the VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    pub disk: DiskId,
    pub volume: Option<VolumeName>,
    pub size_mib: MiB,
    /// Its file, once that is in the datastore.
    pub stored: Option<StoredFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    pub size_bytes: u64,
    pub sha256: String,
}

impl BackupRecord {
    /// Bytes in the datastore.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let stored = self.disks.iter().filter_map(|disk| disk.stored.as_ref());
        stored.fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }
}

const NAME: &str = "backup name";

/// # Errors
/// `Duplicate` "backup name" where another backup of the VM has it.
pub async fn insert(tx: &WriteTx, backup: &BackupRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(backup)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: BackupId) -> Result<Option<BackupRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: BackupId) -> Result<Option<BackupRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `backup`.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile;
/// `backup` is unchanged then.
pub async fn update(tx: &WriteTx, backup: &mut BackupRecord) -> Result<()> {
    let row = to_row(backup)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, NAME).await?;
    backup.generation = backup.generation.saturating_add(1);
    Ok(())
}

/// Those of a tenant that are shown, the newest first.
pub async fn list(conn: &impl Conn, tenant: TenantId) -> Result<Vec<BackupRecord>> {
    newest_first(conn, of_tenant(tenant)?).await
}

/// Those of one VM that are shown, the newest first.
pub async fn for_vm(conn: &impl Conn, vm_id: VmId) -> Result<Vec<BackupRecord>> {
    newest_first(
        conn,
        shown(Entity::find())?.filter(Column::VmId.eq(vm_id.to_string())),
    )
    .await
}

/// Those that hold the changes since it, or are to.
pub async fn since(conn: &impl Conn, id: BackupId) -> Result<Vec<BackupRecord>> {
    let found = shown(Entity::find())?.filter(Column::SinceId.eq(id.to_string()));
    let found = newest_first(conn, found).await?;
    let content = |backup: &BackupRecord| backup.state.has_content();
    Ok(found.into_iter().filter(content).collect())
}

/// Those that datastores are still to remove.
pub async fn removing(conn: &impl Conn) -> Result<Vec<BackupRecord>> {
    let found = Entity::find().filter(Column::State.eq(slug(BackupState::Removing)?));
    newest_first(conn, found).await
}

/// All that have content, or are to have it.
pub async fn with_content(conn: &impl Conn) -> Result<Vec<BackupRecord>> {
    let states = [slug(BackupState::Making)?, slug(BackupState::Ready)?];
    newest_first(conn, Entity::find().filter(Column::State.is_in(states))).await
}

/// What the backups of each VM that are being made claim, in sum.
pub fn claimed<'a>(backups: impl IntoIterator<Item = &'a BackupRecord>) -> BTreeMap<VmId, MiB> {
    let mut sums: BTreeMap<VmId, MiB> = BTreeMap::new();
    let made = backups.into_iter();
    for backup in made.filter(|backup| backup.state == BackupState::Making) {
        let sum = sums.entry(backup.vm_id).or_insert(MiB(0));
        sum.0 = sum.0.saturating_add(backup.claimed.0);
    }
    sums
}

fn of_tenant(tenant: TenantId) -> Result<Select<Entity>> {
    Ok(shown(Entity::find())?.filter(Column::TenantId.eq(tenant.to_string())))
}

fn shown(found: Select<Entity>) -> Result<Select<Entity>> {
    let states = BackupState::ALL
        .into_iter()
        .filter(|state| state.is_shown());
    let states: Vec<String> = states.map(slug).collect::<Result<_>>()?;
    Ok(found.filter(Column::State.is_in(states)))
}

async fn newest_first(conn: &impl Conn, found: Select<Entity>) -> Result<Vec<BackupRecord>> {
    let rows = found
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

fn slug(state: BackupState) -> Result<String> {
    let row = Row {
        table: "backups",
        key: "",
    };
    row.to_slug("state", &state)
}

fn to_row(backup: &BackupRecord) -> Result<Model> {
    let BackupRecord {
        id,
        tenant_id,
        vm_id,
        vm_name,
        owner_name,
        name,
        state,
        datastore,
        since,
        scheduled,
        frozen,
        resources,
        flavor_name,
        image_name,
        disks,
        claimed,
        failure,
        generation,
        created_at,
    } = backup;
    let id = id.to_string();
    let row = Row {
        table: "backups",
        key: &id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    Ok(Model {
        tenant_id: tenant_id.to_string(),
        vm_id: vm_id.to_string(),
        vm_name: vm_name.to_string(),
        owner_name: owner_name.to_string(),
        name: name.to_string(),
        live_name: state.is_shown().then(|| name.to_string()),
        state: row.to_slug("state", state)?,
        datastore: datastore.to_string(),
        since_id: since.map(|id| id.to_string()),
        scheduled: *scheduled,
        frozen: *frozen,
        vcpus,
        memory_mib,
        disk_mib,
        flavor_name: flavor_name.to_string(),
        image_name: image_name.to_string(),
        disks: row.to_json("disks", disks)?,
        claimed_mib: row.to_amount("claimed_mib", claimed.0)?,
        failure: failure.clone(),
        generation: row.to_amount("generation", *generation)?,
        created_at: created_at.as_ms(),
        id: id.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<BackupRecord> {
    let Model {
        id,
        tenant_id,
        vm_id,
        vm_name,
        owner_name,
        name,
        live_name: _,
        state,
        datastore,
        since_id,
        scheduled,
        frozen,
        vcpus,
        memory_mib,
        disk_mib,
        flavor_name,
        image_name,
        disks,
        claimed_mib,
        failure,
        generation,
        created_at,
    } = row;
    let row = Row {
        table: "backups",
        key: &id.clone(),
    };
    Ok(BackupRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse("tenant_id", tenant_id)?,
        vm_id: row.parse("vm_id", vm_id)?,
        vm_name: row.parse("vm_name", vm_name)?,
        owner_name: row.parse("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        state: row.slug("state", state)?,
        datastore: row.parse("datastore", datastore)?,
        since: row.parse_option("since_id", since_id)?,
        scheduled,
        frozen,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        flavor_name: row.parse("flavor_name", flavor_name)?,
        image_name: row.parse("image_name", image_name)?,
        disks: row.json("disks", &disks)?,
        claimed: MiB(row.amount("claimed_mib", claimed_mib)?),
        failure,
        generation: row.amount("generation", generation)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
