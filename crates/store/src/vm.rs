//! The durable machines that users own.

use std::collections::BTreeMap;

use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};
use vimana_model::name::{DatastoreName, FlavorName, ImageName, UserName, VmName};
use vimana_model::pending::Explanation;
use vimana_model::saved::SavedMachine;
use vimana_model::ssh_key::SshKeys;
use vimana_model::unit::{MiB, Resources};
use vimana_model::user_data::UserData;
use vimana_model::vm::{Failure, HostRef};
use vimana_model::{
    HostId, ImageId, OperationId, RequestId, SnapshotId, TenantId, Timestamp, UserId, VmId, VmState,
};

use crate::column::{Row, time, to_time};
use crate::entity::vm::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq)]
pub struct VmRecord {
    pub id: VmId,
    pub tenant_id: TenantId,
    pub owner_id: UserId,
    pub owner_name: UserName,
    pub name: VmName,
    pub state: VmState,
    pub state_since: Timestamp,
    pub failure: Option<Failure>,
    pub flavor_name: FlavorName,
    pub resources: Resources,
    /// The one of its host that its disk is in, or is to be made in.
    pub datastore: DatastoreName,
    /// As long as its disk may be in another one already.
    pub moving: Option<DiskMove>,
    pub image_id: ImageId,
    pub image_name: ImageName,
    pub ssh_key: Option<SshKeys>,
    pub user_data: Option<UserData>,
    pub host: Option<HostRef>,
    pub run_epoch: u64,
    pub generation: u64,
    pub operation_id: Option<OperationId>,
    pub explanation: Option<Explanation>,
    pub explained_at: Option<Timestamp>,
    /// What the datastore holds of it.
    pub saved: Option<SavedMachine>,
    /// What its snapshots claim beside its disk, in sum.
    pub kept: MiB,
    /// The snapshot that its disks have come from.
    pub snapshot_id: Option<SnapshotId>,
    /// The request it was made for.
    pub request_id: Option<RequestId>,
    /// Told from its state and its operation whenever it changes.
    pub counts: Counts,
    pub created_at: Timestamp,
}

/// What a VM that is not done counts of quotas, beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// It runs, or is to.
    pub running: bool,
    /// An operation is in flight.
    pub operation: bool,
    /// Of what it has and is to have, the larger.
    pub vcpus: u32,
    pub memory: MiB,
    pub disk: MiB,
}

/// A VM's own disk on its way to another datastore of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskMove {
    pub to: DatastoreName,
    /// What is claimed for it there, beside the VM's claim.
    pub size: MiB,
}

/// Which VMs to list; a field left out filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFilter {
    pub tenant: Option<TenantId>,
    /// The exact name.
    pub name: Option<String>,
    /// Any of these; empty for all.
    pub states: Vec<VmState>,
    pub limit: u32,
}

const NAME: &str = "vm name";

/// # Errors
/// `Duplicate` "vm name" when another VM of the tenant that is not done has it.
pub async fn insert(tx: &WriteTx, vm: &VmRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(vm)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: VmId) -> Result<Option<VmRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Whether a VM of the tenant that is not done has the name.
pub async fn is_named(conn: &impl Conn, tenant: TenantId, name: &VmName) -> Result<bool> {
    let named = Entity::find()
        .filter(Column::TenantId.eq(tenant.to_string()))
        .filter(Column::LiveName.eq(name.as_str()));
    Ok(named.one(conn.raw()).await?.is_some())
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: VmId) -> Result<Option<VmRecord>> {
    // SQLite has one writer at a time and no such clause: it is left out there.
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `vm`. In state Done the name becomes free.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile, or when it
/// is gone; `vm` is unchanged then.
pub async fn update(tx: &WriteTx, vm: &mut VmRecord) -> Result<()> {
    let row = to_row(vm)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, NAME).await?;
    vm.generation = vm.generation.saturating_add(1);
    Ok(())
}

/// Newest first.
pub async fn list(conn: &impl Conn, filter: &VmFilter) -> Result<Vec<VmRecord>> {
    let VmFilter {
        tenant,
        name,
        states,
        limit,
    } = filter;
    let mut wanted = Condition::all()
        .add_option(tenant.map(|tenant| Column::TenantId.eq(tenant.to_string())))
        .add_option(name.as_ref().map(|name| Column::Name.eq(name.as_str())));
    if !states.is_empty() {
        wanted = wanted.add(Column::State.is_in(states.iter().map(|state| state.slug())));
    }
    let rows = Entity::find()
        .filter(wanted)
        .order_by_desc(Column::CreatedAt)
        .order_by_desc(Column::Id)
        .limit(u64::from(*limit))
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[VmId]) -> Result<Vec<VmRecord>> {
    let mut vms = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let found = Entity::find().filter(Column::Id.is_in(chunk.iter().map(VmId::to_string)));
        for row in found.all(conn.raw()).await? {
            vms.push(from_row(row)?);
        }
    }
    Ok(vms)
}

/// How many VMs that are not done are made from each image, of one tenant or
/// of all.
pub async fn made_from(
    conn: &impl Conn,
    images: &[ImageId],
    tenant: Option<TenantId>,
) -> Result<BTreeMap<ImageId, u32>> {
    let done = Row {
        table: "vms",
        key: "",
    };
    let done = done.to_slug("state", &VmState::Done)?;
    let mut made = BTreeMap::new();
    for chunk in images.chunks(CHUNK) {
        let wanted = Condition::all()
            .add(Column::ImageId.is_in(chunk.iter().map(ImageId::to_string)))
            .add(Column::State.ne(done.as_str()))
            .add_option(tenant.map(|tenant| Column::TenantId.eq(tenant.to_string())));
        let counted: Vec<(String, i64)> = Entity::find()
            .select_only()
            .column(Column::ImageId)
            .column_as(Column::Id.count(), "made")
            .filter(wanted)
            .group_by(Column::ImageId)
            .into_tuple()
            .all(conn.raw())
            .await?;
        for (id, count) in counted {
            let row = Row {
                table: "vms",
                key: &id.clone(),
            };
            made.insert(row.parse("image_id", id)?, row.amount("id", count)?);
        }
    }
    Ok(made)
}

/// How many are in that state.
pub async fn count(conn: &impl Conn, state: VmState) -> Result<u64> {
    let found = Entity::find().filter(Column::State.eq(state.slug()));
    Ok(found.count(conn.raw()).await?)
}

/// All that wait for a host, oldest first.
pub async fn pending(conn: &impl Conn) -> Result<Vec<VmRecord>> {
    let found = Entity::find().filter(Column::State.eq(VmState::Pending.slug()));
    oldest_first(conn, found).await
}

/// Those of which the datastore holds a copy.
pub async fn all_saved(conn: &impl Conn) -> Result<Vec<VmRecord>> {
    let found = Entity::find().filter(Column::Saved.is_not_null());
    query::all(found.all(conn.raw()).await?, from_row)
}

/// All that are placed on the host and not done, oldest first.
pub async fn on_host(conn: &impl Conn, host_id: HostId) -> Result<Vec<VmRecord>> {
    let found = Entity::find()
        .filter(Column::HostId.eq(host_id.to_string()))
        .filter(Column::State.ne(VmState::Done.slug()));
    oldest_first(conn, found).await
}

async fn oldest_first(conn: &impl Conn, found: Select<Entity>) -> Result<Vec<VmRecord>> {
    let rows = found
        .order_by_asc(Column::CreatedAt)
        .order_by_asc(Column::Id)
        .all(conn.raw())
        .await?;
    query::all(rows, from_row)
}

fn to_row(vm: &VmRecord) -> Result<Model> {
    let VmRecord {
        id,
        tenant_id,
        owner_id,
        owner_name,
        name,
        state,
        state_since,
        failure,
        flavor_name,
        resources,
        datastore,
        moving,
        image_id,
        image_name,
        ssh_key,
        user_data,
        host,
        run_epoch,
        generation,
        operation_id,
        explanation,
        explained_at,
        saved,
        kept,
        snapshot_id,
        request_id,
        counts,
        created_at,
    } = vm;
    let id = id.to_string();
    let row = Row {
        table: "vms",
        key: &id,
    };
    let [vcpus, memory_mib, disk_mib] = row.to_resources(*resources)?;
    let failure = row.to_json_option("failure", failure.as_ref())?;
    let explanation = row.to_json_option("explanation", explanation.as_ref())?;
    let saved = row.to_json_option("saved", saved.as_ref())?;
    let run_epoch = row.to_amount("run_epoch", *run_epoch)?;
    let generation = row.to_amount("generation", *generation)?;
    let kept_mib = row.to_amount("kept_mib", kept.0)?;
    let counts_memory_mib = row.to_amount("counts_memory_mib", counts.memory.0)?;
    let counts_disk_mib = row.to_amount("counts_disk_mib", counts.disk.0)?;
    let moving_mib = moving.as_ref().map(|moving| moving.size.0);
    let moving_mib = moving_mib.map(|mib| row.to_amount("moving_mib", mib));
    let moving_mib = moving_mib.transpose()?;
    let (host_id, host_name, host_zone) = match host.clone() {
        Some(HostRef { id, name, zone }) => (Some(id.to_string()), Some(name), Some(zone)),
        None => (None, None, None),
    };
    Ok(Model {
        id,
        tenant_id: tenant_id.to_string(),
        owner_id: owner_id.to_string(),
        owner_name: owner_name.to_string(),
        name: name.to_string(),
        live_name: (!state.is_final()).then(|| name.to_string()),
        state: state.slug().to_owned(),
        state_since: state_since.as_ms(),
        failure,
        flavor_name: flavor_name.to_string(),
        vcpus,
        memory_mib,
        disk_mib,
        image_id: image_id.to_string(),
        image_name: image_name.to_string(),
        ssh_key: ssh_key.as_ref().map(ToString::to_string),
        user_data: user_data.as_ref().map(|data| data.as_str().to_owned()),
        host_id,
        host_name,
        host_zone,
        run_epoch,
        generation,
        operation_id: operation_id.map(|id| id.to_string()),
        explanation,
        explained_at: to_time(*explained_at),
        created_at: created_at.as_ms(),
        saved,
        request_id: request_id.map(|id| id.to_string()),
        kept_mib,
        snapshot_id: snapshot_id.map(|id| id.to_string()),
        datastore: datastore.to_string(),
        moving_to: moving.as_ref().map(|moving| moving.to.to_string()),
        moving_mib,
        counts_running: counts.running,
        counts_operation: counts.operation,
        counts_vcpus: i64::from(counts.vcpus),
        counts_memory_mib,
        counts_disk_mib,
    })
}

/// For the checker: the name that is kept free must be the VM's, too.
pub(crate) fn from_row_with_its_name(row: Model) -> Result<VmRecord> {
    let live_name = row.live_name.clone();
    let vm = from_row(row)?;
    let kept = (!vm.state.is_final()).then(|| vm.name.to_string());
    if kept == live_name {
        return Ok(vm);
    }
    let row = Row {
        table: "vms",
        key: &vm.id.to_string(),
    };
    Err(row.corrupt("live_name"))
}

pub(crate) fn from_row(row: Model) -> Result<VmRecord> {
    let Model {
        id,
        tenant_id,
        owner_id,
        owner_name,
        name,
        // Follows from name and state.
        live_name: _,
        state,
        state_since,
        failure,
        flavor_name,
        vcpus,
        memory_mib,
        disk_mib,
        image_id,
        image_name,
        ssh_key,
        user_data,
        host_id,
        host_name,
        host_zone,
        run_epoch,
        generation,
        operation_id,
        explanation,
        explained_at,
        created_at,
        saved,
        request_id,
        kept_mib,
        snapshot_id,
        datastore,
        moving_to,
        moving_mib,
        counts_running,
        counts_operation,
        counts_vcpus,
        counts_memory_mib,
        counts_disk_mib,
    } = row;
    let row = Row {
        table: "vms",
        key: &id.clone(),
    };
    let host = match (host_id, host_name, host_zone) {
        (Some(id), Some(name), Some(zone)) => Some(HostRef {
            id: row.parse("host_id", id)?,
            name,
            zone,
        }),
        (None, None, None) => None,
        _ => return Err(row.corrupt("host_id")),
    };
    let moving = match (moving_to, moving_mib) {
        (Some(to), Some(size)) if host.is_some() => Some(DiskMove {
            to: row.parse("moving_to", to)?,
            size: MiB(row.amount("moving_mib", size)?),
        }),
        (None, None) => None,
        _ => return Err(row.corrupt("moving_to")),
    };
    Ok(VmRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse("tenant_id", tenant_id)?,
        owner_id: row.parse("owner_id", owner_id)?,
        owner_name: row.parse("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        state: row.slug("state", state)?,
        state_since: Timestamp::from_ms(state_since),
        failure: row.json_option("failure", failure)?,
        flavor_name: row.parse("flavor_name", flavor_name)?,
        resources: row.resources([vcpus, memory_mib, disk_mib])?,
        datastore: row.parse("datastore", datastore)?,
        moving,
        image_id: row.parse("image_id", image_id)?,
        image_name: row.parse("image_name", image_name)?,
        ssh_key: row.parse_option("ssh_key", ssh_key)?,
        user_data: row.parse_option("user_data", user_data)?,
        host,
        run_epoch: row.amount("run_epoch", run_epoch)?,
        generation: row.amount("generation", generation)?,
        operation_id: row.parse_option("operation_id", operation_id)?,
        explanation: row.json_option("explanation", explanation)?,
        explained_at: time(explained_at),
        saved: row.json_option("saved", saved)?,
        kept: MiB(row.amount("kept_mib", kept_mib)?),
        snapshot_id: row.parse_option("snapshot_id", snapshot_id)?,
        request_id: row.parse_option("request_id", request_id)?,
        counts: Counts {
            running: counts_running,
            operation: counts_operation,
            vcpus: row.amount("counts_vcpus", counts_vcpus)?,
            memory: MiB(row.amount("counts_memory_mib", counts_memory_mib)?),
            disk: MiB(row.amount("counts_disk_mib", counts_disk_mib)?),
        },
        created_at: Timestamp::from_ms(created_at),
    })
}
