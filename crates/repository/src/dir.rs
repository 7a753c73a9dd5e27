//! Images in a directory of the server: `<image_id>.<format>`, and what is not
//! yet one below `staging/<image_id>`.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::fs;
use vimana_fetch::Reach;
use vimana_format::Content;
use vimana_import::{
    Bounds, Checksum, ImportError, Input, Job, LocalError, LocalFile, Patience, Receiving, Staged,
    Staging, import, merge,
};
use vimana_model::ImageId;
use vimana_model::image::{ImageContent, ImageFormat, ImageSource, Origin, Upload};
use vimana_model::operation::Progress;
use vimana_model::unit::MiB;

use crate::{Arrived, Kept, Order, Refusal, Repository, Tell};

/// On which terms images are taken in.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which addresses may be fetched from.
    pub reach: Reach,
    /// Directories that files of this machine may be taken from.
    pub paths: Vec<PathBuf>,
    /// The program that converts images of other hypervisors; without one they
    /// are refused.
    pub converter: Option<PathBuf>,
    /// Bytes of a file, fetched or unpacked.
    pub max_bytes: u64,
    /// Size of the disk a guest sees.
    pub max_virtual_bytes: u64,
    /// Of every import from elsewhere.
    pub bytes_per_second: Option<NonZeroU64>,
    pub patience: Patience,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            reach: Reach::default(),
            paths: Vec::new(),
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

    async fn input(&self, source: &ImageSource) -> Result<Input, Refusal> {
        match source {
            ImageSource::Url(url) => Ok(Input::Remote {
                source: url.parse().map_err(refusal)?,
                reach: self.terms.reach.clone(),
            }),
            ImageSource::Upload(Upload { size_bytes, .. }) => Ok(Input::Uploaded {
                size_bytes: *size_bytes,
            }),
            ImageSource::Path(path) => {
                let (dirs, path) = (self.terms.paths.clone(), PathBuf::from(path));
                local(move || LocalFile::beneath(&dirs, &path)).await
            }
            ImageSource::Backup(_) => Err(not_here()),
            // Its host sends it: it comes as an upload.
            ImageSource::Volume(_) => Err(Refusal {
                message: "has not been sent".to_owned(),
            }),
        }
    }

    async fn job(&self, order: &Order) -> Result<Job, Refusal> {
        let checksum = order.checksum.as_deref().map(str::parse::<Checksum>);
        let checksum = checksum.transpose().map_err(refusal)?;
        let declared = order.declared.map(|format| match format {
            ImageFormat::Qcow2 => Content::Qcow2,
            ImageFormat::Raw => Content::Raw,
        });
        let input = self.input(&order.source).await?;
        Ok(self.job_of(input, checksum, declared))
    }

    fn job_of(&self, input: Input, checksum: Option<Checksum>, declared: Option<Content>) -> Job {
        let bytes_per_second = match &input {
            Input::Remote { .. } => self.terms.bytes_per_second,
            Input::Local(_) | Input::Uploaded { .. } => None,
        };
        Job {
            input,
            checksum,
            converter: self.terms.converter.clone(),
            declared,
            bounds: self.bounds(bytes_per_second),
            patience: self.terms.patience,
        }
    }

    const fn bounds(&self, bytes_per_second: Option<NonZeroU64>) -> Bounds {
        Bounds {
            max_bytes: self.terms.max_bytes,
            max_virtual_bytes: self.terms.max_virtual_bytes,
            bytes_per_second,
        }
    }

    async fn bring_in(&self, id: ImageId, job: &Job, tell: Tell<'_>) -> Result<Arrived, Refusal> {
        let staging = Staging::new(self.staging(id));
        let told = |progress: vimana_import::Progress| {
            tell(Progress {
                done_bytes: progress.received_bytes,
                total_bytes: progress.total_bytes.unwrap_or(0),
                copy: None,
            });
        };
        let staged = import(job, &staging, told).await.map_err(refusal)?;
        self.make_ready(id, staged).await
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
            version,
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
            version,
        })
    }
}

#[async_trait]
impl Repository for DirRepository {
    async fn judge(&self, order: &Order) -> Result<Origin, Refusal> {
        let input = self.job(order).await?.input;
        input.judge().await.map_err(refusal)?;
        let fetched = None;
        Ok(match &order.source {
            ImageSource::Url(_) => Origin::Url {
                url: input.to_string(),
                fetched,
            },
            ImageSource::Path(_) => Origin::File {
                path: input.to_string(),
                fetched,
            },
            ImageSource::Backup(_) => return Err(not_here()),
            ImageSource::Upload(upload) => {
                let Upload {
                    size_bytes,
                    file_name,
                } = upload.clone();
                if size_bytes > self.terms.max_bytes {
                    return Err(refusal(ImportError::TooLarge(self.terms.max_bytes)));
                }
                Origin::Upload {
                    file_name,
                    size_bytes,
                    fetched,
                }
            }
            ImageSource::Volume(_) => return Err(refusal("has not been sent")),
        })
    }

    async fn receive(&self, id: ImageId, upload: &Upload) -> io::Result<Receiving> {
        let staging = Staging::new(self.staging(id));
        staging.receive(upload.size_bytes).await
    }

    async fn uploaded(&self, id: ImageId, upload: &Upload) -> io::Result<u64> {
        let staging = Staging::new(self.staging(id));
        staging.uploaded(upload.size_bytes).await
    }

    async fn fetch(&self, id: ImageId, order: &Order, tell: Tell<'_>) -> Result<Arrived, Refusal> {
        let job = self.job(order).await?;
        self.bring_in(id, &job, tell).await
    }

    async fn version(&self, order: &Order) -> Result<Option<String>, Refusal> {
        let input = self.input(&order.source).await?;
        input.version().await.map_err(refusal)
    }

    async fn copy_in(&self, id: ImageId, file: &Path) -> Result<Arrived, Refusal> {
        let file = file.to_owned();
        let input = local(move || LocalFile::anywhere(&file)).await?;
        let job = self.job_of(input, None, None);
        self.bring_in(id, &job, &|_| ()).await
    }

    async fn merge_in(&self, id: ImageId, chain: &[PathBuf]) -> Result<Arrived, Refusal> {
        let Some(converter) = &self.terms.converter else {
            return Err(Refusal {
                message: "cannot be used: this server has no converter of images".to_owned(),
            });
        };
        let staging = Staging::new(self.staging(id));
        let merged = merge(converter, chain, &staging, self.bounds(None)).await;
        self.make_ready(id, merged.map_err(refusal)?).await
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

    async fn contents(&self) -> io::Result<BTreeMap<ImageId, Kept>> {
        let mut contents: BTreeMap<ImageId, Kept> = BTreeMap::new();
        let staged = |name: &str| name.parse::<ImageId>().ok();
        for (id, _) in named(&self.staging_root(), staged).await? {
            contents.entry(id).or_default().staged = true;
        }
        let file = |name: &str| {
            let (id, format) = name.split_once('.')?;
            Some((id.parse::<ImageId>().ok()?, format.parse().ok()?))
        };
        for ((id, format), size_bytes) in named(&self.dir, file).await? {
            let files = &mut contents.entry(id).or_default().files;
            files.push((format, size_bytes));
        }
        Ok(contents)
    }

    fn path(&self, id: ImageId, format: ImageFormat) -> PathBuf {
        self.dir.join(format!("{id}.{}", format.name()))
    }
}

/// What in a directory is named after such a thing, and how large that is;
/// other names are not ours. What is removed meanwhile is not there.
async fn named<T>(dir: &Path, read: impl Fn(&str) -> Option<T>) -> io::Result<Vec<(T, u64)>> {
    let mut entries = match fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let Some(thing) = entry.file_name().to_str().and_then(&read) else {
            continue;
        };
        match entry.metadata().await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            data => found.push((thing, data?.len())),
        }
    }
    Ok(found)
}

/// A file of this machine; its file system may take its time.
async fn local(
    find: impl FnOnce() -> Result<LocalFile, LocalError> + Send + 'static,
) -> Result<Input, Refusal> {
    let found = tokio::task::spawn_blocking(find).await;
    let found = found.map_err(|_| refusal(ImportError::Defect))?;
    found.map(Input::Local).map_err(refusal)
}

/// What is found elsewhere is looked at there.
fn not_here() -> Refusal {
    refusal("is not fetched by the repository")
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
            source: ImageSource::Url(url.to_owned()),
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
        let mut kept = Kept {
            files: Vec::new(),
            staged: true,
        };
        let expected = [(id(1), kept.clone())].into();
        assert_eq!(repository.contents().await.unwrap(), expected);
        for _ in 0..2 {
            repository.enter(id(1), ImageFormat::Raw).await.unwrap();
        }
        let path = repository.path(id(1), ImageFormat::Raw);
        assert_eq!(std::fs::read(&path).unwrap(), [7; 3000]);
        assert!(!repository.staging(id(1)).exists());
        kept.staged = false;
        kept.files.push((ImageFormat::Raw, 3000));
        let expected = [(id(1), kept)].into();
        assert_eq!(repository.contents().await.unwrap(), expected);
        for _ in 0..2 {
            repository.discard(id(1)).await.unwrap();
        }
        assert!(!path.exists());
        assert!(repository.contents().await.unwrap().is_empty());
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
        assert_eq!(shown.to_string(), "ftp://ann:***@198.41.0.4/x");
    }
}
