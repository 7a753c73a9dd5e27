//! Images that people send, part by part, in whatever time it takes them.
//!
//! The import of such an image waits in its first step, and holds nothing:
//! whoever sends the part that was missing begins the work on it. How much has
//! come is known to the repository alone, by what is on its disk.

use vimana_authz::Permission;
use vimana_model::event::Actor;
use vimana_model::image::{ImageSource, ImageState, Origin, Upload};
use vimana_model::operation::{Progress, StepKind};
use vimana_model::{Error, ErrorKind, ImageId, OperationId, Result};
use vimana_repository::Receiving;
use vimana_store::image::{self, ImageRecord};
use vimana_store::operation::OperationRecord;
use vimana_store::{operation, write_tx};

use super::change::ImageChange;
use super::import::{Teller, Working};
use super::what;
use crate::Engine;
use crate::authorize::authorized;
use crate::context::OpContext;
use crate::datastore::datastore_error;
use crate::limits::UPLOAD_PATIENCE;
use crate::saga;

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadReach {
    /// Bytes that are here for good, and where the next part begins.
    pub offset_bytes: u64,
    /// Bytes of the whole file.
    pub size_bytes: u64,
}

/// A part of an upload on its way in, alone. Dropped before it is kept, it
/// never came.
pub struct UploadPart {
    pub(super) engine: Engine,
    pub(super) record: ImageRecord,
    pub(super) upload: Upload,
    pub(super) receiving: Receiving,
    pub(super) working: Working,
    pub(super) teller: Teller,
}

/// An image that waits for bytes.
struct Waiting {
    record: ImageRecord,
    operation: OperationRecord,
    upload: Upload,
}

impl Engine {
    /// How far the upload of an image is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where the image is not uploaded, or its import is
    /// over and nothing is kept of it.
    pub async fn image_upload(&self, cx: &OpContext, id: ImageId) -> Result<UploadReach> {
        let found = self.viewable_image(cx, id).await?;
        if let Origin::Upload { size_bytes, .. } = found.origin
            && found.content.is_some()
        {
            return Ok(UploadReach {
                offset_bytes: size_bytes,
                size_bytes,
            });
        }
        let waiting = self.waiting(found.into_inner()).await?;
        self.reach_of(id, &waiting.upload).await
    }

    /// Begins to take in the next part of an upload.
    ///
    /// # Errors
    /// `Conflict` where another place than `offset` is next, where another part
    /// is on its way, or where nothing is waited for; `NotFound`, `Forbidden`.
    pub async fn receive_image(
        &self,
        cx: &OpContext,
        id: ImageId,
        offset: u64,
    ) -> Result<UploadPart> {
        let found = self.manageable_image(cx, id).await?;
        let name = found.name.clone();
        self.waiting(found).await?;
        let Some(working) = Working::alone(self, id) else {
            let message = format!(
                "image `{name}` is being sent or checked by another request; ask how far it is"
            );
            return Err(Error::conflict(message));
        };
        let found = self.manageable_image(cx, id).await?;
        let Waiting {
            record,
            operation,
            upload,
        } = self.waiting(found).await?;
        let receiving = self.inner.repository.receive(id, &upload).await;
        let receiving = receiving.map_err(datastore_error)?;
        // Where it was deleted meanwhile, its place was just made again.
        let found = self.manageable_image(cx, id).await?;
        if let Err(over) = self.waiting(found).await {
            receiving.discard().await.map_err(datastore_error)?;
            return Err(over);
        }
        let here = receiving.offset();
        if here != offset {
            let message = format!("image `{name}` goes on at byte {here}, not at {offset}");
            return Err(Error::conflict(message));
        }
        Ok(UploadPart {
            engine: self.clone(),
            teller: Teller::new(self, &record, operation),
            record,
            upload,
            receiving,
            working,
        })
    }

    async fn manageable_image(&self, cx: &OpContext, id: ImageId) -> Result<ImageRecord> {
        let found = image::find(&self.store().read(), id).await?;
        let found = authorized(cx, Permission::ManageImages, what(id), found)?;
        Ok(found.into_inner())
    }

    async fn waiting(&self, record: ImageRecord) -> Result<Waiting> {
        let refused = |why: &str| Error::conflict(format!("image `{}` {why}", record.name));
        let source = record.order.as_ref().map(|order| order.source.clone());
        if !matches!(record.origin, Origin::Upload { .. }) {
            return Err(refused("is not uploaded"));
        }
        record
            .state
            .judge_upload()
            .map_err(|refusal| refused(refusal.0))?;
        let operation = match record.operation_id {
            Some(id) => operation::find(&self.store().read(), id).await?,
            None => None,
        };
        match (source, operation) {
            (Some(ImageSource::Upload(upload)), Some(operation)) if fetches(&operation) => {
                Ok(Waiting {
                    record,
                    operation,
                    upload,
                })
            }
            _ => Err(refused("has come whole")),
        }
    }

    async fn still_waiting(&self, id: ImageId) -> Result<()> {
        let found = image::find(&self.store().read(), id).await?;
        let found = found.ok_or_else(|| Error::not_found(what(id)))?;
        if matches!(found.origin, Origin::Volume { .. }) && found.state == ImageState::Importing {
            return Ok(());
        }
        self.waiting(found).await.map(|_| ())
    }

    async fn reach_of(&self, id: ImageId, upload: &Upload) -> Result<UploadReach> {
        let here = self.inner.repository.uploaded(id, upload).await;
        Ok(UploadReach {
            offset_bytes: here.map_err(datastore_error)?,
            size_bytes: upload.size_bytes,
        })
    }

    /// Whether the import can be worked on: it is under way, no upload that
    /// waits for more, and not of a volume whose host is asked for it.
    pub(super) async fn is_whole(&self, id: ImageId) -> Result<bool> {
        let Some((record, operation)) = self.import_under_way(id).await? else {
            return Ok(false);
        };
        if !fetches(&operation) {
            return Ok(true);
        }
        let upload = match record.order.as_ref().map(|order| order.source.clone()) {
            Some(ImageSource::Upload(upload)) => upload,
            Some(ImageSource::Volume(volume)) => {
                self.ask_for_volume(&record, operation, volume).await?;
                return Ok(false);
            }
            Some(ImageSource::Url(_) | ImageSource::Path(_) | ImageSource::Backup(_)) | None => {
                return Ok(true);
            }
        };
        let reach = self.reach_of(id, &upload).await?;
        if reach.offset_bytes == reach.size_bytes {
            return Ok(true);
        }
        self.inner.progress.set(operation.id, reach.progress());
        self.inner.imports.heard(id, self.world().passed());
        Ok(false)
    }

    /// Ends uploads of which nothing came for too long. Counted in memory: a
    /// new server is patient anew.
    pub(crate) async fn give_up_silent_uploads(&self) -> Result<()> {
        let now = self.world().passed();
        for id in self.inner.imports.take_silent(now, UPLOAD_PATIENCE) {
            let hours = UPLOAD_PATIENCE.as_secs() / 3600;
            let why = format!("the source was not sent to its end: nothing came for {hours} hours");
            let given_up = self.give_up_waiting(id, None, &why).await;
            if matches!(given_up, Ok(false)) {
                self.inner.imports.heard(id, self.world().passed());
            }
            if let Err(error) = given_up {
                tracing::error!(image = %id, error = ?error, "an upload cannot be given up");
                self.inner.imports.heard(id, now);
            }
        }
        Ok(())
    }

    /// Ends an import that waits for bytes, this one where one is named; false
    /// where they are coming.
    pub(super) async fn give_up_waiting(
        &self,
        id: ImageId,
        only: Option<OperationId>,
        why: &str,
    ) -> Result<bool> {
        let Some(working) = Working::alone(self, id) else {
            return Ok(false);
        };
        let failed = write_tx!(self.store(), |tx| {
            let lock = ImageChange::lock(tx, self.world(), Actor::System, id).await?;
            let Some(mut change) = lock else {
                return Ok(false);
            };
            let waits = change.operation.as_ref().is_some_and(|operation| {
                fetches(operation) && only.is_none_or(|only| only == operation.id)
            });
            if !waits {
                return Ok(false);
            }
            change.fail(why);
            change.save().await?;
            Ok(true)
        })?;
        drop(working);
        self.inner.hub.wake();
        if failed {
            self.inner.imports.comes_from_nobody(id);
            self.clear_repository(id).await;
        }
        Ok(true)
    }
}

impl UploadReach {
    const fn progress(self) -> Progress {
        Progress {
            done_bytes: self.offset_bytes,
            total_bytes: self.size_bytes,
            copy: None,
        }
    }
}

impl UploadPart {
    /// Bytes of the file that have not come yet.
    #[must_use]
    pub const fn left_bytes(&self) -> u64 {
        self.upload
            .size_bytes
            .saturating_sub(self.receiving.offset())
    }

    /// Returns when nobody wants the image any more.
    pub async fn unwanted(&self) {
        self.working.stopped().await;
    }

    /// Lets go of a part that nobody wants any more, and says why.
    pub async fn over(self) -> Error {
        let Self { engine, record, .. } = self;
        match engine.still_waiting(record.id).await {
            Ok(()) => Error::conflict(format!("image `{}` was begun anew", record.name)),
            Err(error) => error,
        }
    }

    /// Takes in more.
    ///
    /// # Errors
    /// `Invalid` for more than the file was said to have, `Unavailable` where
    /// it cannot be stored; the part is lost then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.admit(more)?;
        let written = self.receiving.write(bytes).await;
        written.map_err(datastore_error)?;
        self.teller.tell(self.reach().progress());
        let now = self.engine.world().passed();
        self.engine.inner.imports.heard(self.record.id, now);
        Ok(())
    }

    /// Whether so many more bytes may come.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn admit(&self, bytes: u64) -> Result<()> {
        let left = self.left_bytes();
        if bytes <= left {
            return Ok(());
        }
        let (name, size) = (&self.record.name, self.upload.size_bytes);
        let message =
            format!("image `{name}` was said to have {size} bytes, of which {left} are missing");
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Makes the part durable, and says how far the upload is now; what was
    /// missing has come, its import goes on.
    ///
    /// # Errors
    /// `Conflict` where nobody wants the image any more, `Unavailable` where
    /// the part cannot be stored. It is lost then.
    pub async fn keep(self) -> Result<UploadReach> {
        let Self {
            engine,
            record,
            upload,
            receiving,
            working,
            ..
        } = self;
        let id = record.id;
        let kept = receiving.keep().await;
        drop(working);
        let offset_bytes = match kept {
            Ok(offset_bytes) => offset_bytes,
            Err(error) => {
                // Whoever no longer wants it has removed it.
                engine.still_waiting(id).await?;
                return Err(datastore_error(error));
            }
        };
        let size_bytes = upload.size_bytes;
        if offset_bytes == size_bytes {
            engine.spawn_whole(id, upload);
        }
        Ok(UploadReach {
            offset_bytes,
            size_bytes,
        })
    }

    const fn reach(&self) -> UploadReach {
        UploadReach {
            offset_bytes: self.receiving.offset(),
            size_bytes: self.upload.size_bytes,
        }
    }
}

pub(super) fn fetches(operation: &OperationRecord) -> bool {
    saga::current(operation).is_some_and(|current| current.kind == StepKind::Fetch)
}
