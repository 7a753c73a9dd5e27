//! What has come of files that are not whole yet, in a directory that nothing
//! is read from: `.staged/<item>.<rest of its name>`.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::AsyncReadExt as _;

use crate::dir::{Reserve, blocking};
use crate::receiving::Place;
use crate::turn::{Turn, Turns};
use crate::{Item, ItemFile, Received, Receiving, ResumeError};

const DIR: &str = ".staged";
/// Read at once for a checksum.
const CHUNK_BYTES: usize = 256 << 10;
/// Checksums remembered between the question of who resumes and its bytes.
const MAX_KNOWN: usize = 256;

/// Files on their way in.
#[derive(Clone, Debug)]
pub struct Staging {
    dir: PathBuf,
    turns: Arc<Turns>,
    known: Arc<Mutex<HashMap<ItemFile, Known>>>,
}

/// What a file's bytes come to, for as long as nobody changes it.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    hash: Sha256,
}

/// Inode, size, and when it was changed in seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

impl Staging {
    pub fn within(root: &Path) -> Self {
        Self {
            dir: root.join(DIR),
            turns: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Begins a file anew.
    pub async fn begin(
        &self,
        file: ItemFile,
        place: Place,
        reserve: Reserve,
    ) -> io::Result<Receiving> {
        let turn = self.turn(file, &reserve).await?;
        let path = self.path(file);
        let opened = {
            let path = path.clone();
            blocking(move || File::create(path)).await?
        };
        let nothing = (Sha256::new(), 0);
        Ok(Receiving::after(
            (opened, path, turn),
            nothing,
            place,
            reserve,
        ))
    }

    /// Goes on with a file of which `offset` bytes are here.
    pub async fn resume(
        &self,
        file: ItemFile,
        offset: u64,
        place: Place,
        reserve: Reserve,
    ) -> Result<Receiving, ResumeError> {
        let turn = self.turn(file, &reserve).await?;
        let path = self.path(file);
        let found = found(fs::metadata(&path).await)?;
        let at = found.as_ref().map_or(0, Metadata::len);
        if at != offset {
            return Err(ResumeError::Elsewhere { at });
        }
        let hash = match found {
            Some(found) => match self.recall(file, stamp(&found)) {
                Some(hash) => hash,
                None => hash_of(&path, at, &turn).await?,
            },
            None => Sha256::new(),
        };
        let opened = {
            let path = path.clone();
            blocking(move || {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(false).open(path)
            })
            .await?
        };
        let open = (opened, path, turn);
        Ok(Receiving::after(open, (hash, at), place, reserve))
    }

    /// What is here of a file, its whole at `place` included.
    pub async fn received(&self, file: ItemFile, place: &Place) -> io::Result<Received> {
        let turn = self.turns.take(file).await?;
        let (staged, whole) = (self.path(file), place.path());
        let (path, metadata, is_whole) = match found(fs::metadata(&staged).await)? {
            Some(metadata) if metadata.len() > 0 => (staged, metadata, false),
            Some(_) | None => match found(fs::metadata(&whole).await)? {
                Some(metadata) => (whole, metadata, true),
                None => return Ok(Received::nothing()),
            },
        };
        let size_bytes = metadata.len();
        let hash = hash_of(&path, size_bytes, &turn).await?;
        if !is_whole {
            let (stamp, hash) = (stamp(&metadata), hash.clone());
            self.remember(file, Known { stamp, hash });
        }
        Ok(Received {
            size_bytes,
            sha256: format!("{:x}", hash.finalize()),
            is_whole,
        })
    }

    /// The items of which something is here, in order.
    pub async fn items(&self) -> io::Result<Vec<Item>> {
        let names = self.names().await?;
        let mut items: Vec<Item> = names.into_iter().map(|(item, _)| item).collect();
        items.dedup();
        Ok(items)
    }

    /// Removes what is here of an item; who writes it, ends.
    pub async fn discard(&self, item: Item) -> io::Result<()> {
        self.turns.end(item);
        self.known().retain(|file, _| file.item() != item);
        for (of, name) in self.names().await? {
            if of == item {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    /// A turn at a file, with room for more.
    async fn turn(&self, file: ItemFile, reserve: &Reserve) -> io::Result<Turn> {
        let turn = self.turns.take(file).await?;
        fs::create_dir_all(&self.dir).await?;
        self.drop_earlier_runs(file).await?;
        reserve.look().await?;
        Ok(turn)
    }

    /// Nobody resumes what was sent of an earlier run of the machine.
    async fn drop_earlier_runs(&self, file: ItemFile) -> io::Result<()> {
        let ItemFile::Saved { run_epoch, .. } = file else {
            return Ok(());
        };
        for (item, name) in self.names().await? {
            let run = name.split('.').nth(1).and_then(|run| run.parse().ok());
            if item == file.item() && run.is_some_and(|run: u64| run < run_epoch) {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        found(fs::remove_file(self.dir.join(name)).await).map(drop)
    }

    /// The files that are here and their items, in order; others are not ours.
    async fn names(&self) -> io::Result<Vec<(Item, String)>> {
        let Some(mut entries) = found(fs::read_dir(&self.dir).await)? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let split = name.to_str().and_then(|name| name.split_once('.'));
            let item = split.and_then(|(item, _)| item.parse().ok());
            names.extend(item.zip(name.to_str().map(ToOwned::to_owned)));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn path(&self, file: ItemFile) -> PathBuf {
        let item = file.item();
        self.dir.join(match file {
            ItemFile::Saved {
                run_epoch, part, ..
            } => format!("{item}.{run_epoch}.{part}"),
            ItemFile::Backup { disk, .. } => format!("{item}.{disk}"),
        })
    }

    fn remember(&self, file: ItemFile, known: Known) {
        let mut all = self.known();
        if all.len() >= MAX_KNOWN {
            all.clear();
        }
        all.insert(file, known);
    }

    fn recall(&self, file: ItemFile, stamp: Stamp) -> Option<Sha256> {
        let known = self.known().remove(&file)?;
        (known.stamp == stamp).then_some(known.hash)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ItemFile, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(of: &Metadata) -> Stamp {
    (of.ino(), of.len(), of.mtime(), of.mtime_nsec())
}

/// The first `size_bytes` of a file.
async fn hash_of(path: &Path, size_bytes: u64, turn: &Turn) -> io::Result<Sha256> {
    let mut bytes = fs::File::open(path).await?.take(size_bytes);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut read = 0_u64;
    loop {
        turn.still()?;
        let more = bytes.read(&mut chunk).await?;
        let Some(filled) = chunk.get(..more).filter(|filled| !filled.is_empty()) else {
            break;
        };
        hash.update(filled);
        read = read.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
    }
    if read < size_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(hash)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
