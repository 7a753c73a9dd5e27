//! How an image goes: into the trash, out of it again, and for good.

use vimana_authz::Permission;
use vimana_model::event::Actor;
use vimana_model::image::{ImageAction, ImageState, ImageView};
use vimana_model::operation::{OperationKind, OperationView};
use vimana_model::quota::Measure;
use vimana_model::{Error, ImageId, OperationId, Result, Timestamp};
use vimana_store::image::ImageRecord;
use vimana_store::{TxError, WriteTx, image, operation, vm, volume, write_tx};

use super::change::ImageChange;
use super::import::takes;
use super::what;
use crate::Engine;
use crate::authorize::{authorized, current};
use crate::clock::ms;
use crate::context::{OpContext, new_id};
use crate::idempotency::{recall, remember};
use crate::quota::{self, Growth};

/// Whether an image's tenant, and its owner, may have so much more.
async fn may_take(tx: &WriteTx, image: &ImageRecord, growth: &Growth) -> Result<(), TxError> {
    let (Some(tenant_id), Some(owner)) = (image.tenant_id, &image.owner_name) else {
        return Ok(());
    };
    quota::may_have(tx, tenant_id, owner, growth).await
}

impl Engine {
    /// Deletes an image, restores it, removes it for good, or imports it again.
    ///
    /// # Errors
    /// `Conflict` with the sentence that refuses it, `NotFound`, `Forbidden`.
    pub async fn act_on_image(
        &self,
        cx: &OpContext,
        id: ImageId,
        action: ImageAction,
    ) -> Result<ImageView> {
        let actor = Actor::User(cx.subject.user_name.clone());
        // What is another's is found out as quickly as what never was.
        let found = image::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewCatalogue, what(id), found)?;
        let (answer, state, unwanted) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None, None));
            }
            let lock = ImageChange::lock(tx, self.world(), actor.clone(), id).await?;
            let permission = Permission::ManageImages;
            let mut change = authorized(cx, permission, what(id), lock)?.into_inner();
            let name = change.image.name.clone();
            action
                .judge(change.image.state)
                .map_err(|refusal| Error::conflict(format!("image `{name}` {refusal}")))?;
            let unwanted = change.image.successor().map(|successor| successor.id);
            match action {
                ImageAction::Delete if change.image.state == ImageState::Ready => {
                    change.cancel(cx.subject.user_name.as_str());
                    change.turn(ImageState::Trashed);
                }
                ImageAction::Delete => {
                    change.cancel(cx.subject.user_name.as_str());
                    change.turn(ImageState::Removed);
                }
                ImageAction::Restore => {
                    let one_more = Growth::from([(Measure::Images.into(), 1)]);
                    may_take(tx, &change.image, &one_more).await?;
                    change.turn(ImageState::Ready);
                    // Somebody wants it for its own sake.
                    change.image.superseded_at = None;
                }
                ImageAction::Purge => {
                    let users = vm::made_from(tx, &[id], None).await?;
                    if let Some(users) = users.get(&id) {
                        let message = format!(
                            "image `{name}` cannot be removed yet: {users} VMs are made from it"
                        );
                        return Err(Error::conflict(message).into());
                    }
                    if volume::that_waits_for(tx, id).await?.is_some() {
                        let message = format!(
                            "image `{name}` cannot be removed yet: a volume is to be made from it"
                        );
                        return Err(Error::conflict(message).into());
                    }
                    change.turn(ImageState::Removed);
                }
                ImageAction::Retry => {
                    if let Some(order) = &change.image.order {
                        may_take(tx, &change.image, &takes(order)).await?;
                    }
                    change.turn(ImageState::Importing);
                    let id = new_id!(self.world(), OperationId);
                    change.begin_import(id, cx.subject.user_name.as_str());
                }
            }
            let (record, operation) = change.save().await?;
            let state = record.state;
            let answer = self.image_view(record, operation);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(state), unwanted))
        })?;
        self.inner.hub.wake();
        match state {
            Some(ImageState::Importing) => self.spawn_import(id),
            Some(ImageState::Removed) => {
                self.inner.imports.stop(id);
                self.clear_repository(id).await;
            }
            Some(ImageState::Trashed) => {
                if let Some(successor) = unwanted {
                    self.inner.imports.stop(id);
                    self.clear_repository(successor).await;
                }
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Stops an import, or a refresh.
    pub(crate) async fn cancel_import(
        &self,
        cx: &OpContext,
        id: ImageId,
        operation_id: OperationId,
    ) -> Result<OperationView> {
        let actor = Actor::User(cx.subject.user_name.clone());
        let subject = format!("operation `{operation_id}`");
        let (answer, unwanted) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let lock = ImageChange::lock(tx, self.world(), actor.clone(), id).await?;
            let permission = Permission::ManageImages;
            let mut change = authorized(cx, permission, &subject, lock)?.into_inner();
            let under_way = change.operation.clone();
            let Some(under_way) = under_way.filter(|found| found.id == operation_id) else {
                return Err(Error::conflict("it is over").into());
            };
            let kind = under_way.kind;
            let unwanted = change
                .image
                .successor()
                .map_or(id, |successor| successor.id);
            crate::operation::view(under_way, None)
                .judge_cancel()
                .map_err(|refusal| Error::conflict(format!("the {kind} {refusal}")))?;
            let by = &cx.subject.user_name;
            change.cancel(by.as_str());
            if kind == OperationKind::Import {
                change.turn(ImageState::Failed);
                change.image.failure = Some(format!("its import was cancelled by {by}"));
            }
            change.save().await?;
            let after = operation::find(tx, operation_id).await?;
            let after = after.ok_or_else(|| Error::not_found(&subject))?;
            let answer = crate::operation::view(after, None);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(unwanted)))
        })?;
        self.inner.hub.wake();
        if let Some(unwanted) = unwanted {
            self.inner.imports.stop(id);
            self.clear_repository(unwanted).await;
        }
        Ok(answer)
    }

    pub(super) fn purge_at(&self, trashed_at: Timestamp) -> Timestamp {
        trashed_at.plus_ms(ms(self.inner.settings.trash_life))
    }

    /// Removes what the repository has of an image nobody wants; where it
    /// cannot, the sweep does it later.
    pub(super) async fn clear_repository(&self, id: ImageId) {
        if let Err(error) = self.inner.repository.discard(id).await {
            tracing::warn!(image = %id, %error, "an image's files cannot be removed yet");
        }
    }

    /// Puts into the trash what something newer took the name of, empties the
    /// trash of what has lain there long enough, both where nothing uses it,
    /// and removes files that no record wants.
    pub(crate) async fn sweep_images(&self) -> Result<()> {
        for found in image::superseded(&self.store().read()).await? {
            self.sweep_image(found.id, ImageState::Ready, ImageState::Trashed)
                .await?;
        }
        let life = self.inner.settings.trash_life;
        let before = self.world().now_to_end(life);
        let before = before.plus_ms(ms(life).saturating_neg());
        let old = image::in_state(&self.store().read(), ImageState::Trashed, before).await?;
        for found in old {
            self.sweep_image(found.id, ImageState::Trashed, ImageState::Removed)
                .await?;
        }
        let held = self.inner.repository.contents().await;
        let held = held.map_err(Error::internal)?;
        // Before their records: what has taken its place since has one.
        let coming = image::successors(&self.store().read()).await?;
        for id in held.into_keys().filter(|id| !coming.contains(id)) {
            let record = image::find(&self.store().read(), id).await?;
            let wanted = record.is_some_and(|record| {
                record.state.has_content() || record.state == ImageState::Importing
            });
            if !wanted {
                tracing::info!(image = %id, "files of an image that nobody wants are removed");
                self.clear_repository(id).await;
            }
        }
        Ok(())
    }
    /// One step further on its way out, unless something uses it.
    async fn sweep_image(&self, id: ImageId, from: ImageState, to: ImageState) -> Result<()> {
        write_tx!(self.store(), |tx| {
            let lock = ImageChange::lock(tx, self.world(), Actor::System, id).await?;
            let used = vm::made_from(tx, &[id], None).await?.contains_key(&id)
                || volume::that_waits_for(tx, id).await?.is_some();
            let Some(mut change) = lock else {
                return Ok(());
            };
            let wanted = from == ImageState::Ready && change.image.superseded_at.is_none();
            if !used && !wanted && change.image.state == from {
                change.turn(to);
                change.save().await?;
            }
            Ok(())
        })?;
        self.inner.hub.wake();
        Ok(())
    }
}
