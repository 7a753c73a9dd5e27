//! Images of what is on volumes, at one instant.
//!
//! The bytes are the host's to send. The import waits for them in its first
//! step and holds nothing: the host is asked when the import begins, and again
//! whenever it connects while they are missing. They come like an upload, in one
//! piece, and go on like one. Nobody deletes a volume meanwhile; one
//! that goes with its VM ends it.

use vimana_authz::Permission;
use vimana_driver::Fault;
use vimana_model::image::{ImageFormat, ImageSource, ImageState, ImportImage, Origin, Upload};
use vimana_model::name::{ImageName, VolumeName};
use vimana_model::operation::{Object, Progress};
use vimana_model::unit::MiB;
use vimana_model::volume::{
    AcceptedVolume, CloneVolume, VolumeAction, VolumeContent, VolumeRequest,
};
use vimana_model::{Error, ErrorKind, FieldError, HostId, ImageId, OperationId, Result, VolumeId};
use vimana_protocol::agent::{ToAgent, VolumeOrder};
use vimana_repository::Order;
use vimana_store::image::{ImageOrder, ImageRecord};
use vimana_store::operation::OperationRecord;
use vimana_store::volume::{ImageOf, VolumeRecord};
use vimana_store::{TxError, WriteTx, image, operation, volume, write_tx};

use super::import::{NewImage, Teller, Working, under_way};
use super::upload::{UploadPart, fetches};
use crate::Engine;
use crate::agent::Speaker;
use crate::authorize::{authorized, current, permit};
use crate::context::{OpContext, new_id};
use crate::datastore::datastore_error;
use crate::idempotency::{recall, remember};
use crate::volume::accept;

/// A copy is what its host says it is: the guest's bytes do not decide.
///
/// # Errors
/// `Invalid` where something else is said of it.
pub fn as_copied(order: ImageOrder) -> Result<ImageOrder> {
    let mut wrong = Vec::new();
    if order.checksum.is_some() {
        let message = "what is on a volume has no checksum that could be known before";
        wrong.push(FieldError::new("checksum", message));
    }
    if order.declared == Some(ImageFormat::Raw) {
        let message = "what is on a volume comes as qcow2";
        wrong.push(FieldError::new("format", message));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    Ok(ImageOrder {
        declared: Some(ImageFormat::Qcow2),
        ..order
    })
}

/// Whether an image can be made of the volume now, by who asks.
pub async fn origin_of_volume(
    tx: &WriteTx,
    cx: &OpContext,
    id: VolumeId,
) -> Result<Origin, TxError> {
    let name = volume_with_content(tx, cx, id).await?.name;
    Ok(Origin::Volume {
        volume_id: id,
        name,
        clone: None,
        fetched: None,
    })
}

/// A volume whose content there is something to be made of, by who asks.
async fn volume_with_content(
    tx: &WriteTx,
    cx: &OpContext,
    id: VolumeId,
) -> Result<VolumeRecord, TxError> {
    let found = volume::lock(tx, id).await?;
    let what = format!("volume `{id}`");
    let record = authorized(cx, Permission::ViewVolume, what, found)?.into_inner();
    // Its bytes are more than a look at it.
    permit(cx, Permission::ManageImages, Some(record.tenant_id))?;
    accept(&record, VolumeAction::Copy)?;
    let name = &record.name;
    if !record.made || record.host.is_none() {
        let message = match record.image {
            Some(image) => format!(
                "volume `{name}` was never attached: what is on it is image `{}`",
                image.name
            ),
            None => format!("volume `{name}` was never attached: there is nothing on it yet"),
        };
        return Err(Error::conflict(message).into());
    }
    Ok(record)
}

/// For people, and nobody else's: it ends as the clone's id does.
fn name_for(clone: VolumeId, source: &VolumeName) -> Result<ImageName> {
    let (id, source) = (clone.to_string(), source.as_str());
    let source: String = source.chars().take(40).collect();
    let tail = id.get(id.len().saturating_sub(8)..).unwrap_or_default();
    ImageName::new(format!("clone-of-{source}-{tail}")).map_err(Error::internal)
}

/// Whether the volume's content can be laid down where it is attached now; it
/// grows to what that takes.
pub async fn content_at_hand(tx: &WriteTx, record: &mut VolumeRecord) -> Result<(), TxError> {
    let Some(of) = record.image.as_ref().filter(|_| !record.made) else {
        return Ok(());
    };
    let found = image::find(tx, of.id).await?;
    let why = match content_of(record, found.as_ref()) {
        VolumeContent::AtHand => {
            let content = found.and_then(|found| found.content);
            let needs = content.map_or(MiB(0), |content| content.virtual_mib);
            record.size = record.size.max(needs);
            return Ok(());
        }
        VolumeContent::Coming => "is still on its way".to_owned(),
        VolumeContent::Missing { reason } => reason,
    };
    let (name, image) = (&record.name, &of.name);
    let message = format!("volume `{name}` is to begin as image `{image}`, which {why}");
    Err(Error::conflict(message).into())
}

/// How it is about what the volume begins with, where `image` is what is recorded
/// of its image.
pub fn content_of(record: &VolumeRecord, image: Option<&ImageRecord>) -> VolumeContent {
    if record.made || record.image.is_none() || !record.state.holds_name() {
        return VolumeContent::AtHand;
    }
    let reason = match image.map(|image| (image.state, &image.failure)) {
        Some((state, _)) if state.has_content() => return VolumeContent::AtHand,
        Some((ImageState::Importing, _)) => return VolumeContent::Coming,
        Some((ImageState::Failed, why)) => {
            let why = why.as_deref().unwrap_or("nobody said why");
            format!("did not come: {why}; import that image again, or delete the volume")
        }
        Some((ImageState::Ready | ImageState::Trashed | ImageState::Removed, _)) | None => {
            "is gone; delete the volume".to_owned()
        }
    };
    VolumeContent::Missing { reason }
}

/// The image that its host just reads the volume for.
pub async fn being_read(tx: &WriteTx, id: VolumeId) -> Result<Option<ImageRecord>, TxError> {
    under_way(tx, |source, operation| {
        fetches(operation) && matches!(source, ImageSource::Volume(volume) if *volume == id)
    })
    .await
}

impl Engine {
    /// Makes another volume of what is on one now, by way of an image: the
    /// volume is there at once, and can be attached once its content is.
    ///
    /// # Errors
    /// `Invalid` naming the field at fault; `Conflict` for a name in use, and
    /// where there is nothing on the volume; `NotFound`, `Forbidden`.
    pub async fn clone_volume(
        &self,
        cx: &OpContext,
        id: VolumeId,
        form: &CloneVolume,
    ) -> Result<AcceptedVolume> {
        let name = form.check()?;
        let found = volume::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewVolume, format!("volume `{id}`"), found)?;
        let (answer, begun) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let source = volume_with_content(tx, cx, id).await?;
            let (now, clone) = (self.world().now(), new_id!(self.world(), VolumeId));
            let origin = Origin::Volume {
                volume_id: id,
                name: source.name.clone(),
                clone: Some(name.clone()),
                fetched: None,
            };
            let image = NewImage {
                id: new_id!(self.world(), ImageId),
                name: name_for(clone, &source.name)?,
                tenant_id: Some(source.tenant_id),
                order: as_copied(ImageOrder {
                    source: ImageSource::Volume(id),
                    checksum: None,
                    declared: None,
                })?,
                origin: Some(origin),
                refresh: None,
            };
            let (_, operation) = self
                .record_import(tx, &cx.subject.user_name, &image)
                .await?;
            let of = ImageOf {
                id: image.id,
                name: image.name,
            };
            let wanted = VolumeRequest {
                name: name.clone(),
                size: source.size,
                image: None,
                datastore: source.datastore.clone(),
                delete_with_vm: form.delete_with_vm,
            };
            let tenant_id = source.tenant_id;
            permit(cx, Permission::ManageVolumes, Some(tenant_id))?;
            let by = &cx.subject.user_name;
            let volume = self
                .record_volume(tx, (tenant_id, by), clone, wanted, Some(of))
                .await?;
            let answer = AcceptedVolume {
                volume,
                operation: operation.map(|operation| self.operation_view(operation)),
            };
            remember(tx, cx, now, &answer).await?;
            Ok((answer, Some(image.id)))
        })?;
        self.inner.hub.wake();
        if let Some(image) = begun {
            self.spawn_import(image);
        }
        Ok(answer)
    }

    /// The form, with a volume's name turned into its id.
    pub(super) async fn with_volume_found(
        &self,
        cx: &OpContext,
        form: &ImportImage,
    ) -> Result<ImportImage> {
        let mut form = form.clone();
        let Some(text) = form.volume.as_deref().map(str::trim) else {
            return Ok(form);
        };
        let tenant = cx.subject.tenant_id;
        if text.parse::<VolumeId>().is_ok()
            || permit(cx, Permission::ViewVolume, Some(tenant)).is_err()
        {
            return Ok(form);
        }
        let all = volume::list(&self.store().read(), tenant).await?;
        let mut named = all.into_iter().filter(|volume| volume.state.holds_name());
        if let Some(volume) = named.find(|volume| volume.name.as_str() == text) {
            form.volume = Some(volume.id.to_string());
        }
        Ok(form)
    }

    /// The host that is to send an image's bytes, where it is away.
    pub(crate) fn import_waits_for(&self, id: ImageId) -> Option<String> {
        let host = self.inner.imports.sender(id)?;
        let away = !self.inner.agents.is_connected(host.id);
        away.then(|| format!("host `{}`, which is away", host.name))
    }

    /// Asks the volume's host for what is on it.
    pub(super) async fn ask_for_volume(
        &self,
        record: &ImageRecord,
        operation: OperationRecord,
        volume_id: VolumeId,
    ) -> Result<()> {
        let (image_id, operation_id) = (record.id, operation.id);
        if self.inner.imports.is_worked_on(image_id) {
            return Ok(());
        }
        let found = volume::find(&self.store().read(), volume_id).await?;
        let found = found.filter(|volume| volume.state.holds_name());
        let Some(host) = found.and_then(|volume| volume.host) else {
            let why = "the source is gone: the volume was deleted";
            let only = Some(operation_id);
            self.give_up_waiting(image_id, only, why).await?;
            return Ok(());
        };
        let order = VolumeOrder {
            volume_id,
            image_id,
            operation_id,
        };
        let asked = host.id;
        self.inner.imports.comes_from(image_id, host);
        let frame = ToAgent::SendVolume(order);
        self.inner.agents.send_frame(asked, frame);
        let nothing = Progress {
            done_bytes: 0,
            total_bytes: 0,
            copy: None,
        };
        Teller::new(self, record, operation).tell(nothing);
        Ok(())
    }

    /// Asks hosts for what they are to send: one host, or all.
    pub(crate) async fn ask_for_volumes(&self, host: Option<HostId>) -> Result<()> {
        let read = self.store().read();
        for found in operation::running(&read).await? {
            let Object::Image(id) = found.object else {
                continue;
            };
            let record = image::find(&read, id).await?.filter(|_| fetches(&found));
            let source = record.and_then(|record| Some(record.order?.source));
            let Some(ImageSource::Volume(volume_id)) = source else {
                continue;
            };
            let volume = volume::find(&read, volume_id).await?;
            let is_there = volume.and_then(|volume| volume.host).map(|host| host.id);
            if host.is_none() || is_there == host {
                self.spawn_import(id);
            }
        }
        Ok(())
    }

    /// Begins to take in what was on a volume, so many bytes. `None` where
    /// nobody wants it any more.
    ///
    /// # Errors
    /// `TooLarge`; `Unavailable` where it is coming already, or cannot be
    /// stored.
    pub async fn receive_volume(
        &self,
        host: HostId,
        id: ImageId,
        operation_id: OperationId,
        size_bytes: u64,
    ) -> Result<Option<UploadPart>> {
        let wanted = || self.wanted_of(host, id, operation_id);
        if wanted().await?.is_none() {
            return Ok(None);
        }
        let Some(working) = Working::alone(self, id) else {
            return Err(Error::unavailable("the volume's content is just coming"));
        };
        let upload = Upload {
            size_bytes,
            file_name: String::new(),
        };
        let order = Order {
            source: ImageSource::Upload(upload.clone()),
            checksum: None,
            declared: None,
        };
        let judged = self.inner.repository.judge(&order).await;
        judged.map_err(|refusal| {
            let message = format!("the volume's content {}", refusal.message);
            Error::new(ErrorKind::TooLarge, message)
        })?;
        // What came of an earlier copy is of another instant.
        let repository = &self.inner.repository;
        repository.discard(id).await.map_err(datastore_error)?;
        let receiving = repository.receive(id, &upload).await;
        let receiving = receiving.map_err(datastore_error)?;
        // Where it was given up meanwhile, its place was just made again.
        let Some((record, operation)) = wanted().await? else {
            receiving.discard().await.map_err(datastore_error)?;
            return Ok(None);
        };
        Ok(Some(UploadPart {
            engine: self.clone(),
            teller: Teller::new(self, &record, operation),
            record,
            upload,
            receiving,
            working,
        }))
    }

    /// What was on a volume did not come whole: its host is asked anew.
    pub fn expect_volume(&self, id: ImageId) {
        self.spawn_import(id);
    }

    /// The import that waits for what this host sends.
    async fn wanted_of(
        &self,
        host: HostId,
        id: ImageId,
        operation_id: OperationId,
    ) -> Result<Option<(ImageRecord, OperationRecord)>> {
        let under_way = self.import_under_way(id).await?;
        let Some((record, operation)) =
            under_way.filter(|(_, operation)| operation.id == operation_id && fetches(operation))
        else {
            return Ok(None);
        };
        let source = record.order.as_ref().map(|order| &order.source);
        let Some(ImageSource::Volume(volume_id)) = source else {
            return Ok(None);
        };
        let volume = volume::find(&self.store().read(), *volume_id).await?;
        let is_there = volume.and_then(|volume| volume.host);
        let is_its = is_there.is_some_and(|of| of.id == host);
        Ok(is_its.then_some((record, operation)))
    }

    /// A host cannot send what is on a volume.
    pub(crate) async fn volume_not_sent(
        &self,
        speaker: &Speaker,
        order: VolumeOrder,
        fault: &Fault,
    ) -> Result<()> {
        let VolumeOrder {
            image_id,
            operation_id,
            ..
        } = order;
        let wanted = self.wanted_of(speaker.host_id, image_id, operation_id);
        if wanted.await?.is_some() {
            let why = format!("the source could not be read: {}", fault.message);
            let only = Some(operation_id);
            self.give_up_waiting(image_id, only, &why).await?;
        }
        Ok(())
    }
}
