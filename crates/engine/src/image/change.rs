//! An image under change: it and its import, inside one transaction, together
//! with the events that causes.

use vimana_model::backup::Becomes;
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::{ImageSource, ImageState, Origin};
use vimana_model::operation::{Object, OperationKind, OperationState, Situation, StepState};
use vimana_model::{ImageId, OperationId, TenantId, Timestamp};
use vimana_store::event::NewEvent;
use vimana_store::image::{ImageOrder, ImageRecord};
use vimana_store::operation::{OperationRecord, Undo};
use vimana_store::{TxError, WriteTx, event, image, operation, volume};

use crate::authorize::Owned;
use crate::context::World;
use crate::name;
use crate::operation::{begin_step, begun, end};

/// Nothing is written before [`ImageChange::save`].
pub struct ImageChange<'a> {
    tx: &'a WriteTx,
    now: Timestamp,
    actor: Actor,
    pub image: ImageRecord,
    /// The import in flight, if any.
    pub operation: Option<OperationRecord>,
    ended: Option<OperationRecord>,
    is_new: bool,
    begun: Option<OperationId>,
    events: Vec<EventKind>,
}

impl Owned for ImageChange<'_> {
    fn tenant_id(&self) -> Option<TenantId> {
        self.image.tenant_id
    }
}

impl<'a> ImageChange<'a> {
    /// Locks the image and its import in flight; `None` if there is no such
    /// image.
    pub async fn lock(
        tx: &'a WriteTx,
        world: &World,
        actor: Actor,
        id: ImageId,
    ) -> Result<Option<Self>, TxError> {
        let Some(image) = image::lock(tx, id).await? else {
            return Ok(None);
        };
        let operation = operation::in_flight(tx, image.operation_id).await?;
        Ok(Some(Self {
            operation,
            is_new: false,
            ..Self::of(tx, world, actor, image)
        }))
    }

    /// An image that is not recorded yet.
    pub fn of(tx: &'a WriteTx, world: &World, actor: Actor, image: ImageRecord) -> Self {
        Self {
            tx,
            now: world.now(),
            actor,
            image,
            operation: None,
            ended: None,
            is_new: true,
            begun: None,
            events: Vec::new(),
        }
    }

    /// Begins its import.
    pub fn begin_import(&mut self, id: OperationId, by: &str) {
        self.image.origin.set_fetched(None);
        self.begin(OperationKind::Import, id, by);
    }

    /// Begins to bring in what is to take its place; where that is to be kept
    /// is known already.
    pub fn begin_refresh(&mut self, id: OperationId, by: &str) {
        self.begin(OperationKind::Refresh, id, by);
    }

    fn begin(&mut self, kind: OperationKind, id: OperationId, by: &str) {
        let object = Object::Image(self.image.id);
        let steps = kind.steps(Situation::default());
        let mut operation = begun(id, object, kind, steps, by, self.now);
        if let Some(first) = operation.steps.first_mut() {
            begin_step(first, self.now);
        }
        self.add_event(EventKind::Requested { operation: kind });
        self.image.operation_id = Some(id);
        self.begun = Some(id);
        self.operation = Some(operation);
    }

    pub fn turn(&mut self, to: ImageState) {
        let from = self.image.state;
        if from == to {
            return;
        }
        self.image.state = to;
        self.image.state_since = self.now;
        if to != ImageState::Failed {
            self.image.failure = None;
        }
        if matches!(to, ImageState::Failed | ImageState::Removed) {
            self.image.content = None;
        }
        match to {
            ImageState::Importing | ImageState::Failed => {}
            ImageState::Ready => self.becomes_ready(),
            ImageState::Trashed | ImageState::Removed => {
                self.image.refresh = None;
                self.image.order = None;
            }
        }
        self.add_event(EventKind::Image { from, to });
    }

    /// From now on its source is asked for something new, where that was asked
    /// for; otherwise a password has no business here any more.
    fn becomes_ready(&mut self) {
        let now = self.now;
        match (&mut self.image.refresh, &mut self.image.order) {
            (Some(refresh), Some(order)) => {
                refresh.last_at = Some(now);
                refresh.next_at = Some(now.plus_ms(refresh.every.as_ms()));
                // It is of what has come.
                order.checksum = None;
            }
            (Some(_) | None, _) => self.image.order = None,
        }
    }

    pub fn add_event(&mut self, event: EventKind) {
        self.events.push(event);
    }

    /// The step under way is through; the next begins, or all are.
    pub fn end_step(&mut self) {
        let now = self.now;
        let Some(operation) = self.operation.as_mut() else {
            return;
        };
        let index = usize::try_from(operation.step).unwrap_or(usize::MAX);
        if let Some(step) = operation.steps.get_mut(index) {
            step.state = StepState::Done;
            step.ended_at = Some(now);
            self.events.push(EventKind::Step { step: step.kind });
        }
        operation.step = operation.step.saturating_add(1);
        match operation.steps.get_mut(index.saturating_add(1)) {
            Some(next) => begin_step(next, now),
            None => {
                self.retire(OperationState::Succeeded, None);
                let of_volume = is_of_volume(&self.image);
                self.turn(ImageState::Ready);
                // It is nobody's to choose; the volume keeps it from being
                // removed.
                if of_volume {
                    self.turn(ImageState::Trashed);
                }
            }
        }
    }

    /// The import failed, and nothing is kept of it; or the refresh did, and
    /// the image stays as it is.
    pub fn fail(&mut self, reason: &str) {
        let Some(operation) = self.operation.as_ref().map(|operation| operation.kind) else {
            return;
        };
        self.retire(OperationState::Failed, Some(reason));
        self.not_done(operation, reason);
    }

    /// What happens to the image when an operation comes to nothing.
    fn not_done(&mut self, operation: OperationKind, reason: &str) {
        self.add_event(EventKind::OperationFailed {
            operation,
            reason: reason.to_owned(),
        });
        if operation == OperationKind::Refresh {
            self.not_refreshed(reason);
        } else {
            self.turn(ImageState::Failed);
            self.image.failure = Some(reason.to_owned());
        }
    }

    /// The source was asked for something new, and cannot say.
    pub fn unanswered(&mut self, reason: &str) {
        self.not_done(OperationKind::Refresh, reason);
    }

    /// It serves as it is until its source is asked the next time.
    fn not_refreshed(&mut self, reason: &str) {
        let now = self.now;
        if let Some(refresh) = &mut self.image.refresh {
            refresh.successor = None;
            refresh.failure = Some(reason.to_owned());
            refresh.next_at = Some(now.plus_ms(refresh.every.as_ms()));
        }
    }

    /// It is what its source has.
    pub fn up_to_date(&mut self, version: Option<String>) {
        let now = self.now;
        if let Some(refresh) = &mut self.image.refresh {
            refresh.successor = None;
            refresh.failure = None;
            refresh.version = version;
            refresh.last_at = Some(now);
            refresh.next_at = Some(now.plus_ms(refresh.every.as_ms()));
        }
        if let Some(operation) = &mut self.operation {
            // What has come need not be entered.
            let done = usize::try_from(operation.step).unwrap_or(usize::MAX);
            operation.steps.truncate(done.saturating_add(1));
            self.end_step();
        }
        let successor = None;
        self.add_event(EventKind::ImageRefreshed { successor });
    }

    /// Someone no longer wants the import.
    pub fn cancel(&mut self, by: &str) {
        let Some(operation) = self.operation.as_mut() else {
            return;
        };
        operation.undo = Some(Undo::Cancelled { by: by.to_owned() });
        let kind = operation.kind;
        self.retire(OperationState::Cancelled, None);
        self.add_event(EventKind::Cancelled { operation: kind });
        if kind == OperationKind::Refresh {
            self.not_refreshed(&format!("it was cancelled by {by}"));
        }
    }

    fn retire(&mut self, state: OperationState, error: Option<&str>) {
        if let Some(mut operation) = self.operation.take() {
            end(&mut operation, state, error, self.now);
            self.ended = Some(operation);
        }
    }

    /// Writes everything down; answers the image and its latest operation.
    ///
    /// # Errors
    /// `Conflict` where its name is taken.
    pub async fn save(mut self) -> Result<(ImageRecord, Option<OperationRecord>), TxError> {
        let name = self.image.name.clone();
        let saved = if self.is_new {
            image::insert(self.tx, &self.image).await
        } else {
            image::update(self.tx, &mut self.image).await
        };
        saved.map_err(|error| name::in_use(error, "an image", name.as_str()))?;
        let latest = self.operation.or(self.ended);
        if let Some(record) = &latest {
            if self.begun == Some(record.id) {
                operation::insert(self.tx, record).await?;
            } else {
                operation::update(self.tx, record).await?;
            }
        }
        // The volume that it becomes is told of it, too.
        let for_one = matches!(
            self.image.origin,
            Origin::Volume { clone: Some(_), .. } | Origin::Backup { .. }
        );
        let volume = if for_one && !self.events.is_empty() {
            volume::that_waits_for(self.tx, self.image.id).await?
        } else {
            None
        };
        let fact = |event| NewEvent {
            at: self.now,
            actor: self.actor.clone(),
            tenant_id: self.image.tenant_id,
            vm_id: None,
            host_id: None,
            request_id: None,
            image_id: Some(self.image.id),
            volume_id: volume.as_ref().map(|volume| volume.id),
            event,
        };
        let facts: Vec<NewEvent> = self.events.drain(..).map(fact).collect();
        if !facts.is_empty() {
            event::append(self.tx, &facts).await?;
        }
        Ok((self.image, latest))
    }
}

/// Whether it is there for a volume alone: a clone, or what was in a backup.
fn is_of_volume(image: &ImageRecord) -> bool {
    let becomes = |order: &ImageOrder| match &order.source {
        ImageSource::Backup(backup) => backup.becomes == Some(Becomes::Volume),
        ImageSource::Url(_)
        | ImageSource::Upload(_)
        | ImageSource::Path(_)
        | ImageSource::Volume(_) => false,
    };
    matches!(image.origin, Origin::Volume { clone: Some(_), .. })
        || image.order.as_ref().is_some_and(becomes)
}
