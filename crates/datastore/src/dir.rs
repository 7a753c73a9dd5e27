//! A directory: of the server's own, or of a file system that it shares.
//!
//! `<vm_id>/<run_epoch>/<part>` and `<backup_id>/<disk>`; what is not whole yet
//! is in `.staged`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_trait::async_trait;
use tokio::fs::{self, File};
use vimana_model::saved::Part;

use crate::receiving::Place;
use crate::staging::Staging;
use crate::{
    Contents, Copies, DatastoreDriver, Disks, Item, ItemFile, Received, Receiving, ResumeError,
    Room,
};

/// A directory that holds items.
#[derive(Clone, Debug)]
pub struct DirDatastore {
    dir: PathBuf,
    reserve_bytes: u64,
    staging: Staging,
}

impl DirDatastore {
    /// Keeps nothing in reserve.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            staging: Staging::within(&dir),
            dir,
            reserve_bytes: 0,
        }
    }

    /// With so many bytes of its file system kept free.
    #[must_use]
    pub fn with_reserve(self, reserve_bytes: u64) -> Self {
        Self {
            reserve_bytes,
            ..self
        }
    }

    fn item(&self, item: Item) -> PathBuf {
        self.dir.join(item.to_string())
    }

    fn place(&self, file: ItemFile) -> Place {
        let dir = self.item(file.item());
        let (dir, name) = match file {
            ItemFile::Saved {
                run_epoch, part, ..
            } => (dir.join(run_epoch.to_string()), part.to_string()),
            ItemFile::Backup { disk, .. } => (dir, disk.to_string()),
        };
        Place {
            root: self.dir.clone(),
            dir,
            name,
        }
    }
}

#[async_trait]
impl DatastoreDriver for DirDatastore {
    async fn discard(&self, item: Item) -> io::Result<()> {
        self.staging.discard(item).await?;
        match fs::remove_dir_all(self.item(item)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn holds(&self) -> io::Result<Vec<Item>> {
        names(&self.dir).await
    }

    async fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for item in self.holds().await? {
            let dir = self.item(item);
            match item {
                Item::Saved(vm) => {
                    let mut copies = Copies::new();
                    for run_epoch in names_inside(&dir).await? {
                        let run: u64 = run_epoch;
                        copies.insert(run, parts(&dir.join(run.to_string())).await?);
                    }
                    contents.saved.insert(vm, copies);
                }
                Item::Backup(backup) => {
                    let mut disks = Disks::new();
                    for disk in names_inside(&dir).await? {
                        let size = size_of(&dir.join(String::from(disk))).await?;
                        disks.extend(size.map(|size| (disk, size)));
                    }
                    contents.backups.insert(backup, disks);
                }
            }
        }
        Ok(contents)
    }

    async fn room(&self) -> io::Result<Room> {
        self.reserve().room().await
    }

    async fn receive(&self, file: ItemFile) -> io::Result<Receiving> {
        // Whatever is below a file system that is not mounted now is not it.
        fs::metadata(&self.dir).await?;
        let place = self.place(file);
        self.staging.begin(file, place, self.reserve()).await
    }

    async fn received(&self, file: ItemFile) -> io::Result<Received> {
        fs::metadata(&self.dir).await?;
        self.staging.received(file, &self.place(file)).await
    }

    async fn resume(&self, file: ItemFile, offset: u64) -> Result<Receiving, ResumeError> {
        fs::metadata(&self.dir).await?;
        let (place, reserve) = (self.place(file), self.reserve());
        self.staging.resume(file, offset, place, reserve).await
    }

    async fn staged(&self) -> io::Result<Vec<Item>> {
        self.staging.items().await
    }

    async fn discard_staged(&self, item: Item) -> io::Result<()> {
        self.staging.discard(item).await
    }

    async fn open(&self, file: ItemFile) -> io::Result<(File, u64)> {
        let file = File::open(self.place(file).path()).await?;
        let size_bytes = file.metadata().await?.len();
        Ok((file, size_bytes))
    }

    fn path(&self, file: ItemFile) -> Option<PathBuf> {
        Some(self.place(file).path())
    }
}

impl DirDatastore {
    fn reserve(&self) -> Reserve {
        Reserve {
            dir: self.dir.clone(),
            reserve_bytes: self.reserve_bytes,
        }
    }
}

/// What of a file system is to stay free.
#[derive(Clone, Debug)]
pub struct Reserve {
    dir: PathBuf,
    reserve_bytes: u64,
}

impl Reserve {
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where no more than the reserve is left.
    pub async fn look(&self) -> io::Result<()> {
        let room = self.room().await?;
        if room.free <= room.reserve {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    async fn room(&self) -> io::Result<Room> {
        let dir = self.dir.clone();
        let facts = blocking(move || Ok(rustix::fs::statvfs(&dir)?)).await?;
        Ok(Room {
            capacity: facts.f_blocks.saturating_mul(facts.f_frsize),
            free: facts.f_bavail.saturating_mul(facts.f_frsize),
            reserve: self.reserve_bytes,
        })
    }
}

/// What in a directory is named after such a thing, in order; other names are
/// not ours. What is removed meanwhile has nothing in it.
async fn names<T: FromStr + Ord>(dir: &Path) -> io::Result<Vec<T>> {
    let mut entries = match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        names.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    names.sort_unstable();
    Ok(names)
}

/// The same of an item; a file that is called like one has nothing in it.
async fn names_inside<T: FromStr + Ord>(dir: &Path) -> io::Result<Vec<T>> {
    match names(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        other => other,
    }
}

async fn parts(dir: &Path) -> io::Result<BTreeMap<Part, u64>> {
    let mut parts = BTreeMap::new();
    for part in names_inside::<Part>(dir).await? {
        let size = size_of(&dir.join(part.to_string())).await?;
        parts.extend(size.map(|size| (part, size)));
    }
    Ok(parts)
}

async fn size_of(path: &Path) -> io::Result<Option<u64>> {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    match fs::metadata(path).await {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if gone.contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Does what blocks beside the tasks; it ends also where nobody waits for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work);
    done.await.map_err(io::Error::other)?
}
