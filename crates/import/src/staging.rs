//! The directory of one import.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;
use vimana_fetch::Mark;
use vimana_format::Content;

use crate::checksum::hex;
use crate::{Checksum, Input};

/// Where one import keeps what it has.
#[derive(Clone, Debug)]
pub struct Staging {
    dir: PathBuf,
}

/// An image that was checked; its file is the caller's to move away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    pub path: PathBuf,
    pub content: Content,
    /// Length of the file.
    pub size_bytes: u64,
    /// Size of the disk a guest sees.
    pub virtual_bytes: u64,
    /// Hexadecimal SHA-256 of the file.
    pub sha256: String,
    /// Bytes that were fetched, and their checksum: of the kind that was asked
    /// for, else the SHA-256.
    pub fetched_bytes: u64,
    pub fetched_checksum: Checksum,
    /// What the source's version was; opaque.
    pub version: Option<String>,
}

/// What the source was when the bytes came.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Of the source, which may hold a password.
    source_sha256: String,
    version: Option<String>,
    /// So many bytes are surely on disk.
    durable_bytes: u64,
}

impl Staging {
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The source's bytes, as they came.
    pub(crate) fn download(&self) -> PathBuf {
        self.dir.join("download")
    }

    /// What they unpack to.
    pub(crate) fn content(&self) -> PathBuf {
        self.dir.join("content")
    }

    /// What it was turned into.
    pub(crate) fn converted(&self) -> PathBuf {
        self.dir.join("converted")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("source.json")
    }

    /// Makes the directory, waits until nobody else works in it, and keeps
    /// others away for as long as the file lives.
    pub(crate) async fn lock(&self) -> io::Result<std::fs::File> {
        fs::create_dir_all(&self.dir).await?;
        let path = self.dir.join("lock");
        let locked = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::create(path)?;
            file.lock()?;
            Ok(file)
        });
        locked.await?
    }

    /// Finds what came before, and lets go of the rest.
    pub(crate) async fn resume(&self, input: &Input) -> io::Result<Mark> {
        let found = self.found(input).await?;
        let mark = found.unwrap_or(Mark {
            offset: 0,
            version: None,
        });
        let download = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.download())
            .await?;
        // What came after the last record may be there or not.
        download.set_len(mark.offset).await?;
        Ok(mark)
    }

    pub(crate) async fn found(&self, input: &Input) -> io::Result<Option<Mark>> {
        let text = match fs::read(self.record()).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(record) = serde_json::from_slice::<Record>(&text) else {
            return Ok(None);
        };
        let length = match fs::metadata(self.download()).await {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let same = record.source_sha256 == fingerprint(input);
        Ok((same && record.durable_bytes <= length).then_some(Mark {
            offset: record.durable_bytes,
            version: record.version,
        }))
    }

    /// Records that so much of the source is on disk; the record is as well
    /// when this returns.
    pub(crate) async fn reached(&self, input: &Input, mark: &Mark) -> io::Result<()> {
        let record = Record {
            source_sha256: fingerprint(input),
            version: mark.version.clone(),
            durable_bytes: mark.offset,
        };
        let text = serde_json::to_vec(&record)?;
        let fresh = self.dir.join("source.json.new");
        let mut file = fs::File::create(&fresh).await?;
        file.write_all(&text).await?;
        file.sync_all().await?;
        fs::rename(&fresh, self.record()).await?;
        fs::File::open(&self.dir).await?.sync_all().await
    }

    /// What came before is worth nothing.
    pub(crate) async fn forget(&self) -> io::Result<()> {
        for file in [
            self.record(),
            self.converted(),
            self.content(),
            self.download(),
        ] {
            match fs::remove_file(file).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes everything.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn discard(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn fingerprint(input: &Input) -> String {
    hex(&Sha256::digest(input.identity()))
}
