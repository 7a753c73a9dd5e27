//! Volumes: writable disks that outlive the VMs they are attached to.
//!
//! A volume is made on the host where it is first attached, and stays there;
//! from then on its size is claimed of that host. What is done with a volume
//! that a VM has is an operation of the VM (`volume/attach.rs`, and
//! `volume/relocate.rs` for moves, of its own disk as well), so that one thing at a
//! time happens to a machine. A deleted volume is named to its host
//! until that says that nothing of it is left.

mod attach;
mod relocate;
pub mod room;

use std::collections::{BTreeMap, BTreeSet};

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::image::ImageState;
use vimana_model::name::{DatastoreName, ImageName, UserName};
use vimana_model::unit::MiB;
use vimana_model::volume::{
    AcceptedVolume, AttachVolume, ChangeVolume, CreateVolume, GrowVolume, MoveVolume, VolumeAction,
    VolumeContent, VolumeRequest, VolumeState, VolumeView,
};
use vimana_model::{Error, FieldError, HostId, Result, TenantId, VolumeId};
use vimana_protocol::agent::ToAgent;
use vimana_store::event::NewEvent;
use vimana_store::image::ImageRecord;
use vimana_store::volume::{ImageOf, VolumeRecord};
use vimana_store::{Conn, TxError, WriteTx, event, host_datastore, image, volume, write_tx};

use crate::Engine;
use crate::action::{Acted, ActionArgs};
use crate::agent::Speaker;
use crate::authorize::{Authorized, Owned, authorized, current, permit};
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::image::{being_read, content_of};
use crate::limits::{MAX_TIMELINE, MAX_VOLUMES};
use crate::name;
use crate::quota::{self, Growth};

impl Owned for VolumeRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        Some(self.tenant_id)
    }
}

impl Engine {
    /// The tenant's volumes, by name.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn volumes(&self, cx: &OpContext) -> Result<Vec<VolumeView>> {
        let tenant = cx.subject.tenant_id;
        permit(cx, Permission::ViewVolume, Some(tenant))?;
        let read = self.store().read();
        Ok(views(&read, volume::list(&read, tenant).await?).await?)
    }

    /// One volume.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn volume(&self, cx: &OpContext, id: VolumeId) -> Result<VolumeView> {
        let found = self.viewable_volume(cx, id).await?.into_inner();
        Ok(view(&self.store().read(), found).await?)
    }

    /// What happened to a volume, oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn volume_timeline(&self, cx: &OpContext, id: VolumeId) -> Result<Vec<EventView>> {
        self.viewable_volume(cx, id).await?;
        Ok(event::for_volume(&self.store().read(), id, MAX_TIMELINE).await?)
    }

    /// The datastores that a volume can be in: of its host, or of any host while
    /// it has none, as a new one. `local` is the first.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`.
    pub async fn volume_datastores(
        &self,
        cx: &OpContext,
        id: Option<VolumeId>,
    ) -> Result<Vec<DatastoreName>> {
        let host = match id {
            Some(id) => self.viewable_volume(cx, id).await?.host.clone(),
            None => {
                permit(cx, Permission::ViewVolume, Some(cx.subject.tenant_id))?;
                None
            }
        };
        let read = self.store().read();
        let known = match host {
            Some(host) => host_datastore::for_host(&read, host.id).await?,
            None => host_datastore::list(&read).await?,
        };
        let present = known.into_iter().filter(|known| known.present);
        let others: BTreeSet<_> = present.map(|known| known.name).collect();
        Ok(std::iter::once(DatastoreName::local())
            .chain(others)
            .collect())
    }

    /// Records a volume; it is made where it is first attached.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, `Conflict` for a name in use,
    /// `Forbidden`.
    pub async fn create_volume(&self, cx: &OpContext, form: &CreateVolume) -> Result<VolumeView> {
        let wanted = form.check()?;
        let tenant_id = cx.subject.tenant_id;
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            permit(cx, Permission::ManageVolumes, Some(tenant_id))?;
            is_known(tx, &wanted.datastore).await?;
            let image = match &wanted.image {
                Some(name) => Some(image_of(tx, tenant_id, name, wanted.size).await?),
                None => None,
            };
            let id = new_id!(self.world(), VolumeId);
            let whose = (tenant_id, &cx.subject.user_name);
            let answer = self.record_volume(tx, whose, id, wanted.clone(), image);
            let answer = answer.await?;
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        Ok(answer)
    }

    /// Records a new volume of that tenant, by that user, who may do so; it begins
    /// as that image.
    pub(crate) async fn record_volume(
        &self,
        tx: &WriteTx,
        (tenant_id, by): (TenantId, &UserName),
        id: VolumeId,
        wanted: VolumeRequest,
        image: Option<ImageOf>,
    ) -> Result<VolumeView, TxError> {
        let count = volume::list(tx, tenant_id).await?.len();
        if count >= MAX_VOLUMES {
            let message = format!("the tenant has {MAX_VOLUMES} volumes already");
            return Err(Error::conflict(message).into());
        }
        let record = VolumeRecord {
            id,
            tenant_id,
            owner_name: by.clone(),
            name: wanted.name,
            state: VolumeState::Ready,
            size: wanted.size,
            image,
            made: false,
            delete_with_vm: wanted.delete_with_vm,
            host: None,
            datastore: wanted.datastore,
            moving_to: None,
            vm: None,
            place: None,
            generation: 1,
            created_at: self.world().now(),
        };
        volume::insert(tx, &record)
            .await
            .map_err(|error| name::in_use(error, "a volume", record.name.as_str()))?;
        let growth = quota::of_new_volume(&record.datastore, record.size);
        let warnings = quota::admit(tx, tenant_id, by, &growth).await?;
        let created = EventKind::VolumeCreated {
            name: record.name.clone(),
        };
        let actor = Actor::User(by.clone());
        self.note(tx, actor.clone(), &record, created).await?;
        for text in warnings {
            let warned = EventKind::Note { text };
            self.note(tx, actor.clone(), &record, warned).await?;
        }
        Ok(view(tx, record).await?)
    }

    /// Changes what becomes of a volume when its VM goes.
    ///
    /// # Errors
    /// `Conflict` with the sentence that refuses it, `NotFound`, `Forbidden`.
    pub async fn change_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        form: &ChangeVolume,
    ) -> Result<VolumeView> {
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let mut record = self.acting(tx, cx, id, VolumeAction::Change).await?;
            if let Some(goes) = form.delete_with_vm
                && goes != record.delete_with_vm
            {
                record.delete_with_vm = goes;
                volume::update(tx, &mut record).await?;
                let with = if goes {
                    "goes with its VM"
                } else {
                    "stays when its VM goes"
                };
                let text = format!("Volume {} {with} from now on", record.name);
                self.note(tx, user(cx), &record, EventKind::Note { text })
                    .await?;
            }
            let answer = view(tx, record).await?;
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        Ok(answer)
    }

    /// Gives a volume to a VM.
    ///
    /// # Errors
    /// `Conflict` where a VM has it already, or its VM is not in a state for
    /// that; `NotFound`, `Forbidden`.
    pub async fn attach_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        form: AttachVolume,
    ) -> Result<AcceptedVolume> {
        self.viewable_volume(cx, id).await?;
        let args = ActionArgs::Volume(id);
        let acted = self.act_on_vm(cx, form.vm_id, VmAction::Attach, args);
        let acted = acted.await?;
        self.accepted_volume(cx, id, acted).await
    }

    /// Takes a volume from its VM.
    ///
    /// # Errors
    /// As [`Engine::attach_volume`].
    pub async fn detach_volume(&self, cx: &OpContext, id: VolumeId) -> Result<AcceptedVolume> {
        let found = self.viewable_volume(cx, id).await?;
        let Some(vm) = found.vm.clone() else {
            // Its state refuses that, unless the key has been answered before.
            let nothing = |_: &mut VolumeRecord| Ok(());
            return self
                .act_on_free(cx, id, VolumeAction::Detach, nothing)
                .await;
        };
        let args = ActionArgs::Volume(id);
        let acted = self.act_on_vm(cx, vm.id, VmAction::Detach, args).await?;
        self.accepted_volume(cx, id, acted).await
    }

    /// Makes a volume larger: by an operation of the VM that has it, or for
    /// when one gets it.
    ///
    /// # Errors
    /// `Invalid` for a size that is none, `Conflict` where it would shrink or
    /// its host has no room, `NotFound`, `Forbidden`.
    pub async fn grow_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        form: GrowVolume,
    ) -> Result<AcceptedVolume> {
        let size = form.check()?;
        let found = self.viewable_volume(cx, id).await?;
        let Some(vm) = found.vm.clone() else {
            let grow = |record: &mut VolumeRecord| {
                record.size = size;
                Ok(())
            };
            return self.act_on_free(cx, id, VolumeAction::Grow, grow).await;
        };
        let args = ActionArgs::Grow { volume: id, size };
        let acted = self.act_on_vm(cx, vm.id, VmAction::Grow, args).await?;
        self.accepted_volume(cx, id, acted).await
    }

    /// Brings a volume to another datastore of its host, by an operation of the VM
    /// that has it. One that was never attached is made there when it is.
    ///
    /// # Errors
    /// `Invalid` for a name that is none, `Conflict` where it is there already,
    /// its host has no such datastore or no room there, no VM has it, or a
    /// snapshot holds it; `NotFound`, `Forbidden`.
    pub async fn move_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        form: &MoveVolume,
    ) -> Result<AcceptedVolume> {
        let to = form.check()?;
        let found = self.viewable_volume(cx, id).await?;
        if let Some(vm) = found.vm.clone() {
            let args = ActionArgs::Move { volume: id, to };
            let acted = self.act_on_vm(cx, vm.id, VmAction::Move, args).await?;
            return self.accepted_volume(cx, id, acted).await;
        }
        let choose = |record: &mut VolumeRecord| {
            if let Some(host) = &record.host {
                let (name, host) = (&record.name, &host.name);
                let message = format!(
                    "volume `{name}` is on host `{host}`: it moves while a VM has it, so attach it first"
                );
                return Err(Error::conflict(message));
            }
            record.datastore = to.clone();
            Ok(())
        };
        self.act_on_free(cx, id, VolumeAction::Move, choose).await
    }

    async fn accepted_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        acted: Acted,
    ) -> Result<AcceptedVolume> {
        let operation = match acted {
            Acted::Accepted(accepted) => Some(accepted.operation),
            Acted::Vm(_) => None,
        };
        Ok(AcceptedVolume {
            volume: self.volume(cx, id).await?,
            operation,
        })
    }

    /// Does something with a volume that no VM has.
    async fn act_on_free(
        &self,
        cx: &OpContext,
        id: VolumeId,
        action: VolumeAction,
        change: impl Fn(&mut VolumeRecord) -> Result<(), Error> + Send + Sync,
    ) -> Result<AcceptedVolume> {
        let answered = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let mut record = self.acting(tx, cx, id, action).await?;
            if record.vm.is_some() {
                let message = format!("volume `{}` was just attached; ask again", record.name);
                return Err(Error::conflict(message).into());
            }
            let before = record.clone();
            change(&mut record)?;
            claim_growth(tx, &before, record.size).await?;
            volume::update(tx, &mut record).await?;
            let growth = growth(&before, &record);
            let warnings = quota::admit(tx, record.tenant_id, &record.owner_name, &growth).await?;
            for text in warnings {
                let warned = EventKind::Note { text };
                self.note(tx, user(cx), &record, warned).await?;
            }
            let name = record.name.clone();
            let changed = if action == VolumeAction::Move {
                let to = record.datastore.clone();
                EventKind::VolumeMoved { name, to }
            } else {
                let to = record.size;
                EventKind::VolumeGrown { name, to }
            };
            self.note(tx, user(cx), &record, changed).await?;
            let answer = Answered::Volume(Box::new(view(tx, record).await?));
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        match answered {
            Answered::Acted(acted) => self.accepted_volume(cx, id, acted).await,
            Answered::Volume(volume) => Ok(AcceptedVolume {
                volume: *volume,
                operation: None,
            }),
        }
    }

    /// Deletes a volume with what is on it.
    ///
    /// # Errors
    /// `Conflict` where a VM has it, `NotFound`, `Forbidden`.
    pub async fn delete_volume(&self, cx: &OpContext, id: VolumeId) -> Result<VolumeView> {
        let (answer, removing) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let mut record = self.acting(tx, cx, id, VolumeAction::Delete).await?;
            if let Some(image) = being_read(tx, id).await? {
                return Err(read_for(&record, &image).into());
            }
            record.state = if record.host.is_some() {
                VolumeState::Removing
            } else {
                VolumeState::Removed
            };
            volume::update(tx, &mut record).await?;
            let deleted = EventKind::VolumeDeleted {
                name: record.name.clone(),
            };
            self.note(tx, user(cx), &record, deleted).await?;
            let answer = view(tx, record.clone()).await?;
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(record)))
        })?;
        self.inner.hub.wake();
        if let Some(record) = removing {
            let reminded = async {
                self.send_removal(&record).await?;
                // Imports of it come to their end.
                let host = record.host.as_ref().map(|host| host.id);
                self.ask_for_volumes(host).await
            };
            if let Err(error) = reminded.await {
                // The sweep does it.
                tracing::error!(volume = %id, error = ?error, "its host is not told yet that a volume is deleted");
            }
        }
        Ok(answer)
    }

    /// Locks a volume for an action that its state accepts.
    async fn acting(
        &self,
        tx: &WriteTx,
        cx: &OpContext,
        id: VolumeId,
        action: VolumeAction,
    ) -> Result<VolumeRecord, TxError> {
        let found = volume::lock(tx, id).await?;
        let record = authorized(cx, Permission::ManageVolumes, what(id), found)?.into_inner();
        accept(&record, action)?;
        Ok(record)
    }

    async fn viewable_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
    ) -> Result<Authorized<VolumeRecord>> {
        let found = volume::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewVolume, what(id), found)
    }

    /// A fact about a volume that no VM has.
    async fn note(
        &self,
        tx: &WriteTx,
        actor: Actor,
        record: &VolumeRecord,
        event: EventKind,
    ) -> Result<(), TxError> {
        let fact = NewEvent {
            at: self.world().now(),
            actor,
            tenant_id: Some(record.tenant_id),
            vm_id: record.vm.as_ref().map(|vm| vm.id),
            host_id: record.host.as_ref().map(|host| host.id),
            request_id: None,
            image_id: None,
            volume_id: Some(record.id),
            event,
        };
        event::append(tx, &[fact]).await?;
        Ok(())
    }

    /// Reminds hosts, one or all, of what they have to do with volumes: remove
    /// what was deleted, send what images are made of.
    pub(crate) async fn remind_of_volumes(&self, host: Option<HostId>) -> Result<()> {
        for record in volume::removing(&self.store().read(), host).await? {
            self.send_removal(&record).await?;
        }
        self.ask_for_volumes(host).await
    }

    async fn send_removal(&self, record: &VolumeRecord) -> Result<()> {
        let (VolumeState::Removing, Some(host)) = (record.state, &record.host) else {
            return Ok(());
        };
        let known = host_datastore::for_host(&self.store().read(), host.id).await?;
        let mut datastores = Vec::new();
        for place in record.places().filter(|place| !place.is_local()) {
            let Some(found) = known.iter().find(|known| known.name == *place) else {
                tracing::error!(volume = %record.id, datastore = %place, "a volume that is deleted is in a datastore that is not recorded");
                return Ok(());
            };
            datastores.push(found.id);
        }
        let frame = ToAgent::RemoveVolume {
            volume_id: record.id,
            datastores,
        };
        self.inner.agents.send_frame(host.id, frame);
        Ok(())
    }

    /// A host has removed a volume.
    pub(crate) async fn volume_removed(&self, speaker: &Speaker, id: VolumeId) -> Result<()> {
        let host_id = speaker.host_id;
        write_tx!(self.store(), |tx| {
            let found = volume::lock(tx, id).await?;
            let Some(mut record) = found.filter(|record| {
                let there = record.host.as_ref().is_some_and(|host| host.id == host_id);
                record.state == VolumeState::Removing && there
            }) else {
                return Ok(());
            };
            if !speaker.is_current(tx).await? {
                return Ok(());
            }
            room::give_back(tx, host_id, &record).await?;
            let removed = EventKind::VolumeRemoved {
                name: record.name.clone(),
            };
            self.note(tx, speaker.actor.clone(), &record, removed)
                .await?;
            record.state = VolumeState::Removed;
            record.host = None;
            record.moving_to = None;
            Ok(volume::update(tx, &mut record).await?)
        })?;
        self.inner.hub.wake();
        Ok(())
    }

    /// For the event stream.
    pub(crate) async fn volumes_of(
        &self,
        ids: &[VolumeId],
    ) -> Result<BTreeMap<VolumeId, VolumeView>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let read = self.store().read();
        let views = views(&read, volume::find_many(&read, ids).await?).await?;
        Ok(views.into_iter().map(|view| (view.id, view)).collect())
    }
}

/// What was answered to a key, by the volume's VM or without one.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Answered {
    Acted(Acted),
    Volume(Box<VolumeView>),
}

fn what(id: VolumeId) -> String {
    format!("volume `{id}`")
}

/// Why something has to wait while the volume is read for an image; another
/// tenant's is not named.
fn read_for(record: &VolumeRecord, image: &ImageRecord) -> Error {
    let name = &record.name;
    let message = if image.tenant_id == Some(record.tenant_id) {
        let image = &image.name;
        format!("volume `{name}` is just read for image `{image}`; wait for that, or cancel it")
    } else {
        format!("volume `{name}` is just read for its provider; try again later")
    };
    Error::conflict(message)
}

fn user(cx: &OpContext) -> Actor {
    Actor::User(cx.subject.user_name.clone())
}

pub fn accept(record: &VolumeRecord, action: VolumeAction) -> Result<(), Error> {
    action
        .judge(record.state)
        .map_err(|refusal| Error::conflict(format!("volume `{}` {refusal}", record.name)))
}

/// What a volume counts more than before.
fn growth(before: &VolumeRecord, after: &VolumeRecord) -> Growth {
    if before.datastore != after.datastore {
        return quota::of_place(&after.datastore, after.size);
    }
    let more = after.size.0.saturating_sub(before.size.0);
    if more > 0 {
        quota::of_volume(&after.datastore, MiB(more))
    } else {
        Growth::new()
    }
}

/// Claims of its host, if it has one, what makes the volume that large. The
/// same size once more is for one that could not be made that large.
async fn claim_growth(tx: &WriteTx, record: &VolumeRecord, to: MiB) -> Result<(), TxError> {
    if to < record.size {
        let message = format!("a volume never shrinks; it has {}", record.size);
        return Err(Error::from(FieldError::new("size_mib", message)).into());
    }
    let Some(host) = &record.host else {
        return Ok(());
    };
    for datastore in record.places() {
        room::change(tx, host, datastore, record.size, to).await?;
    }
    Ok(())
}

/// A datastore that no host has would never have the volume.
pub async fn is_known(tx: &WriteTx, datastore: &DatastoreName) -> Result<(), TxError> {
    if datastore.is_local() {
        return Ok(());
    }
    let known = host_datastore::list(tx).await?;
    if known.iter().any(|known| known.name == *datastore) {
        return Ok(());
    }
    let message = format!("no host has a datastore `{datastore}`");
    Err(Error::from(FieldError::new("datastore", message)).into())
}

/// The image of that name, which must fit.
async fn image_of(
    tx: &WriteTx,
    tenant_id: TenantId,
    name: &ImageName,
    size: MiB,
) -> Result<ImageOf, TxError> {
    let refuse = |message: String| Error::from(FieldError::new("image", message));
    let found = image::find_by_name(tx, Some(tenant_id), name).await?;
    let found = found.filter(|found| found.state == ImageState::Ready);
    let found = found.ok_or_else(|| refuse(format!("there is no image `{name}`")))?;
    let needs = found.content.as_ref().map(|content| content.virtual_mib);
    if needs.is_some_and(|needs| needs > size) {
        let needs = needs.unwrap_or_default();
        return Err(refuse(format!("image `{name}` needs {needs}")).into());
    }
    Ok(ImageOf {
        id: found.id,
        name: found.name,
    })
}

async fn view(conn: &impl Conn, record: VolumeRecord) -> vimana_store::Result<VolumeView> {
    let image = match &record.image {
        Some(image) if !record.made => image::find(conn, image.id).await?,
        Some(_) | None => None,
    };
    let content = content_of(&record, image.as_ref());
    Ok(with_content(record, content))
}

async fn views(
    conn: &impl Conn,
    records: Vec<VolumeRecord>,
) -> vimana_store::Result<Vec<VolumeView>> {
    let waiting = records.iter().filter(|record| !record.made);
    let ids: BTreeSet<_> = waiting
        .filter_map(|record| Some(record.image.as_ref()?.id))
        .collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let images = image::find_many(conn, &ids).await?;
    let images: BTreeMap<_, _> = images.iter().map(|image| (image.id, image)).collect();
    let view = |record: VolumeRecord| {
        let image = record.image.as_ref();
        let image = image.and_then(|image| images.get(&image.id).copied());
        let content = content_of(&record, image);
        with_content(record, content)
    };
    Ok(records.into_iter().map(view).collect())
}

fn with_content(record: VolumeRecord, content: VolumeContent) -> VolumeView {
    let VolumeRecord {
        id,
        tenant_id,
        owner_name,
        name,
        state,
        size,
        image,
        made: _,
        delete_with_vm,
        host,
        datastore,
        moving_to,
        vm,
        place: _,
        generation: _,
        created_at,
    } = record;
    VolumeView {
        id,
        tenant_id,
        name,
        state,
        size_mib: size,
        image: image.map(|image| image.name),
        content,
        vm,
        host,
        datastore,
        moving_to,
        delete_with_vm,
        owner: owner_name.to_string(),
        created_at,
    }
}
