//! Images: what VMs are made from.
//!
//! An image is imported by an operation of two steps, both the server's own
//! work (`image/import.rs`): its bytes are fetched into a staging area and
//! checked, and then get their place. What people send comes in before that
//! (`image/upload.rs`), and so does what was on a volume, from its host
//! (`image/volume.rs`). Where that is asked for, what is new at its source takes
//! its name (`image/refresh.rs`). Deleted, it lies in the trash for a while
//! (`image/trash.rs`). What the repository holds and no record wants is removed
//! by the sweep.

mod change;
mod file;
mod import;
mod refresh;
mod trash;
mod upload;
mod volume;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

pub use change::ImageChange;
pub(crate) use import::under_way;
pub use import::{Imports, NewImage};
pub use upload::{UploadPart, UploadReach};
use vimana_authz::Permission;
use vimana_model::event::EventView;
use vimana_model::image::{ImageContent, ImageState, ImageView, RefreshView};
use vimana_model::name::ImageName;
use vimana_model::operation::OperationView;
use vimana_model::{Error, ImageId, OperationId, Result, TenantId};
use vimana_store::image::ImageRecord;
use vimana_store::operation::OperationRecord;
use vimana_store::{event, image, operation, vm};
pub(crate) use volume::{being_read, content_at_hand, content_of};

use crate::Engine;
use crate::authorize::{Authorized, Owned, authorized, permit};
use crate::context::OpContext;
use crate::limits::MAX_TIMELINE;

/// An image that can be downloaded.
#[derive(Clone, Debug)]
pub struct ImageDownload {
    pub path: PathBuf,
    pub name: ImageName,
    pub content: ImageContent,
}

impl Owned for ImageRecord {
    fn tenant_id(&self) -> Option<TenantId> {
        self.tenant_id
    }
}

impl Engine {
    /// The images that the caller may use, by name: the tenant's own and those
    /// for all.
    ///
    /// # Errors
    /// The database fails.
    pub async fn images(&self, cx: &OpContext) -> Result<Vec<ImageView>> {
        permit(cx, Permission::ViewCatalogue, None)?;
        let found = image::list(&self.store().read(), Some(cx.subject.tenant_id)).await?;
        self.image_views(cx, found).await
    }

    /// One image.
    ///
    /// # Errors
    /// `NotFound`, also when the caller may not see it.
    pub async fn image(&self, cx: &OpContext, id: ImageId) -> Result<ImageView> {
        let found = self.viewable_image(cx, id).await?.into_inner();
        let views = self.image_views(cx, vec![found]).await?;
        let view = views.into_iter().next();
        view.ok_or_else(|| Error::internal("a view went missing"))
    }

    /// What happened to an image, oldest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_timeline(&self, cx: &OpContext, id: ImageId) -> Result<Vec<EventView>> {
        self.viewable_image(cx, id).await?;
        Ok(event::for_image(&self.store().read(), id, MAX_TIMELINE).await?)
    }

    /// All imports of an image, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_operations(
        &self,
        cx: &OpContext,
        id: ImageId,
    ) -> Result<Vec<OperationView>> {
        self.viewable_image(cx, id).await?;
        let found = operation::for_image(&self.store().read(), id).await?;
        let view = |operation| self.operation_view(operation);
        Ok(found.into_iter().map(view).collect())
    }

    /// An image's bytes, for people.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where they are not there.
    pub async fn image_download(&self, cx: &OpContext, id: ImageId) -> Result<ImageDownload> {
        let found = self.viewable_image(cx, id).await?.into_inner();
        let (name, state) = (found.name, found.state);
        match found.content.filter(|_| state == ImageState::Ready) {
            Some(content) => Ok(ImageDownload {
                path: self.inner.repository.path(id, content.format),
                name,
                content,
            }),
            None => {
                let (state, why) = (state.name().to_lowercase(), state.meaning());
                let message = format!("image `{name}` cannot be downloaded: it is {state}, {why}");
                Err(Error::conflict(message))
            }
        }
    }

    /// Where an image's bytes are, for the agents that ask for them.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image_file(&self, id: ImageId) -> Result<PathBuf> {
        let found = image::find(&self.store().read(), id).await?;
        let content = found
            .filter(|found| found.state.has_content())
            .and_then(|found| found.content);
        let content = content.ok_or_else(|| Error::not_found(format!("image `{id}`")))?;
        Ok(self.inner.repository.path(id, content.format))
    }

    async fn viewable_image(&self, cx: &OpContext, id: ImageId) -> Result<Authorized<ImageRecord>> {
        let found = image::find(&self.store().read(), id).await?;
        authorized(cx, Permission::ViewCatalogue, what(id), found)
    }

    async fn image_views(
        &self,
        cx: &OpContext,
        records: Vec<ImageRecord>,
    ) -> Result<Vec<ImageView>> {
        let ids: Vec<ImageId> = records.iter().map(|image| image.id).collect();
        // What others make from an image for all is theirs to know.
        let of = cx.subject.staff.is_none().then_some(cx.subject.tenant_id);
        let made = vm::made_from(&self.store().read(), &ids, of).await?;
        let mut views = self.joined_images(records).await?;
        for view in &mut views {
            view.used_by = Some(made.get(&view.id).copied().unwrap_or(0));
        }
        Ok(views)
    }

    /// How images look to anybody who may see them, in the same order.
    async fn joined_images(&self, records: Vec<ImageRecord>) -> Result<Vec<ImageView>> {
        let ids: Vec<OperationId> = records
            .iter()
            .filter_map(|image| image.operation_id)
            .collect();
        let found = operation::find_many(&self.store().read(), &ids).await?;
        let mut operations: HashMap<OperationId, OperationRecord> = found
            .into_iter()
            .map(|operation| (operation.id, operation))
            .collect();
        Ok(records
            .into_iter()
            .map(|image| {
                let operation = image.operation_id.and_then(|id| operations.remove(&id));
                self.image_view(image, operation)
            })
            .collect())
    }

    /// For the event stream.
    pub(crate) async fn images_of(&self, ids: &[ImageId]) -> Result<BTreeMap<ImageId, ImageView>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = image::find_many(&self.store().read(), ids).await?;
        let views = self.joined_images(found).await?;
        Ok(views.into_iter().map(|view| (view.id, view)).collect())
    }

    fn image_view(&self, record: ImageRecord, operation: Option<OperationRecord>) -> ImageView {
        let ImageRecord {
            id,
            tenant_id,
            owner_name,
            name,
            state,
            state_since,
            failure,
            origin,
            order: _,
            content,
            operation_id: _,
            generation: _,
            created_at,
            refresh,
            superseded_at,
        } = record;
        let purge_at = (state == ImageState::Trashed).then(|| self.purge_at(state_since));
        ImageView {
            id,
            name,
            tenant_id,
            owner: owner_name.map(|name| name.to_string()),
            state,
            state_since,
            failure,
            content,
            origin,
            used_by: None,
            purge_at,
            operation: operation.map(|operation| self.operation_view(operation)),
            created_at,
            refresh: refresh.map(|refresh| RefreshView {
                every_seconds: refresh.every,
                next_at: refresh.next_at,
                last_at: refresh.last_at,
                failure: refresh.failure,
            }),
            superseded_at,
        }
    }
}

fn what(id: ImageId) -> String {
    format!("image `{id}`")
}
