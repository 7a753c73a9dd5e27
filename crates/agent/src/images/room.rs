//! Room in the image cache: images that the server has no longer go, and when
//! room is short, those that were not used for the longest.
//!
//! A file's modification time is when its image was last used: by a machine,
//! or by whoever asked for it. (Its content never changes, and QEMU's reading
//! changes the access time alone.) So it is known after a restart. A file goes
//! by one `unlink`: it is there whole or not at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use vimana_driver::Fault;
use vimana_model::ImageId;
use vimana_model::image::ImageFormat;

use super::{ImageCache, PARTIAL_PREFIX, image_path};
use crate::data_dir::sync_dir;
use crate::limits::FREE_BESIDE_IMAGES_BYTES;

/// What is in the cache's directory. Files of no image are none of its.
#[derive(Debug, Default)]
struct Stock {
    images: Vec<Cached>,
    /// Bytes that have come of images on their way.
    partial_bytes: u64,
    /// What the file system has left.
    free_bytes: u64,
}

#[derive(Debug)]
struct Cached {
    id: ImageId,
    name: OsString,
    bytes: u64,
    used_at: SystemTime,
}

/// What an image's file is called.
pub fn file_name(id: ImageId, format: ImageFormat) -> String {
    format!("{id}.{}", format.name())
}

/// The image in the file was used just now. Where that cannot be noted, it may
/// go sooner than others: no reason to fail.
///
/// The clock's own time is written: what the kernel would note of itself moves
/// by a tick of some milliseconds, and two uses within one would be alike.
pub fn mark_used(path: &Path) {
    let now = SystemTime::now();
    let marked = std::fs::File::open(path).and_then(|file| file.set_modified(now));
    if let Err(error) = marked {
        tracing::warn!(%error, path = %path.display(), "the use of an image is not noted");
    }
}

impl ImageCache {
    /// Removes images until the cache is within its budget, together with what
    /// is coming, and the disk has room for that. Where too many are in use it
    /// is passed: machines come first.
    pub(super) async fn make_room(&self) {
        let _alone = self.making_room.lock().await;
        if let Err(fault) = self.try_make_room().await {
            tracing::warn!(%fault, "no room is made in the image cache");
        }
    }

    async fn try_make_room(&self) -> Result<(), Fault> {
        let directory = self.directory.clone();
        let mut stock = blocking("reading the image cache", move || Stock::of(&directory)).await?;
        let coming = self.coming().clone();
        let mut surplus = stock.surplus(self.budget_bytes, &coming);
        if surplus == 0 {
            return Ok(());
        }
        let in_use = self.names_in_use().await?;
        // The one last used comes first, and is popped last.
        let order = |cached: &Cached| Reverse((cached.used_at, cached.id));
        stock.images.sort_by_key(order);
        while surplus > 0
            && let Some(cached) = stock.images.pop()
        {
            let path = self.directory.join(&cached.name);
            if in_use.contains(&cached.name) {
                mark_used(&path);
                continue;
            }
            if !self.remove_unused(&cached).await? {
                continue;
            }
            surplus = surplus.saturating_sub(cached.bytes);
            let unused_s = cached.used_at.elapsed().unwrap_or_default().as_secs();
            let (id, bytes) = (cached.id, cached.bytes);
            tracing::info!(image_id = %id, bytes, unused_s, "an image was removed from the cache, to make room");
        }
        let directory = self.directory.clone();
        blocking("removing an image", move || sync_dir(&directory)).await?;
        if surplus > 0 {
            let budget = self.budget_bytes;
            tracing::warn!(
                surplus,
                budget,
                "the image cache is larger than it should be: its images are in use"
            );
        }
        Ok(())
    }

    /// Removes what machines are not made from and the server has no longer.
    pub(super) async fn try_forget_gone(&self) -> Result<(), Fault> {
        let directory = self.directory.clone();
        let stock = blocking("reading the image cache", move || Stock::of(&directory)).await?;
        let in_use = self.names_in_use().await?;
        let unused = stock.images.iter();
        for cached in unused.filter(|cached| !in_use.contains(&cached.name)) {
            let path = image_path(cached.id);
            if self.transfer.is_gone("asking for an image", &path).await?
                && self.remove_unused(cached).await?
            {
                let (id, bytes) = (cached.id, cached.bytes);
                tracing::info!(image_id = %id, bytes, "an image was removed from the cache: it is gone");
            }
        }
        Ok(())
    }

    /// Removes an image unless somebody uses it; whether it did.
    async fn remove_unused(&self, cached: &Cached) -> Result<bool, Fault> {
        let Some(_turn) = self.turn_of_unused(cached.id) else {
            return Ok(false);
        };
        // Asked once more: what was held before the turn may be a machine's by
        // now.
        if self.names_in_use().await?.contains(&cached.name) {
            return Ok(false);
        }
        let path = self.directory.join(&cached.name);
        blocking("removing an image", move || std::fs::remove_file(path)).await?;
        Ok(true)
    }

    /// What the files of the images that machines are made from are called: ids
    /// are unique, wherever a machine found them.
    async fn names_in_use(&self) -> Result<BTreeSet<OsString>, Fault> {
        let paths = self.driver.images_in_use().await?;
        let names = paths.iter().filter_map(|path| path.file_name());
        Ok(names.map(ToOwned::to_owned).collect())
    }
}

impl Stock {
    /// Blocks.
    fn of(directory: &Path) -> io::Result<Self> {
        let space = rustix::fs::statvfs(directory)?;
        let mut stock = Self {
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            ..Self::default()
        };
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let data = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                data => data?,
            };
            if !data.is_file() {
                continue;
            }
            if name
                .as_encoded_bytes()
                .starts_with(PARTIAL_PREFIX.as_bytes())
            {
                stock.partial_bytes = stock.partial_bytes.saturating_add(data.len());
            } else if let Some(id) = name.to_str().and_then(image_of) {
                stock.images.push(Cached {
                    id,
                    name,
                    bytes: data.len(),
                    used_at: data.modified()?,
                });
            }
        }
        Ok(stock)
    }

    /// Bytes that must go.
    fn surplus(&self, budget_bytes: u64, coming: &BTreeMap<ImageId, u64>) -> u64 {
        let to_come = coming.values().copied().fold(0, u64::saturating_add);
        // One that has just come is counted as coming.
        let kept = self.images.iter().filter(|c| !coming.contains_key(&c.id));
        let kept = kept.map(|cached| cached.bytes).fold(0, u64::saturating_add);
        let over_budget = kept.saturating_add(to_come).saturating_sub(budget_bytes);
        if to_come == 0 {
            return over_budget;
        }
        let needed = to_come.saturating_sub(self.partial_bytes);
        let needed = needed.saturating_add(FREE_BESIDE_IMAGES_BYTES);
        over_budget.max(needed.saturating_sub(self.free_bytes))
    }
}

/// The image whose file is called so.
fn image_of(name: &str) -> Option<ImageId> {
    let (id, format) = name.split_once('.')?;
    let _known: ImageFormat = format.parse().ok()?;
    id.parse().ok()
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(io::Error::other).flatten();
    done.map_err(|error| Fault::io(what, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn id(n: u64) -> ImageId {
        ImageId::from_parts(n, [0; 10])
    }

    fn stock(sizes: &[u64], free_bytes: u64) -> Stock {
        let images = (1..).zip(sizes).map(|(n, bytes)| Cached {
            id: id(n),
            name: OsString::new(),
            bytes: *bytes,
            used_at: SystemTime::UNIX_EPOCH,
        });
        Stock {
            images: images.collect(),
            partial_bytes: 0,
            free_bytes,
        }
    }

    #[test]
    fn what_must_go_is_what_passes_the_budget_or_the_disk() {
        let coming = |gib: u64| BTreeMap::from([(id(9), gib * GIB)]);
        let held = stock(&[2 * GIB, 3 * GIB], 100 * GIB);
        assert_eq!(held.surplus(5 * GIB, &BTreeMap::new()), 0);
        assert_eq!(held.surplus(4 * GIB, &BTreeMap::new()), GIB);
        assert_eq!(held.surplus(6 * GIB, &coming(3)), 2 * GIB);
        let mut full = stock(&[2 * GIB, 3 * GIB], GIB);
        assert_eq!(full.surplus(100 * GIB, &BTreeMap::new()), 0);
        let short = 3 * GIB + FREE_BESIDE_IMAGES_BYTES;
        assert_eq!(full.surplus(100 * GIB, &coming(4)), short);
        full.partial_bytes = 2 * GIB;
        assert_eq!(full.surplus(100 * GIB, &coming(4)), short - 2 * GIB);
    }

    #[test]
    fn an_image_that_has_just_come_counts_once() {
        let held = stock(&[2 * GIB], 100 * GIB);
        let coming = BTreeMap::from([(id(1), 2 * GIB)]);
        assert_eq!(held.surplus(2 * GIB, &coming), 0);
    }

    #[test]
    fn only_what_is_called_like_an_image_is_one() {
        assert_eq!(image_of(&file_name(id(3), ImageFormat::Raw)), Some(id(3)));
        for other in [
            "whole.raw",
            ".partial-x",
            "notes",
            &format!("{}.iso", id(3)),
        ] {
            assert_eq!(image_of(other), None, "{other}");
        }
    }

    #[test]
    fn two_uses_right_after_each_other_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        let used_at = |path| std::fs::metadata(path).unwrap().modified().unwrap();
        for path in [&second, &first] {
            std::fs::write(path, "").unwrap();
        }
        mark_used(&first);
        mark_used(&second);
        assert!(used_at(&first) < used_at(&second));
    }
}
