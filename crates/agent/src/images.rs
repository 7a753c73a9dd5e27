//! The image cache: an image is fetched once, checked, and never changed. It
//! goes when others need its room.

mod room;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::sync::OwnedMutexGuard;
use vimana_driver::{Fault, HostDriver, ImageRef};
use vimana_model::ImageId;

use crate::Meter;
use crate::data_dir::{sweep, sync_dir};
use crate::transfer::{Failure, Promise, Transfer, receive};

/// What files that are not yet images are called.
const PARTIAL_PREFIX: &str = ".partial-";
const FETCHING: &str = "fetching the image";
const MISSING: &str = "the server does not have the image";

/// Where images come from.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// The image as a local, read-only file; fetched where it is missing.
    ///
    /// # Errors
    /// [`vimana_driver::FaultKind::BadImage`] where the bytes are not what was
    /// promised, `NoSpace`, `Unavailable` where the server is, or `Host`.
    async fn get(&self, image: &ImageRef, meter: &Meter) -> Result<LocalImage, Fault>;

    /// Removes what is kept of images that the server has no longer, as far as it
    /// can be asked.
    async fn forget_gone(&self) {}
}

/// An image's file. It stays where it is for as long as this lives; after
/// that, for as long as a machine is made from it.
#[derive(Debug)]
pub struct LocalImage {
    path: PathBuf,
    _turn: Option<Arc<Turn>>,
}

impl LocalImage {
    /// A file that is nobody's to remove.
    #[must_use]
    pub const fn lasting(path: PathBuf) -> Self {
        Self { path, _turn: None }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whoever holds an image's turn is the one who may fetch or remove it.
/// Whoever knows of it uses the image, or is about to.
type Turn = tokio::sync::Mutex<()>;

/// The server's images, in a directory of their own.
pub struct ImageCache {
    directory: PathBuf,
    transfer: Transfer,
    driver: Arc<dyn HostDriver>,
    budget_bytes: u64,
    turns: Mutex<BTreeMap<ImageId, Weak<Turn>>>,
    /// Images that are being fetched, and their sizes.
    coming: Mutex<BTreeMap<ImageId, u64>>,
    /// Room is made by one at a time.
    making_room: tokio::sync::Mutex<()>,
}

#[async_trait]
impl ImageSource for ImageCache {
    /// Several callers for one image share one download.
    async fn get(&self, image: &ImageRef, meter: &Meter) -> Result<LocalImage, Fault> {
        let path = self.directory.join(room::file_name(image.id, image.format));
        let turn = self.turn(image.id);
        {
            let _turn = turn.lock().await;
            if is_cached(&path, image).await? {
                self.make_room().await;
            } else {
                let _coming = Coming::announce(self, image);
                self.make_room().await;
                self.fetch(image, &path, meter).await?;
            }
            room::mark_used(&path);
        }
        Ok(LocalImage {
            path,
            _turn: Some(turn),
        })
    }

    async fn forget_gone(&self) {
        if let Err(fault) = self.try_forget_gone().await {
            tracing::warn!(%fault, "the images that are gone stay in the cache for now");
        }
    }
}

/// An image on its way: room is kept for it.
struct Coming<'a> {
    cache: &'a ImageCache,
    id: ImageId,
}

impl<'a> Coming<'a> {
    fn announce(cache: &'a ImageCache, image: &ImageRef) -> Self {
        cache.coming().insert(image.id, image.size_bytes);
        Self {
            cache,
            id: image.id,
        }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.cache.coming().remove(&self.id);
    }
}

impl ImageCache {
    /// Takes over `directory`; what an earlier agent did not finish goes.
    /// `driver` tells which images machines are made from.
    ///
    /// # Errors
    /// Where the directory cannot be cleaned.
    pub fn open(
        directory: PathBuf,
        budget_bytes: u64,
        transfer: Transfer,
        driver: Arc<dyn HostDriver>,
    ) -> io::Result<Self> {
        sweep(&directory, PARTIAL_PREFIX)?;
        Ok(Self {
            directory,
            transfer,
            driver,
            budget_bytes,
            turns: Mutex::default(),
            coming: Mutex::default(),
            making_room: tokio::sync::Mutex::default(),
        })
    }

    fn coming(&self) -> MutexGuard<'_, BTreeMap<ImageId, u64>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, id: ImageId) -> Arc<Turn> {
        let mut turns = self.turns();
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    /// The turn of an image that nobody uses; who wants it from now on waits.
    fn turn_of_unused(&self, id: ImageId) -> Option<OwnedMutexGuard<()>> {
        let mut turns = self.turns();
        if turns.contains_key(&id) {
            return None;
        }
        let turn = Arc::<Turn>::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn.try_lock_owned().ok()
    }

    /// The turns that anybody knows of.
    fn turns(&self) -> MutexGuard<'_, BTreeMap<ImageId, Weak<Turn>>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns
    }

    async fn fetch(&self, image: &ImageRef, path: &Path, meter: &Meter) -> Result<(), Fault> {
        meter.expect(image.size_bytes);
        let mut tries = self.transfer.tries();
        while let Err(failure) = self.try_fetch(image, path, meter).await {
            tries.after(failure).await?;
        }
        tracing::info!(image_id = %image.id, bytes = image.size_bytes, "fetched an image");
        Ok(())
    }

    /// One download. The file gets its name only when it is whole, checked
    /// and on the disk; dropping the future leaves nothing.
    async fn try_fetch(&self, image: &ImageRef, path: &Path, meter: &Meter) -> Result<(), Failure> {
        let url = image_path(image.id);
        let response = self.transfer.get(FETCHING, &url, MISSING).await?;
        let number = self.transfer.random().number();
        let name = format!("{PARTIAL_PREFIX}{}-{number:016x}", image.id);
        let partial = self.directory.join(name);
        // Made without waiting, so that no file is without its guard when the
        // future is dropped.
        let (mut file, partial) = std::fs::File::create_new(&partial)
            .and_then(|file| Ok((File::from_std(file), TempPath::try_from_path(partial)?)))
            .map_err(|error| Fault::io("storing the image", &error))?;
        let promise = Promise {
            size_bytes: image.size_bytes,
            sha256: &image.sha256,
        };
        receive(response, &mut file, &promise, "the image", meter).await?;
        seal(file, partial, path)
            .await
            .map_err(|error| Fault::io("storing the image", &error))?;
        Ok(())
    }
}

/// Where the server has it.
fn image_path(id: ImageId) -> String {
    format!("/agent/v1/images/{id}")
}

/// Only whole and checked files ever get an image's name, so the size is
/// enough to tell a file that was damaged since.
async fn is_cached(path: &Path, image: &ImageRef) -> Result<bool, Fault> {
    match tokio::fs::metadata(path).await {
        Ok(data) if data.len() == image.size_bytes => Ok(true),
        Ok(_) => {
            tracing::warn!(image_id = %image.id, "a cached image has the wrong size and is fetched again");
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::io("reading the image cache", &error)),
    }
}

/// Makes the file read-only, brings it to the disk and gives it its name.
async fn seal(file: File, partial: TempPath, path: &Path) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444)).await?;
    file.sync_all().await?;
    let path = path.to_owned();
    let sealed = tokio::task::spawn_blocking(move || {
        partial.persist(&path).map_err(|error| error.error)?;
        path.parent().map_or(Ok(()), sync_dir)
    });
    sealed.await.map_err(io::Error::other)?
}
