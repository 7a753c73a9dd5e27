//! Images from files that the operator names at the server's start.

use std::path::Path;

use vimana_model::event::Actor;
use vimana_model::image::{ImageState, ImageView, Origin};
use vimana_model::name::ImageName;
use vimana_model::{Error, FieldError, Result};
use vimana_store::image::{self, ImageRecord};
use vimana_store::write_tx;

use super::change::ImageChange;
use super::refresh::superseded_name;
use crate::Engine;
use crate::context::new_id;

impl Engine {
    /// Takes a file of this machine into the repository under `name`, for all,
    /// on behalf of the operator who starts the server. Content that is
    /// already there under that name is left as it is; other content replaces
    /// it for VMs to come, while VMs that exist keep theirs.
    ///
    /// # Errors
    /// `Invalid` for a file that is no acceptable image.
    pub async fn import_image_file(&self, name: &ImageName, path: &Path) -> Result<ImageView> {
        let repository = &self.inner.repository;
        let id = new_id!(self.world(), ImageId);
        let arrived = match repository.copy_in(id, path).await {
            Ok(arrived) => arrived,
            Err(refusal) => {
                self.clear_repository(id).await;
                let message = format!("`{name}` {refusal}");
                return Err(FieldError::new("image", message).into());
            }
        };
        let content = arrived.content;
        let existing = image::find_by_name(&self.store().read(), None, name).await?;
        if let Some(existing) = existing
            && let Some(known) = &existing.content
            && known.sha256 == content.sha256
            && repository.path(existing.id, known.format).exists()
        {
            self.clear_repository(id).await;
            return Ok(self.image_view(existing, None));
        }
        let entered = repository.enter(id, content.format).await;
        entered.map_err(Error::internal)?;
        let now = self.world().now();
        let record = ImageRecord {
            id,
            tenant_id: None,
            owner_name: None,
            name: name.clone(),
            state: ImageState::Ready,
            state_since: now,
            failure: None,
            origin: Origin::File {
                path: path.display().to_string(),
                fetched: None,
            },
            order: None,
            content: Some(content),
            operation_id: None,
            generation: 1,
            created_at: now,
            refresh: None,
            superseded_at: None,
        };
        let record = write_tx!(self.store(), |tx| {
            if let Some(mut old) = image::find_by_name(tx, None, name).await? {
                old.name = superseded_name(tx, &old, now).await?;
                image::update(tx, &mut old).await?;
            }
            let change = ImageChange::of(tx, self.world(), Actor::System, record.clone());
            Ok(change.save().await?.0)
        })?;
        Ok(self.image_view(record, None))
    }
}
