//! How an image comes: asked for, fetched, entered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vimana_authz::Permission;
use vimana_model::backup::{Becomes, Restoration};
use vimana_model::event::{Actor, EventKind, ProgressItem};
use vimana_model::image::{
    AcceptedImage, Fetched, ImageSource, ImageState, ImportImage, Origin, Upload,
};
use vimana_model::name::{ImageName, UserName};
use vimana_model::operation::{Object, Progress, StepKind};
use vimana_model::quota::Measure;
use vimana_model::vm::HostRef;
use vimana_model::{BackupId, Error, ErrorKind, FieldError, ImageId, Result, TenantId};
use vimana_repository::{Arrived, Order, Refusal};
use vimana_store::image::{ImageOrder, ImageRecord, ImageRefresh};
use vimana_store::operation::OperationRecord;
use vimana_store::{TxError, WriteTx, image, operation, write_tx};

use super::change::ImageChange;
use super::refresh;
use super::volume::{as_copied, origin_of_volume};
use crate::Engine;
use crate::authorize::{current, permit};
use crate::context::{OpContext, new_id};
use crate::event::Telemetry;
use crate::idempotency::{recall, remember};
use crate::limits::{MAX_IMPORTS_AT_ONCE, PROGRESS_EVERY};
use crate::quota::{self, Growth};
use crate::saga;

/// The imports that this server works on.
#[derive(Default)]
pub struct Imports {
    by_image: Mutex<HashMap<ImageId, CancellationToken>>,
    /// When something last came of each upload that waits for more.
    heard_at: Mutex<HashMap<ImageId, Duration>>,
    /// The hosts that are to send what is on a volume.
    senders: Mutex<HashMap<ImageId, HostRef>>,
    /// Of each tenant, so that slow sources of one keep nobody else waiting.
    rooms: Mutex<HashMap<Option<TenantId>, Arc<Semaphore>>>,
}

impl Imports {
    /// Work on an image begins; whatever was done for it before ends.
    fn enter(&self, id: ImageId) -> CancellationToken {
        self.silence().remove(&id);
        self.senders().remove(&id);
        let token = CancellationToken::new();
        if let Some(before) = self.lock().insert(id, token.clone()) {
            before.cancel();
        }
        token
    }

    /// The same, unless somebody works on it.
    fn enter_alone(&self, id: ImageId) -> Option<CancellationToken> {
        match self.lock().entry(id) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => Some(free.insert(CancellationToken::new()).clone()),
        }
    }

    fn leave(&self, id: ImageId, token: &CancellationToken) {
        if !token.is_cancelled() {
            self.lock().remove(&id);
        }
    }

    /// Nobody wants it any more.
    pub fn stop(&self, id: ImageId) {
        if let Some(token) = self.lock().remove(&id) {
            token.cancel();
        }
        self.silence().remove(&id);
        self.senders().remove(&id);
    }

    /// Whether somebody works on it.
    pub fn is_worked_on(&self, id: ImageId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Its bytes are to come from that host.
    pub fn comes_from(&self, id: ImageId, host: HostRef) {
        self.senders().insert(id, host);
    }

    pub fn comes_from_nobody(&self, id: ImageId) {
        self.senders().remove(&id);
    }

    /// Where its bytes are to come from.
    pub fn sender(&self, id: ImageId) -> Option<HostRef> {
        self.senders().get(&id).cloned()
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<ImageId, HostRef>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of its upload came, or is waited for from now on.
    pub fn heard(&self, id: ImageId, now: Duration) {
        self.silence().insert(id, now);
    }

    /// Takes out the uploads of which nothing came for so long, in an order of
    /// their own.
    pub fn take_silent(&self, now: Duration, patience: Duration) -> Vec<ImageId> {
        let mut heard = self.silence();
        let silent = heard.extract_if(|_, at| now.saturating_sub(*at) >= patience);
        let mut silent: Vec<ImageId> = silent.map(|(id, _)| id).collect();
        silent.sort_unstable();
        silent
    }

    fn silence(&self) -> MutexGuard<'_, HashMap<ImageId, Duration>> {
        self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, tenant: Option<TenantId>) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = || Arc::new(Semaphore::new(MAX_IMPORTS_AT_ONCE));
        Arc::clone(rooms.entry(tenant).or_insert_with(room))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ImageId, CancellationToken>> {
        self.by_image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work on an image by one alone, until dropped.
pub struct Working {
    engine: Engine,
    id: ImageId,
    token: CancellationToken,
}

impl Working {
    /// None where somebody works on it.
    pub fn alone(engine: &Engine, id: ImageId) -> Option<Self> {
        let token = engine.inner.imports.enter_alone(id)?;
        Some(Self {
            engine: engine.clone(),
            id,
            token,
        })
    }

    /// Returns when nobody wants the image any more.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.engine.inner.imports.leave(self.id, &self.token);
    }
}

/// Tells whoever watches how far an import is.
pub struct Teller {
    engine: Engine,
    tenant_id: Option<TenantId>,
    operation: OperationRecord,
    told_at: Mutex<Option<Duration>>,
}

impl Teller {
    pub fn new(engine: &Engine, record: &ImageRecord, operation: OperationRecord) -> Self {
        Self {
            engine: engine.clone(),
            tenant_id: record.tenant_id,
            operation,
            told_at: Mutex::default(),
        }
    }

    pub fn tell(&self, progress: Progress) {
        let inner = &self.engine.inner;
        inner.progress.set(self.operation.id, progress);
        let now = inner.world.passed();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|told_at| now.saturating_sub(told_at) >= PROGRESS_EVERY) {
            *told_at = Some(now);
            let tenant_id = self.tenant_id;
            let item = ProgressItem {
                operation: self.engine.operation_view(self.operation.clone()),
            };
            inner.hub.tell(Telemetry { tenant_id, item });
        }
    }
}

impl Engine {
    /// Asks for an image to be imported.
    ///
    /// # Errors
    /// `Invalid` naming each field at fault, also for a source that may not be
    /// taken from; `Conflict` for a name in use; `Forbidden`, also for a path
    /// of the server's machine where no administrator asks.
    pub async fn import_image(&self, cx: &OpContext, form: &ImportImage) -> Result<AcceptedImage> {
        let wanted = self.with_volume_found(cx, form).await?.check()?;
        let tenant_id = (!wanted.public).then_some(cx.subject.tenant_id);
        // Before anything is looked up for somebody who may not ask for it.
        permit(cx, Permission::ManageImages, tenant_id)?;
        if matches!(wanted.source, ImageSource::Path(_)) {
            permit(cx, Permission::ManageImages, None)?;
        }
        let order = ImageOrder {
            source: wanted.source,
            checksum: wanted.checksum,
            declared: wanted.format,
        };
        let (order, origin) = match &order.source {
            // A host answers for it: the transaction looks at the volume.
            ImageSource::Volume(_) => (as_copied(order)?, None),
            ImageSource::Backup(backup) => {
                let origin = self.judge_backup(cx, &backup.from).await?;
                (order, Some(origin))
            }
            source @ (ImageSource::Url(_) | ImageSource::Upload(_) | ImageSource::Path(_)) => {
                let judged = self.inner.repository.judge(&order_of(&order)).await;
                let origin = judged.map_err(|refusal| refused(source, &refusal))?;
                (order, Some(origin))
            }
        };
        let image = NewImage {
            id: new_id!(self.world(), ImageId),
            name: wanted.name,
            tenant_id,
            order,
            origin,
            refresh: wanted.refresh.map(ImageRefresh::new),
        };
        let permission = Permission::ManageImages;
        self.begin_import(cx, image, permission).await
    }

    /// Records an image that is to be imported, and begins.
    ///
    /// # Errors
    /// `Conflict` for a name in use, `Forbidden`.
    pub(crate) async fn begin_import(
        &self,
        cx: &OpContext,
        image: NewImage,
        permission: Permission,
    ) -> Result<AcceptedImage> {
        let (answer, begun) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            permit(cx, permission, image.tenant_id)?;
            if matches!(image.order.source, ImageSource::Path(_)) {
                permit(cx, permission, None)?;
            }
            Self::refuse_names_in_use(tx, &image).await?;
            let mut image = image.clone();
            if let ImageSource::Volume(id) = image.order.source {
                image.origin = Some(origin_of_volume(tx, cx, id).await?);
            }
            let by = &cx.subject.user_name;
            if let Some(tenant_id) = image.tenant_id {
                quota::may_have(tx, tenant_id, by, &takes(&image.order)).await?;
            }
            let (record, operation) = self.record_import(tx, by, &image).await?;
            let id = record.id;
            let answer = self.accepted_image(record, operation)?;
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(id)))
        })?;
        self.inner.hub.wake();
        if let Some(id) = begun {
            self.spawn_import(id);
        }
        Ok(answer)
    }

    /// Records the image, and the operation that imports it.
    pub(crate) async fn record_import(
        &self,
        tx: &WriteTx,
        by: &UserName,
        image: &NewImage,
    ) -> Result<(ImageRecord, Option<OperationRecord>), TxError> {
        let now = self.world().now();
        let origin = image.origin.clone();
        let origin = origin.ok_or_else(|| Error::internal("an order without an origin"))?;
        let record = ImageRecord {
            id: image.id,
            tenant_id: image.tenant_id,
            owner_name: Some(by.clone()),
            name: image.name.clone(),
            state: ImageState::Importing,
            state_since: now,
            failure: None,
            origin,
            order: Some(image.order.clone()),
            content: None,
            operation_id: None,
            generation: 1,
            created_at: now,
            refresh: image.refresh.clone(),
            superseded_at: None,
        };
        let actor = Actor::User(by.clone());
        let mut change = ImageChange::of(tx, self.world(), actor, record);
        let id = new_id!(self.world(), OperationId);
        change.begin_import(id, by.as_str());
        change.save().await
    }

    pub(crate) fn accepted_image(
        &self,
        record: ImageRecord,
        operation: Option<OperationRecord>,
    ) -> Result<AcceptedImage, TxError> {
        let missing = || Error::internal("an import without an operation");
        let operation = operation.ok_or_else(missing)?;
        Ok(AcceptedImage {
            operation: self.operation_view(operation.clone()),
            image: self.image_view(record, Some(operation)),
        })
    }

    /// Works on the image's import, from the step it is at to its end; on that
    /// of an upload once it has come whole, and whoever sends the rest begins
    /// it then.
    pub(crate) fn spawn_import(&self, id: ImageId) {
        let engine = self.clone();
        self.spawn(async move {
            let looked = engine.persist("an upload", || engine.is_whole(id));
            match looked.await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(image = %id, error = ?error, "an import cannot go on");
                    return;
                }
            }
            engine.work_alone(id, None).await;
        });
    }

    /// The same for one whose bytes have come whole.
    pub(super) fn spawn_whole(&self, id: ImageId, came: Upload) {
        let engine = self.clone();
        self.spawn(async move { engine.work_alone(id, Some(came)).await });
    }

    async fn work_alone(&self, id: ImageId, came: Option<Upload>) {
        let token = self.inner.imports.enter(id);
        let work = Box::pin(self.work_on_import(id, came));
        // What came in before it was stopped is the sweep's.
        token.run_until_cancelled(work).await;
        self.inner.imports.leave(id, &token);
    }

    async fn work_on_import(&self, id: ImageId, came: Option<Upload>) {
        let mut room = None;
        loop {
            let recorded = self.persist("an import", || self.import_under_way(id));
            let (record, operation) = match recorded.await {
                Ok(Some(under_way)) => under_way,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(image = %id, error = ?error, "an import cannot go on");
                    return;
                }
            };
            if room.is_none() {
                let of_tenant = self.inner.imports.room(record.tenant_id);
                // Nobody closes it. What is under way is looked at anew: the
                // wait may have been long.
                room = of_tenant.acquire_owned().await.ok();
                continue;
            }
            let fetches =
                saga::current(&operation).is_some_and(|current| current.kind == StepKind::Fetch);
            let done = if fetches {
                Done::Fetched(Box::new(
                    self.fetch(&record, &operation, came.as_ref()).await,
                ))
            } else {
                Done::Entered(self.enter(&record).await)
            };
            let step_done = || self.import_step_done(id, &operation, &done);
            if let Err(error) = self.persist("a step of an import", step_done).await {
                tracing::error!(image = %id, error = ?error, "an import cannot go on");
                return;
            }
        }
    }

    pub(super) async fn import_under_way(
        &self,
        id: ImageId,
    ) -> Result<Option<(ImageRecord, OperationRecord)>> {
        let read = self.store().read();
        let Some(record) = image::find(&read, id).await? else {
            return Ok(None);
        };
        let under_way = operation::in_flight(&read, record.operation_id).await?;
        Ok(under_way.map(|operation| (record, operation)))
    }

    async fn fetch(
        &self,
        record: &ImageRecord,
        operation: &OperationRecord,
        came: Option<&Upload>,
    ) -> Result<Arrived, Refusal> {
        let Some(order) = &record.order else {
            return Err(Refusal {
                message: "is no longer recorded".to_owned(),
            });
        };
        let teller = Teller::new(self, record, operation.clone());
        let tell = |progress| teller.tell(progress);
        if let ImageSource::Backup(backup) = &order.source {
            return self.fetch_backup(record.id, &backup.from, &tell).await;
        }
        let repository = &self.inner.repository;
        let mut order = order_of(order);
        if let Some(came) = came {
            order.source = ImageSource::Upload(came.clone());
        }
        repository.fetch(place(record), &order, &tell).await
    }

    async fn enter(&self, record: &ImageRecord) -> Result<(), Refusal> {
        let lost = || Refusal {
            message: "came, but what came is no longer recorded".to_owned(),
        };
        let content = match record.successor() {
            Some(successor) => successor.content.as_ref(),
            None => record.content.as_ref(),
        };
        let content = content.ok_or_else(lost)?;
        let entered = self.inner.repository.enter(place(record), content.format);
        entered.await.map_err(|error| {
            tracing::error!(image = %record.id, %error, "an image cannot be entered");
            Refusal {
                message: format!("cannot be stored: {error}"),
            }
        })
    }

    async fn import_step_done(
        &self,
        id: ImageId,
        worked_on: &OperationRecord,
        done: &Done,
    ) -> Result<()> {
        let world = self.world();
        let (more, unwanted, begun) = write_tx!(self.store(), |tx| {
            let lock = ImageChange::lock(tx, world, Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok((false, None, Vec::new()));
            };
            let restoration = restoration_of(&change.image);
            let mut begun = Vec::new();
            let asked = change.operation.as_ref();
            let same = asked.is_some_and(|operation| {
                (operation.id, operation.step) == (worked_on.id, worked_on.step)
            });
            if !same {
                return Ok((false, None, Vec::new()));
            }
            let place = place(&change.image);
            let mut successor = None;
            let over_quota = match done {
                Done::Fetched(fetched) => over_quota(tx, &change.image, fetched).await?,
                Done::Entered(_) => None,
            };
            match done {
                Done::Fetched(fetched) => match fetched.as_ref() {
                    Ok(_) if over_quota.is_some() => change.fail(&over_quota.unwrap_or_default()),
                    Ok(arrived) if place == id => {
                        change.image.content = Some(arrived.content.clone());
                        let verified = is_verified(&change.image);
                        let fetched = fetched_of(arrived, verified);
                        change.image.origin.set_fetched(Some(fetched));
                        if let Some(refresh) = &mut change.image.refresh {
                            refresh.version.clone_from(&arrived.version);
                        }
                        change.end_step();
                    }
                    Ok(arrived) => refresh::arrived(&mut change, arrived),
                    Err(refusal) => change.fail(&sentence(refusal)),
                },
                Done::Entered(Ok(())) => {
                    successor = refresh::succeed(tx, world, &mut change).await?;
                    change.end_step();
                }
                Done::Entered(Err(refusal)) => change.fail(&sentence(refusal)),
            }
            let more = change.operation.is_some();
            // Whatever of it has come: it failed, or is what is there already.
            let came = match place == id {
                true => change.image.state.has_content(),
                false => successor.is_some(),
            };
            let unwanted = (!more && !came).then_some(place);
            let is_ready = change.image.state == ImageState::Ready;
            let (image, _) = change.save().await?;
            if let Some((from, wanted)) = restoration.as_ref().filter(|_| is_ready) {
                begun = self.finish_restoration(tx, &image, *from, wanted).await?;
            }
            // Its name is free now.
            if let Some(successor) = successor {
                let mut change = ImageChange::of(tx, world, Actor::System, successor);
                change.add_event(EventKind::Image {
                    from: ImageState::Importing,
                    to: ImageState::Ready,
                });
                change.save().await?;
            }
            Ok((more, unwanted, begun))
        })?;
        self.inner.hub.wake();
        for image in begun {
            self.spawn_import(image);
        }
        if !more {
            self.inner.progress.forget(worked_on.id);
        }
        if let Some(unwanted) = unwanted {
            self.clear_repository(unwanted).await;
        }
        Ok(())
    }
}

/// An image that is to be imported.
#[derive(Clone)]
pub struct NewImage {
    pub id: ImageId,
    pub name: ImageName,
    pub tenant_id: Option<TenantId>,
    pub order: ImageOrder,
    /// None of a volume's: that is looked at when the image is recorded.
    pub origin: Option<Origin>,
    pub refresh: Option<ImageRefresh>,
}

enum Done {
    Fetched(Box<Result<Arrived, Refusal>>),
    Entered(Result<(), Refusal>),
}

/// What an image that is to be imported counts.
pub(super) fn takes(order: &ImageOrder) -> Growth {
    let size = match &order.source {
        ImageSource::Upload(upload) => upload.size_bytes,
        // Nobody knows before it has come.
        ImageSource::Url(_)
        | ImageSource::Path(_)
        | ImageSource::Volume(_)
        | ImageSource::Backup(_) => 0,
    };
    Growth::from([
        (Measure::Images.into(), 1),
        (Measure::ImageBytes.into(), size),
        (Measure::Operations.into(), 1),
    ])
}

/// Why what has come is more than the image's tenant, or owner, may have.
async fn over_quota(
    tx: &WriteTx,
    image: &ImageRecord,
    fetched: &Result<Arrived, Refusal>,
) -> Result<Option<String>, TxError> {
    let (Some(tenant_id), Some(owner), Ok(arrived)) = (image.tenant_id, &image.owner_name, fetched)
    else {
        return Ok(None);
    };
    // A source that has nothing new.
    let known = image.content.as_ref();
    if known.is_some_and(|known| known.sha256 == arrived.content.sha256) {
        return Ok(None);
    }
    let growth = Growth::from([(Measure::ImageBytes.into(), arrived.content.size_bytes)]);
    match quota::may_have(tx, tenant_id, owner, &growth).await {
        Ok(()) => Ok(None),
        Err(TxError::Engine(error)) if error.kind == ErrorKind::OverQuota => Ok(Some(error.public)),
        Err(error) => Err(error),
    }
}

/// An image whose import is under way and has such a source.
pub async fn under_way(
    tx: &WriteTx,
    wanted: impl Fn(&ImageSource, &OperationRecord) -> bool,
) -> Result<Option<ImageRecord>, TxError> {
    for found in operation::running(tx).await? {
        let Object::Image(id) = found.object else {
            continue;
        };
        let is_wanted = |record: &ImageRecord| {
            let order = record.order.as_ref();
            order.is_some_and(|order| wanted(&order.source, &found))
        };
        if let Some(record) = image::find(tx, id).await?.filter(is_wanted) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Where its import, or that of what is to take its place, puts what comes.
fn place(image: &ImageRecord) -> ImageId {
    image.successor().map_or(image.id, |successor| successor.id)
}

fn is_verified(image: &ImageRecord) -> bool {
    let order = image.order.as_ref();
    order.is_some_and(|order| order.checksum.is_some())
}

pub(super) fn fetched_of(arrived: &Arrived, verified: bool) -> Fetched {
    Fetched {
        size_bytes: arrived.fetched_bytes,
        checksum: arrived.fetched_checksum.clone(),
        verified,
    }
}

/// The VM that is to be made of it. Once it is ready, its record tells no more.
fn restoration_of(image: &ImageRecord) -> Option<(BackupId, Restoration)> {
    match &image.order.as_ref()?.source {
        ImageSource::Backup(backup) => match &backup.becomes {
            Some(Becomes::Vm(wanted)) => Some((backup.from.backup_id, wanted.clone())),
            Some(Becomes::Volume) | None => None,
        },
        ImageSource::Url(_)
        | ImageSource::Upload(_)
        | ImageSource::Path(_)
        | ImageSource::Volume(_) => None,
    }
}

pub(super) fn order_of(order: &ImageOrder) -> Order {
    Order {
        source: order.source.clone(),
        checksum: order.checksum.clone(),
        declared: order.declared,
    }
}

/// About the field that says where the image is.
pub(super) fn refused(source: &ImageSource, refusal: &Refusal) -> Error {
    let (field, what) = match source {
        ImageSource::Url(_) => ("url", "source"),
        ImageSource::Upload(_) => ("upload.size_bytes", "file"),
        ImageSource::Path(_) => ("path", "file"),
        ImageSource::Backup(_) => ("backup", "backup"),
        ImageSource::Volume(_) => ("volume", "volume"),
    };
    FieldError::new(field, format!("the {what} {}", refusal.message)).into()
}

/// About the source, for whoever reads why nothing came of it.
pub(super) fn sentence(refusal: &Refusal) -> String {
    format!("the source {}", refusal.message)
}
