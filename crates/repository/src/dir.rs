//! Images in a directory of the server: `<image_id>.<format>`, and what is not
//! yet one below `staging/<image_id>`.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::fs;
use vimana_fetch::{FetchError, Reach, Source};
use vimana_format::{Content, ReadAt};
use vimana_import::{Bounds, Checksum, ImportError, Job, Patience, Staged, Staging, import};
use vimana_model::ImageId;
use vimana_model::image::{ImageContent, ImageFormat};
use vimana_model::operation::Progress;
use vimana_model::unit::MiB;

use crate::{Arrived, Order, Refusal, Repository, Tell};

/// On which terms images are taken in.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which addresses may be fetched from.
    pub reach: Reach,
    /// The program that converts images of other hypervisors; without one they
    /// are refused.
    pub converter: Option<PathBuf>,
    /// Bytes of a file, fetched or unpacked.
    pub max_bytes: u64,
    /// Size of the disk a guest sees.
    pub max_virtual_bytes: u64,
    /// Of every import.
    pub bytes_per_second: Option<NonZeroU64>,
    pub patience: Patience,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            converter: None,
            max_bytes: 256 << 30,
            max_virtual_bytes: 2 << 40,
            bytes_per_second: None,
            patience: Patience::default(),
        }
    }
}

/// A directory that nobody else writes to.
#[derive(Clone, Debug)]
pub struct DirRepository {
    dir: PathBuf,
    terms: Terms,
}

const READY: &str = "ready";

impl DirRepository {
    #[must_use]
    pub const fn new(dir: PathBuf, terms: Terms) -> Self {
        Self { dir, terms }
    }

    fn staging_root(&self) -> PathBuf {
        self.dir.join("staging")
    }

    fn staging(&self, id: ImageId) -> PathBuf {
        self.staging_root().join(id.to_string())
    }

    fn job(&self, order: &Order) -> Result<Job, Refusal> {
        let source: Source = order.url.parse().map_err(refusal)?;
        let checksum = order.checksum.as_deref().map(str::parse::<Checksum>);
        Ok(Job {
            source,
            reach: self.terms.reach.clone(),
            checksum: checksum.transpose().map_err(refusal)?,
            converter: self.terms.converter.clone(),
            declared: order.declared.map(|format| match format {
                ImageFormat::Qcow2 => Content::Qcow2,
                ImageFormat::Raw => Content::Raw,
            }),
            bounds: Bounds {
                max_bytes: self.terms.max_bytes,
                max_virtual_bytes: self.terms.max_virtual_bytes,
                bytes_per_second: self.terms.bytes_per_second,
            },
            patience: self.terms.patience,
        })
    }

    /// Waits for its place under one name, whichever file it came to be in.
    async fn make_ready(&self, id: ImageId, staged: Staged) -> Result<Arrived, Refusal> {
        let Staged {
            path,
            content,
            size_bytes,
            virtual_bytes,
            sha256,
            fetched_bytes,
            fetched_checksum,
        } = staged;
        let format = match content {
            Content::Qcow2 => ImageFormat::Qcow2,
            Content::Raw => ImageFormat::Raw,
            Content::Vmdk
            | Content::Vdi
            | Content::Vhdx
            | Content::Vhd
            | Content::Qed
            | Content::Luks
            | Content::Gzip
            | Content::Xz
            | Content::Zstd
            | Content::Archive
            | Content::Page => return Err(refusal(ImportError::NotAccepted(content.name()))),
        };
        let ready = self.staging(id).join(READY);
        fs::rename(path, ready).await.map_err(unstorable)?;
        Ok(Arrived {
            content: ImageContent {
                format,
                size_bytes,
                virtual_mib: MiB::from_bytes(virtual_bytes.saturating_add((1 << 20) - 1)),
                sha256,
            },
            fetched_bytes,
            fetched_checksum: format!("{} {fetched_checksum}", fetched_checksum.kind()),
        })
    }
}

#[async_trait]
impl Repository for DirRepository {
    async fn judge(&self, order: &Order) -> Result<String, Refusal> {
        let job = self.job(order)?;
        match vimana_fetch::look_up(&job.source, &job.reach).await {
            Err(error @ FetchError::Forbidden(_)) => Err(refusal(error)),
            // Whether it can be fetched, the fetching finds out.
            Ok(()) | Err(_) => Ok(job.source.to_string()),
        }
    }

    async fn fetch(&self, id: ImageId, order: &Order, tell: Tell<'_>) -> Result<Arrived, Refusal> {
        let job = self.job(order)?;
        let staging = Staging::new(self.staging(id));
        let told = |progress: vimana_import::Progress| {
            tell(Progress {
                done_bytes: progress.received_bytes,
                total_bytes: progress.total_bytes.unwrap_or(0),
            });
        };
        let staged = import(&job, &staging, told).await.map_err(refusal)?;
        self.make_ready(id, staged).await
    }

    async fn copy_in(&self, id: ImageId, file: &Path) -> Result<Arrived, Refusal> {
        let (from, dir, bound) = (file.to_owned(), self.staging(id), self.terms.max_bytes);
        let copied = tokio::task::spawn_blocking(move || copy(&from, &dir, bound));
        let staged = copied.await.map_err(|_| refusal(ImportError::Defect))?;
        self.make_ready(id, staged.map_err(refusal)?).await
    }

    async fn enter(&self, id: ImageId, format: ImageFormat) -> io::Result<()> {
        let (ready, path) = (self.staging(id).join(READY), self.path(id, format));
        match fs::rename(ready, &path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It has its place, or never came.
                fs::metadata(&path).await?;
            }
            renamed => renamed?,
        }
        fs::File::open(&self.dir).await?.sync_all().await?;
        Staging::new(self.staging(id)).discard().await
    }

    async fn discard(&self, id: ImageId) -> io::Result<()> {
        for format in ImageFormat::ALL {
            match fs::remove_file(self.path(id, format)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Staging::new(self.staging(id)).discard().await
    }

    async fn holds(&self) -> io::Result<BTreeSet<ImageId>> {
        let mut held = names(&self.staging_root(), |name| name.parse().ok()).await?;
        held.extend(
            names(&self.dir, |name| {
                let (id, format) = name.split_once('.')?;
                let _known: ImageFormat = format.parse().ok()?;
                id.parse().ok()
            })
            .await?,
        );
        Ok(held)
    }

    fn path(&self, id: ImageId, format: ImageFormat) -> PathBuf {
        self.dir.join(format!("{id}.{}", format.name()))
    }
}

async fn names(
    dir: &Path,
    read: impl Fn(&str) -> Option<ImageId>,
) -> io::Result<BTreeSet<ImageId>> {
    let mut entries = match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other?,
    };
    let mut found = BTreeSet::new();
    while let Some(entry) = entries.next_entry().await? {
        found.extend(entry.file_name().to_str().and_then(&read));
    }
    Ok(found)
}

/// Copies and hashes in one pass; the copy is on disk when this returns.
fn copy(from: &Path, dir: &Path, max_bytes: u64) -> Result<Staged, ImportError> {
    let mut source = std::fs::File::open(from)?;
    if !source.metadata()?.is_file() {
        return Err(ImportError::Packed("it is no file".to_owned()));
    }
    std::fs::create_dir_all(dir)?;
    let path = dir.join("copy");
    let mut target = std::fs::File::create(&path)?;
    let mut hash = Sha256::new();
    let mut size_bytes = 0_u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = source.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        size_bytes = size_bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if size_bytes > max_bytes {
            return Err(ImportError::TooLarge(max_bytes));
        }
        hash.update(chunk);
        target.write_all(chunk)?;
    }
    target.sync_all()?;
    let copied = std::fs::File::open(&path)?;
    let mut start = [0; vimana_format::START_BYTES];
    let seen = ReadAt::read_at(&copied, 0, &mut start)?;
    let content = Content::of(start.get(..seen).unwrap_or_default());
    let header = vimana_format::check(content, &copied)?;
    let digest: [u8; 32] = hash.finalize().into();
    let fetched_checksum = Checksum::Sha256(digest);
    Ok(Staged {
        path,
        content,
        size_bytes,
        virtual_bytes: header.virtual_bytes,
        sha256: fetched_checksum.to_string(),
        fetched_bytes: size_bytes,
        fetched_checksum,
    })
}

fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal {
        message: error.to_string(),
    }
}

fn unstorable(error: io::Error) -> Refusal {
    refusal(ImportError::Io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> ImageId {
        ImageId::from_parts(n, [0; 10])
    }

    fn repository(dir: &tempfile::TempDir) -> DirRepository {
        DirRepository::new(dir.path().to_owned(), Terms::default())
    }

    fn order(url: &str) -> Order {
        Order {
            url: url.to_owned(),
            checksum: None,
            declared: None,
        }
    }

    #[tokio::test]
    async fn what_is_copied_in_is_entered_once_and_discarded_whole() {
        let dir = tempfile::tempdir().unwrap();
        let repository = repository(&dir);
        let file = dir.path().join("disk.img");
        std::fs::write(&file, [7; 3000]).unwrap();
        let arrived = repository.copy_in(id(1), &file).await.unwrap();
        assert_eq!(arrived.content.format, ImageFormat::Raw);
        assert_eq!(arrived.content.size_bytes, 3000);
        assert_eq!(arrived.content.virtual_mib, MiB(1));
        assert_eq!(repository.holds().await.unwrap(), [id(1)].into());
        for _ in 0..2 {
            repository.enter(id(1), ImageFormat::Raw).await.unwrap();
        }
        let path = repository.path(id(1), ImageFormat::Raw);
        assert_eq!(std::fs::read(&path).unwrap(), [7; 3000]);
        assert!(!repository.staging(id(1)).exists());
        assert_eq!(repository.holds().await.unwrap(), [id(1)].into());
        for _ in 0..2 {
            repository.discard(id(1)).await.unwrap();
        }
        assert!(!path.exists());
        assert!(repository.holds().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_never_came_cannot_be_entered() {
        let dir = tempfile::tempdir().unwrap();
        let entered = repository(&dir).enter(id(2), ImageFormat::Raw).await;
        assert_eq!(entered.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_disk_with_a_backing_file_is_refused_and_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.qcow2");
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        header[8..16].copy_from_slice(&104_u64.to_be_bytes());
        header[16..20].copy_from_slice(&11_u32.to_be_bytes());
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        header[104..115].copy_from_slice(b"/etc/shadow");
        std::fs::write(&file, header).unwrap();
        let refused = repository(&dir).copy_in(id(3), &file).await.unwrap_err();
        assert!(refused.message.contains("backing file"), "{refused}");
    }

    #[tokio::test]
    async fn orders_for_places_that_are_not_public_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let repository = repository(&dir);
        for url in [
            "http://127.0.0.1:9/x",
            "http://169.254.169.254/latest",
            "http://[::1]/x",
            "http://0x7f.1/x",
            "ftp://2130706433/x",
            "nfs://[::ffff:10.0.0.1]/export/x",
            "http://localhost/x",
        ] {
            let refused = repository.judge(&order(url)).await.unwrap_err();
            assert!(refused.message.contains("may not be fetched"), "{url}");
        }
        let order = order("ftp://ann:pw@198.41.0.4/x");
        let shown = repository.judge(&order).await.unwrap();
        assert_eq!(shown, "ftp://ann:***@198.41.0.4/x");
    }
}
