//! Saved machines on their way to the datastore and back; backups, and copies of
//! volumes, on their way to the server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::fs::File;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use vimana_driver::{BackupFile, Fault, FaultKind, Part, SavedMachine, SavedPart};
use vimana_model::backup::KeptDisk;
use vimana_model::{BackupId, VmId};
use vimana_protocol::agent::VolumeOrder;

use crate::Meter;
use crate::data_dir::sweep;
use crate::limits::{TRANSFER_CHUNK_BYTES, UPLOAD_STALL};
use crate::transfer::{Failure, Promise, Transfer, broken, receive, refused, stalled};

/// What directories of machines that are on their way are called.
const PARTIAL_PREFIX: &str = ".partial-";
const COPYING: Upload = Upload {
    doing: "copying the machine to the datastore",
    reading: "reading what is to be copied",
};
const SENDING: Upload = Upload {
    doing: "sending the volume's content",
    reading: "reading the volume's copy",
};
const FETCHING: &str = "fetching the saved machine";
const MISSING: &str = "the datastore does not have the saved machine";

/// Where saved machines go.
#[async_trait]
pub trait Datastore: Send + Sync + 'static {
    /// Copies the files of a machine that was saved in its run `run_epoch`;
    /// says what is there afterwards. Repeating it gives the same.
    ///
    /// # Errors
    /// `Unavailable` where the datastore is, `BadImage` where other bytes
    /// arrived than went, or `Host`.
    async fn upload(
        &self,
        vm_id: VmId,
        run_epoch: u64,
        files: &[(Part, PathBuf)],
        meter: &Meter,
    ) -> Result<Vec<SavedPart>, Fault>;

    /// Copies the files of a backup, as [`Datastore::upload`] does.
    ///
    /// # Errors
    /// As [`Datastore::upload`].
    async fn keep(
        &self,
        backup: BackupId,
        files: &[BackupFile],
        meter: &Meter,
    ) -> Result<Vec<KeptDisk>, Fault>;

    /// Fetches the files of a saved machine, and checks them.
    ///
    /// # Errors
    /// `Unavailable` where the datastore is, `BadImage` where the bytes are
    /// not what was promised, `NoSpace` or `Host`. Then nothing is left.
    async fn download(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        meter: &Meter,
    ) -> Result<Fetched, Fault>;

    /// Sends a copy of a volume, for the image that is to be made of it; fine
    /// where nobody wants it any more.
    ///
    /// # Errors
    /// `Unavailable` where the server is, `BadImage` where it does not take
    /// it, or `Host`.
    async fn send_volume(&self, order: &VolumeOrder, copy: &Path) -> Result<(), Fault>;
}

/// What a file is sent for, in words.
#[derive(Clone, Copy)]
struct Upload {
    doing: &'static str,
    reading: &'static str,
}

/// The files of a saved machine. What is still there when it is dropped goes.
#[derive(Debug)]
pub struct Fetched {
    pub files: Vec<(Part, PathBuf)>,
    _dir: Option<TempDir>,
}

impl Fetched {
    /// Files that are somebody else's to remove.
    #[must_use]
    pub fn lent(files: Vec<(Part, PathBuf)>) -> Self {
        Self { files, _dir: None }
    }
}

/// The server's datastore.
pub struct ServerDatastore {
    directory: PathBuf,
    transfer: Transfer,
}

/// The server's answer to an upload: what it has on its disk.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Stored {
    size_bytes: u64,
    sha256: String,
}

impl ServerDatastore {
    /// Takes over `directory`; what an earlier agent left there goes.
    ///
    /// # Errors
    /// Where the directory cannot be cleaned.
    pub fn open(directory: PathBuf, transfer: Transfer) -> io::Result<Self> {
        sweep(&directory, PARTIAL_PREFIX)?;
        Ok(Self {
            directory,
            transfer,
        })
    }

    /// Sends files, each to its URL.
    async fn put_all(
        &self,
        what: Upload,
        files: &[(String, &Path)],
        meter: &Meter,
    ) -> Result<Vec<Stored>, Fault> {
        for (_, path) in files {
            let data = tokio::fs::metadata(path).await;
            let data = data.map_err(|error| Fault::io(what.reading, &error))?;
            meter.expect(data.len());
        }
        let mut all = Vec::with_capacity(files.len());
        for (url, path) in files {
            all.push(self.put(what, url, path, meter).await?);
        }
        Ok(all)
    }

    /// Sends a file, in as many tries as that takes.
    async fn put(
        &self,
        what: Upload,
        url: &str,
        path: &Path,
        meter: &Meter,
    ) -> Result<Stored, Fault> {
        let mut tries = self.transfer.tries();
        loop {
            match self.try_put(what, url, path, meter).await {
                Ok(stored) => return Ok(stored),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    async fn try_put(
        &self,
        what: Upload,
        url: &str,
        path: &Path,
        meter: &Meter,
    ) -> Result<Stored, Failure> {
        let reading = |error: io::Error| Fault::io(what.reading, &error);
        let file = File::open(path).await.map_err(reading)?;
        let size_bytes = file.metadata().await.map_err(reading)?.len();
        let outflow = Arc::new(Outflow::default());
        let result = self
            .send(what.doing, url, file, size_bytes, &outflow, meter)
            .await;
        if result.is_err() {
            meter.moved_in_vain(outflow.sent().1);
        }
        let stored = result?;
        let (hash, sent) = outflow.sent();
        let ours = Stored {
            size_bytes: sent,
            sha256: format!("{:x}", hash.finalize()),
        };
        if sent != size_bytes || stored != ours {
            let message = format!("{}: other bytes arrived than went", what.doing);
            return Err(Failure::Passing(Fault::new(FaultKind::BadImage, message)));
        }
        Ok(stored)
    }

    async fn send(
        &self,
        doing: &'static str,
        url: &str,
        file: File,
        size_bytes: u64,
        outflow: &Arc<Outflow>,
        meter: &Meter,
    ) -> Result<Stored, Failure> {
        let (flow, meter) = (Arc::clone(outflow), meter.clone());
        let body =
            ReaderStream::with_capacity(file, TRANSFER_CHUNK_BYTES).inspect_ok(move |chunk| {
                flow.pass(chunk);
                meter.moved(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            });
        let answer = async {
            let request = self.transfer.put(url).header(CONTENT_LENGTH, size_bytes);
            let response = request.body(Body::wrap_stream(body)).send().await;
            let response = response.map_err(|error| broken(doing, error))?;
            match response.status() {
                StatusCode::OK | StatusCode::CREATED => {}
                StatusCode::GONE => {
                    let message = format!("{doing}: nobody wants it any more");
                    return Err(Fault::new(FaultKind::Cancelled, message).into());
                }
                _ => return Err(refused(doing, response).await),
            }
            let stored = response.json().await;
            stored.map_err(|error| broken(doing, error))
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = outflow.stall() => Err(stalled(doing, UPLOAD_STALL)),
        }
    }

    async fn fetch(
        &self,
        url: &str,
        path: &Path,
        part: &SavedPart,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let storing = |error: io::Error| Fault::io("storing the saved machine", &error);
        let response = self.transfer.get(FETCHING, url, MISSING).await?;
        // Made without waiting, so that no file appears in a directory that is
        // gone with the future.
        let mut file = File::from_std(std::fs::File::create(path).map_err(storing)?);
        let promise = Promise {
            size_bytes: part.size_bytes,
            sha256: &part.sha256,
        };
        receive(response, &mut file, &promise, "the saved machine", meter).await?;
        // Whoever takes it over may only move it.
        file.sync_all().await.map_err(storing)?;
        Ok(())
    }
}

#[async_trait]
impl Datastore for ServerDatastore {
    async fn upload(
        &self,
        vm_id: VmId,
        run_epoch: u64,
        files: &[(Part, PathBuf)],
        meter: &Meter,
    ) -> Result<Vec<SavedPart>, Fault> {
        let urls = files.iter();
        let urls = urls.map(|(part, path)| (url(vm_id, run_epoch, *part), path.as_path()));
        let stored = self
            .put_all(COPYING, &urls.collect::<Vec<_>>(), meter)
            .await?;
        let parts = files.iter().zip(stored);
        let parts = parts.map(|((part, _), stored)| SavedPart {
            part: *part,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
        });
        Ok(parts.collect())
    }

    async fn keep(
        &self,
        backup: BackupId,
        files: &[BackupFile],
        meter: &Meter,
    ) -> Result<Vec<KeptDisk>, Fault> {
        let urls = files.iter().map(|file| {
            let url = format!("/agent/v1/backups/{backup}/{}", file.disk);
            (url, file.path.as_path())
        });
        let stored = self
            .put_all(COPYING, &urls.collect::<Vec<_>>(), meter)
            .await?;
        let disks = files.iter().zip(stored).map(|(file, stored)| KeptDisk {
            disk: file.disk,
            size_mib: file.size,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
        });
        Ok(disks.collect())
    }

    async fn download(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        meter: &Meter,
    ) -> Result<Fetched, Fault> {
        for part in &saved.parts {
            meter.expect(part.size_bytes);
        }
        let dir = tempfile::Builder::new()
            .prefix(PARTIAL_PREFIX)
            .tempdir_in(&self.directory)
            .map_err(|error| Fault::io("storing the saved machine", &error))?;
        let mut files = Vec::with_capacity(saved.parts.len());
        for part in &saved.parts {
            let url = url(vm_id, saved.run_epoch, part.part);
            let path = dir.path().join(part.part.name());
            let mut tries = self.transfer.tries();
            while let Err(failure) = self.fetch(&url, &path, part, meter).await {
                tries.after(failure).await?;
            }
            files.push((part.part, path));
        }
        Ok(Fetched {
            files,
            _dir: Some(dir),
        })
    }

    async fn send_volume(&self, order: &VolumeOrder, copy: &Path) -> Result<(), Fault> {
        let VolumeOrder {
            image_id,
            operation_id,
            ..
        } = order;
        let url = format!("/agent/v1/images/{image_id}/{operation_id}");
        match self.put(SENDING, &url, copy, &Meter::silent()).await {
            Err(fault) if fault.kind == FaultKind::Cancelled => Ok(()),
            sent => sent.map(drop),
        }
    }
}

fn url(vm_id: VmId, run_epoch: u64, part: Part) -> String {
    format!("/agent/v1/saved/{vm_id}/{run_epoch}/{}", part.name())
}

/// What has left in a body, seen from outside.
#[derive(Default)]
struct Outflow {
    sent: Mutex<(Sha256, u64)>,
    moved: Notify,
}

impl Outflow {
    fn pass(&self, chunk: &[u8]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.0.update(chunk);
        let size = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        sent.1 = sent.1.saturating_add(size);
        drop(sent);
        self.moved.notify_one();
    }

    fn sent(&self) -> (Sha256, u64) {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }

    /// Returns when nothing has moved for too long.
    async fn stall(&self) {
        while timeout(UPLOAD_STALL, self.moved.notified()).await.is_ok() {}
    }
}
