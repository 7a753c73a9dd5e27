//! How an image stays what its source has.
//!
//! When its time has come, the source is asked whether it has changed. If so,
//! what is new is brought in by an operation of the image's own, whose two steps
//! are those of an import, under an id that is recorded before: the successor.
//! Until it has its place nothing changes for anybody. Then, in one transaction,
//! it gets a record of its own and the image's name, and the image, which keeps
//! its format, its content and the VMs made from it, gets another; once nothing
//! is made from it any more, the sweep puts it into the trash.

use futures::{StreamExt as _, stream};
use vimana_authz::Permission;
use vimana_model::event::{Actor, EventKind};
use vimana_model::image::{ImageSource, ImageState, ImageView, Origin, RefreshEvery, RefreshImage};
use vimana_model::name::ImageName;
use vimana_model::operation::OperationKind;
use vimana_model::{Error, FieldError, ImageId, Result, Timestamp};
use vimana_repository::{Arrived, Refusal};
use vimana_store::image::{self, ImageOrder, ImageRecord, ImageRefresh, Successor};
use vimana_store::{TxError, WriteTx, write_tx};

use super::change::ImageChange;
use super::import::{fetched_of, order_of, refused, sentence};
use super::what;
use crate::Engine;
use crate::authorize::{authorized, current};
use crate::clock::ms;
use crate::context::{OpContext, World, new_id};
use crate::idempotency::{recall, remember};
use crate::limits::{MAX_DUE, MAX_REFRESHES_AT_ONCE, REFRESH_PATIENCE};

impl Engine {
    /// Has an image refreshed from now on, or, without a form, no more.
    ///
    /// # Errors
    /// `Invalid`, also where its URL is not known any more and not given;
    /// `Conflict` where it is not ready or did not come from a URL, `NotFound`,
    /// `Forbidden`.
    pub async fn set_image_refresh(
        &self,
        cx: &OpContext,
        id: ImageId,
        form: Option<&RefreshImage>,
    ) -> Result<ImageView> {
        let wanted = form.map(RefreshImage::check).transpose()?;
        let found = image::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewCatalogue, what(id), found)?;
        let given = match wanted.as_ref().and_then(|(_, url)| url.clone()) {
            Some(url) => Some(self.judged(url).await?),
            None => None,
        };
        let actor = Actor::User(cx.subject.user_name.clone());
        let answer = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok(answer);
            }
            let lock = ImageChange::lock(tx, self.world(), actor.clone(), id).await?;
            let change = authorized(cx, Permission::ManageImages, what(id), lock)?;
            let mut change = change.into_inner();
            let now = self.world().now();
            match &wanted {
                Some((every, _)) => schedule(&mut change.image, *every, given.clone(), now)?,
                None => stop(&mut change)?,
            }
            let every = wanted.as_ref().map(|(every, _)| *every);
            change.add_event(EventKind::ImageRefreshSet { every });
            let (record, operation) = change.save().await?;
            let answer = self.image_view(record, operation);
            remember(tx, cx, now, &answer).await?;
            Ok(answer)
        })?;
        self.inner.hub.wake();
        Ok(answer)
    }

    /// Where it comes from, and how that may be shown.
    async fn judged(&self, url: String) -> Result<(ImageOrder, Origin)> {
        let order = ImageOrder {
            source: ImageSource::Url(url),
            checksum: None,
            declared: None,
        };
        let judged = self.inner.repository.judge(&order_of(&order)).await;
        let origin = judged.map_err(|refusal| refused(&order.source, &refusal))?;
        Ok((order, origin))
    }

    /// Has its source asked at once.
    ///
    /// # Errors
    /// `Conflict` where it is not refreshed, or just is; `NotFound`,
    /// `Forbidden`.
    pub async fn refresh_image(&self, cx: &OpContext, id: ImageId) -> Result<ImageView> {
        let found = image::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewCatalogue, what(id), found)?;
        let actor = Actor::User(cx.subject.user_name.clone());
        let (answer, asked) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, false));
            }
            let lock = ImageChange::lock(tx, self.world(), actor.clone(), id).await?;
            let change = authorized(cx, Permission::ManageImages, what(id), lock)?;
            let mut change = change.into_inner();
            let now = self.world().now();
            let refused = |why: &str| {
                let name = &change.image.name;
                Error::conflict(format!("image `{name}` {why}"))
            };
            if change.image.state != ImageState::Ready {
                return Err(refused("is not ready").into());
            }
            if change.image.successor().is_some() {
                return Err(refused("is being refreshed already").into());
            }
            let Some(refresh) = &mut change.image.refresh else {
                return Err(refused("is not refreshed; say how often first").into());
            };
            refresh.next_at = Some(now);
            change.add_event(EventKind::Requested {
                operation: OperationKind::Refresh,
            });
            let (record, operation) = change.save().await?;
            let answer = self.image_view(record, operation);
            remember(tx, cx, now, &answer).await?;
            Ok((answer, true))
        })?;
        self.inner.hub.wake();
        if asked {
            let engine = self.clone();
            self.spawn(async move { engine.refresh_logged(id).await });
        }
        Ok(answer)
    }

    /// Asks the sources of images whose time has come.
    pub(crate) async fn refresh_due(&self) -> Result<()> {
        let now = self.world().now();
        let due = image::due_for_refresh(&self.store().read(), now, u64::from(MAX_DUE)).await?;
        let asked = stream::iter(due);
        asked
            .for_each_concurrent(MAX_REFRESHES_AT_ONCE, |id| self.refresh_logged(id))
            .await;
        Ok(())
    }

    async fn refresh_logged(&self, id: ImageId) {
        if let Err(error) = self.refresh(id).await {
            tracing::error!(image = %id, error = ?error, "an image cannot be refreshed");
        }
    }

    async fn refresh(&self, id: ImageId) -> Result<()> {
        let Some((claim, order)) = self.claim_refresh(id).await? else {
            return Ok(());
        };
        let asked = self.inner.repository.version(&order_of(&order)).await;
        let begun = self.source_answered(id, claim, &asked).await?;
        self.inner.hub.wake();
        if begun {
            self.spawn_import(id);
        }
        Ok(())
    }

    /// One server alone asks, by a conditional update; another does when this
    /// one is not back in time. Nothing where it is not due.
    async fn claim_refresh(&self, id: ImageId) -> Result<Option<(Timestamp, ImageOrder)>> {
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let lock = ImageChange::lock(tx, self.world(), Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(None);
            };
            let order = change.image.order.clone();
            let free = change.operation.is_none() && change.image.state == ImageState::Ready;
            let (Some(refresh), Some(order), true) = (&mut change.image.refresh, order, free)
            else {
                return Ok(None);
            };
            let far = now.plus_ms(refresh.every.as_ms());
            if refresh.next_at.is_none_or(|at| now < at && at <= far) {
                return Ok(None);
            }
            let claim = now.plus_ms(ms(REFRESH_PATIENCE));
            refresh.next_at = Some(claim);
            change.save().await?;
            Ok(Some((claim, order)))
        })
    }

    /// What the source says of itself; whether something new is to be fetched.
    async fn source_answered(
        &self,
        id: ImageId,
        claim: Timestamp,
        asked: &Result<Option<String>, Refusal>,
    ) -> Result<bool> {
        let (successor_id, operation_id) = (
            new_id!(self.world(), ImageId),
            new_id!(self.world(), OperationId),
        );
        let now = self.world().now();
        write_tx!(self.store(), |tx| {
            let lock = ImageChange::lock(tx, self.world(), Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(false);
            };
            let free = change.operation.is_none() && change.image.state == ImageState::Ready;
            let (Some(refresh), true) = (&mut change.image.refresh, free) else {
                return Ok(false);
            };
            // Somebody has said something else meanwhile, or has asked as well.
            if refresh.next_at != Some(claim) {
                return Ok(false);
            }
            let mut begun = false;
            match asked {
                Err(refusal) => change.unanswered(&sentence(refusal)),
                Ok(Some(version)) if refresh.version.as_ref() == Some(version) => {
                    change.up_to_date(Some(version.clone()));
                }
                Ok(_) => {
                    refresh.next_at = Some(now.plus_ms(refresh.every.as_ms()));
                    refresh.successor = Some(Successor {
                        id: successor_id,
                        content: None,
                        fetched: None,
                        version: None,
                    });
                    change.begin_refresh(operation_id, &Actor::System.to_string());
                    begun = true;
                }
            }
            change.save().await?;
            Ok(begun)
        })
    }
}

fn schedule(
    image: &mut ImageRecord,
    every: RefreshEvery,
    given: Option<(ImageOrder, Origin)>,
    now: Timestamp,
) -> Result<(), TxError> {
    let name = &image.name;
    let refused = |why: &str| Error::conflict(format!("image `{name}` {why}"));
    if image.state != ImageState::Ready {
        return Err(refused("is not ready").into());
    }
    if image.superseded_at.is_some() {
        return Err(refused("was replaced by something newer").into());
    }
    let Origin::Url { url, fetched } = &image.origin else {
        return Err(refused("did not come from a URL").into());
    };
    match given {
        Some((order, mut origin)) => {
            origin.set_fetched(fetched.clone());
            image.order = Some(order);
            image.origin = origin;
            // Another place tells its versions in its own way.
            if let Some(refresh) = &mut image.refresh {
                refresh.version = None;
            }
        }
        None if image.order.is_some() => {}
        None if url.contains(HIDDEN) => {
            let message = "its URL has a part that is secret and was not kept: give the URL again";
            return Err(Error::from(FieldError::new("url", message)).into());
        }
        None => {
            image.order = Some(ImageOrder {
                source: ImageSource::Url(url.clone()),
                checksum: None,
                declared: None,
            });
        }
    }
    let refresh = image
        .refresh
        .get_or_insert_with(|| ImageRefresh::new(every));
    refresh.every = every;
    let from = refresh.last_at.unwrap_or(now);
    refresh.next_at = Some(from.plus_ms(every.as_ms()).max(now));
    Ok(())
}

/// What a URL shows in the place of a secret.
const HIDDEN: &str = "***";

fn stop(change: &mut ImageChange<'_>) -> Result<(), TxError> {
    let name = &change.image.name;
    if change.image.successor().is_some() {
        let message = format!("image `{name}` is being refreshed; wait for it, or cancel that");
        return Err(Error::conflict(message).into());
    }
    let imports = change.image.state == ImageState::Importing;
    change.image.refresh = None;
    if !imports && change.image.state != ImageState::Failed {
        change.image.order = None;
    }
    Ok(())
}

/// What is new has come; or it is what is there already, whatever its source
/// calls it.
pub(super) fn arrived(change: &mut ImageChange<'_>, arrived: &Arrived) {
    let came = fetched_of(arrived, false);
    let content = change.image.content.as_ref();
    let known = change.image.origin.fetched();
    if content.is_some_and(|content| content.sha256 == arrived.content.sha256)
        || known.is_some_and(|known| known.checksum == came.checksum)
    {
        change.up_to_date(arrived.version.clone());
        return;
    }
    if let Some(refresh) = &mut change.image.refresh
        && let Some(successor) = &mut refresh.successor
    {
        successor.content = Some(arrived.content.clone());
        successor.fetched = Some(came);
        successor.version.clone_from(&arrived.version);
    }
    change.end_step();
}

/// The successor has its place: it is given the name, and the image another.
pub(super) async fn succeed(
    tx: &WriteTx,
    world: &World,
    change: &mut ImageChange<'_>,
) -> Result<Option<ImageRecord>, TxError> {
    let now = world.now();
    if change.image.successor().is_none() {
        return Ok(None);
    }
    let old = &mut change.image;
    let (Some(refresh), order) = (old.refresh.take(), old.order.take()) else {
        return Ok(None);
    };
    let ImageRefresh {
        every, successor, ..
    } = refresh;
    let Some(successor) = successor else {
        return Ok(None);
    };
    let mut origin = old.origin.clone();
    origin.set_fetched(successor.fetched);
    let record = ImageRecord {
        id: successor.id,
        name: old.name.clone(),
        state_since: now,
        failure: None,
        origin,
        order,
        content: successor.content,
        operation_id: None,
        generation: 1,
        created_at: now,
        refresh: Some(ImageRefresh {
            last_at: Some(now),
            next_at: Some(now.plus_ms(every.as_ms())),
            version: successor.version,
            ..ImageRefresh::new(every)
        }),
        superseded_at: None,
        ..old.clone()
    };
    old.name = superseded_name(tx, old, now).await?;
    old.superseded_at = Some(now);
    let successor = Some(record.id);
    change.add_event(EventKind::ImageRefreshed { successor });
    Ok(Some(record))
}

/// What an image is called once another has taken its name: the old name and
/// the day, and a number where there are several.
pub(super) async fn superseded_name(
    tx: &WriteTx,
    old: &ImageRecord,
    now: Timestamp,
) -> Result<ImageName, TxError> {
    let name: String = old.name.as_str().chars().take(45).collect();
    let day: String = now.to_string().chars().take(10).collect();
    let mut number = 1_u32;
    loop {
        let more = match number {
            1 => String::new(),
            number => format!("-{number}"),
        };
        let name = ImageName::new(format!("{name}.{day}{more}")).map_err(Error::internal)?;
        if image::find_by_name(tx, old.tenant_id, &name)
            .await?
            .is_none()
        {
            return Ok(name);
        }
        number = number.saturating_add(1);
    }
}
