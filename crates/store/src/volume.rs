//! Writable disks that outlive the VMs they are attached to.

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
};
use vimana_model::name::{DatastoreName, ImageName, UserName, VolumeName};
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::volume::{VmRef, VolumeState};
use vimana_model::{HostId, ImageId, TenantId, Timestamp, VmId, VolumeId};

use crate::column::Row;
use crate::entity::volume::{Column, Entity, Model};
use crate::limits::CHUNK;
use crate::store::Raw as _;
use crate::{Conn, Result, WriteTx, query};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    pub id: VolumeId,
    pub tenant_id: TenantId,
    pub owner_name: UserName,
    pub name: VolumeName,
    pub state: VolumeState,
    /// Claimed of its host, where it has one.
    pub size: MiB,
    /// What it begins as a copy of.
    pub image: Option<ImageOf>,
    /// It was attached once: it holds what it began with.
    pub made: bool,
    pub delete_with_vm: bool,
    pub host: Option<HostRef>,
    /// The one of its host that it is in, or is to be made in.
    pub datastore: DatastoreName,
    /// The one that it may be in as well: its size is claimed of both.
    pub moving_to: Option<DatastoreName>,
    pub vm: Option<VmRef>,
    /// Where the VM's guest finds it, where its host has told.
    pub place: Option<u8>,
    pub generation: u64,
    pub created_at: Timestamp,
}

impl VolumeRecord {
    /// The datastores of its host that it may be in: its size is claimed of each.
    pub fn places(&self) -> impl Iterator<Item = &DatastoreName> {
        std::iter::once(&self.datastore).chain(&self.moving_to)
    }
}

/// The image of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOf {
    pub id: ImageId,
    pub name: ImageName,
}

const NAME: &str = "volume name";

/// # Errors
/// `Duplicate` "volume name" where another volume of the tenant has it.
pub async fn insert(tx: &WriteTx, volume: &VolumeRecord) -> Result<()> {
    query::insert::<Entity>(tx, to_row(volume)?, NAME).await
}

pub async fn find(conn: &impl Conn, id: VolumeId) -> Result<Option<VolumeRecord>> {
    let row = Entity::find_by_id(id.to_string()).one(conn.raw()).await?;
    row.map(from_row).transpose()
}

/// Those of `ids` that exist, in no particular order.
pub async fn find_many(conn: &impl Conn, ids: &[VolumeId]) -> Result<Vec<VolumeRecord>> {
    let mut volumes = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let chunk = chunk.iter().map(VolumeId::to_string);
        let found = Entity::find().filter(Column::Id.is_in(chunk));
        for row in found.all(conn.raw()).await? {
            volumes.push(from_row(row)?);
        }
    }
    Ok(volumes)
}

/// Finds it and keeps others from changing it until the transaction ends.
pub async fn lock(tx: &WriteTx, id: VolumeId) -> Result<Option<VolumeRecord>> {
    let found = Entity::find_by_id(id.to_string()).lock_exclusive();
    let row = found.one(tx.raw()).await?;
    row.map(from_row).transpose()
}

/// Writes the record if it is still the generation that was read, and makes it
/// the next one, in the row and in `volume`.
///
/// # Errors
/// [`crate::StoreError::Conflict`] when somebody else wrote it meanwhile;
/// `volume` is unchanged then.
pub async fn update(tx: &WriteTx, volume: &mut VolumeRecord) -> Result<()> {
    let row = to_row(volume)?;
    let generation = (Column::Generation, row.generation);
    query::replace::<Entity>(tx, row, Column::Id, generation, NAME).await?;
    volume.generation = volume.generation.saturating_add(1);
    Ok(())
}

/// All of a tenant that are not removed, by name.
pub async fn list(conn: &impl Conn, tenant: TenantId) -> Result<Vec<VolumeRecord>> {
    let found = Entity::find()
        .filter(Column::TenantId.eq(tenant.to_string()))
        .filter(Column::State.ne(slug(VolumeState::Removed)?));
    let mut volumes = in_order(conn, found).await?;
    // Here and not there: PostgreSQL sorts names by its locale.
    volumes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(volumes)
}

/// Those that the VM has, or may, in the order of their ids.
pub async fn of_vm(conn: &impl Conn, vm_id: VmId) -> Result<Vec<VolumeRecord>> {
    let found = Entity::find().filter(Column::VmId.eq(vm_id.to_string()));
    in_order(conn, found).await
}

/// Those that hosts are still to remove, of one host or of all.
pub async fn removing(conn: &impl Conn, host: Option<HostId>) -> Result<Vec<VolumeRecord>> {
    let mut found = Entity::find().filter(Column::State.eq(slug(VolumeState::Removing)?));
    if let Some(host) = host {
        found = found.filter(Column::HostId.eq(host.to_string()));
    }
    in_order(conn, found).await
}

/// A volume that is not made yet and is to be a copy of the image.
pub async fn that_waits_for(conn: &impl Conn, image: ImageId) -> Result<Option<VolumeRecord>> {
    let found = Entity::find()
        .filter(Column::ImageId.eq(image.to_string()))
        .filter(Column::Made.eq(false))
        .filter(Column::State.is_in([slug(VolumeState::Ready)?, slug(VolumeState::Attaching)?]));
    let row = found.one(conn.raw()).await?;
    row.map(from_row).transpose()
}

async fn in_order(conn: &impl Conn, found: Select<Entity>) -> Result<Vec<VolumeRecord>> {
    let rows = found.order_by_asc(Column::Id).all(conn.raw()).await?;
    query::all(rows, from_row)
}

fn slug(state: VolumeState) -> Result<String> {
    let row = Row {
        table: "volumes",
        key: "",
    };
    row.to_slug("state", &state)
}

fn to_row(volume: &VolumeRecord) -> Result<Model> {
    let VolumeRecord {
        id,
        tenant_id,
        owner_name,
        name,
        state,
        size,
        image,
        made,
        delete_with_vm,
        host,
        datastore,
        moving_to,
        vm,
        place,
        generation,
        created_at,
    } = volume;
    let id = id.to_string();
    let row = Row {
        table: "volumes",
        key: &id,
    };
    let (image, host, vm) = (image.as_ref(), host.as_ref(), vm.as_ref());
    Ok(Model {
        tenant_id: tenant_id.to_string(),
        owner_name: owner_name.to_string(),
        name: name.to_string(),
        live_name: state.holds_name().then(|| name.to_string()),
        state: row.to_slug("state", state)?,
        size_mib: row.to_amount("size_mib", size.0)?,
        image_id: image.map(|image| image.id.to_string()),
        image_name: image.map(|image| image.name.to_string()),
        made: *made,
        delete_with_vm: *delete_with_vm,
        host_id: host.map(|host| host.id.to_string()),
        host_name: host.map(|host| host.name.clone()),
        host_zone: host.map(|host| host.zone.clone()),
        datastore: datastore.to_string(),
        moving_to: moving_to.as_ref().map(DatastoreName::to_string),
        vm_id: vm.map(|vm| vm.id.to_string()),
        vm_name: vm.map(|vm| vm.name.to_string()),
        place: place.map(i64::from),
        generation: row.to_amount("generation", *generation)?,
        created_at: created_at.as_ms(),
        id: id.clone(),
    })
}

pub(crate) fn from_row(row: Model) -> Result<VolumeRecord> {
    let Model {
        id,
        tenant_id,
        owner_name,
        name,
        live_name,
        state,
        size_mib,
        image_id,
        image_name,
        made,
        delete_with_vm,
        host_id,
        host_name,
        host_zone,
        datastore,
        moving_to,
        vm_id,
        vm_name,
        generation,
        created_at,
        place,
    } = row;
    let row = Row {
        table: "volumes",
        key: &id.clone(),
    };
    let state: VolumeState = row.slug("state", state)?;
    if live_name.is_some() != state.holds_name() {
        return Err(row.corrupt("live_name"));
    }
    let image = match (image_id, image_name) {
        (Some(id), Some(name)) => Some(ImageOf {
            id: row.parse("image_id", id)?,
            name: row.parse("image_name", name)?,
        }),
        (None, None) => None,
        _ => return Err(row.corrupt("image_id")),
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
    let vm = match (vm_id, vm_name) {
        (Some(id), Some(name)) => Some(VmRef {
            id: row.parse("vm_id", id)?,
            name: row.parse("vm_name", name)?,
        }),
        (None, None) => None,
        _ => return Err(row.corrupt("vm_id")),
    };
    // What a VM has is on its host.
    if state.has_vm() != vm.is_some() || (vm.is_some() && host.is_none()) {
        return Err(row.corrupt("vm_id"));
    }
    if moving_to.is_some() && host.is_none() {
        return Err(row.corrupt("moving_to"));
    }
    Ok(VolumeRecord {
        id: row.parse("id", id)?,
        tenant_id: row.parse("tenant_id", tenant_id)?,
        owner_name: row.parse("owner_name", owner_name)?,
        name: row.parse("name", name)?,
        state,
        size: MiB(row.amount("size_mib", size_mib)?),
        image,
        made,
        delete_with_vm,
        host,
        datastore: row.parse("datastore", datastore)?,
        moving_to: row.parse_option("moving_to", moving_to)?,
        vm,
        place: match place {
            Some(place) => Some(row.amount("place", place)?),
            None => None,
        },
        generation: row.amount("generation", generation)?,
        created_at: Timestamp::from_ms(created_at),
    })
}
