//! Saved machines on their way to the datastore and back; backups, and copies of
//! volumes, on their way to the server.

mod digest;
mod download;
mod partial;
mod upload;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use vimana_driver::{BackupFile, Fault, FaultKind, Part, SavedMachine, SavedPart};
use vimana_model::backup::KeptDisk;
use vimana_model::{BackupId, VmId};
use vimana_protocol::agent::VolumeOrder;

use crate::Meter;
use crate::transfer::Transfer;
use download::try_fetch;
use partial::Partials;
use upload::{Upload, put, put_all};

const COPYING: Upload = Upload {
    doing: "copying the machine to the datastore",
    reading: "reading what is to be copied",
    goes_on: true,
};
const KEEPING: Upload = Upload {
    goes_on: false,
    ..COPYING
};
const SENDING: Upload = Upload {
    doing: "sending the volume's content",
    reading: "reading the volume's copy",
    goes_on: false,
};

/// Where saved machines go.
#[async_trait]
pub trait Datastore: Send + Sync + 'static {
    /// Copies the files of a machine that was saved in its run `run_epoch`;
    /// says what is there afterwards. Repeating it gives the same, and copies
    /// only what is not there.
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

    /// Copies the files of a backup, all of them.
    ///
    /// # Errors
    /// As [`Datastore::upload`].
    async fn keep(
        &self,
        backup: BackupId,
        files: &[BackupFile],
        meter: &Meter,
    ) -> Result<Vec<KeptDisk>, Fault>;

    /// Fetches the files of a saved machine, and checks them. They stay until
    /// they are moved or forgotten; repeating it fetches only what is missing.
    ///
    /// # Errors
    /// `Unavailable` where the datastore is; what came is gone on with then.
    /// `BadImage` where the bytes are not what was promised, `NoSpace` or
    /// `Host`. Then nothing is left.
    async fn download(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        meter: &Meter,
    ) -> Result<Fetched, Fault>;

    /// Removes what was fetched of a machine: it was taken over, or nobody
    /// wants it here.
    async fn forget(&self, _vm_id: VmId) {}

    /// Sends a copy of a volume, for the image that is to be made of it; fine
    /// where nobody wants it any more.
    ///
    /// # Errors
    /// `Unavailable` where the server is, `BadImage` where it does not take
    /// it, or `Host`.
    async fn send_volume(&self, order: &VolumeOrder, copy: &Path) -> Result<(), Fault>;
}

/// The files of a saved machine. Whoever takes it over may move them; the
/// others stay until the datastore is told to forget them.
#[derive(Debug)]
pub struct Fetched {
    pub files: Vec<(Part, PathBuf)>,
}

impl Fetched {
    #[must_use]
    pub fn lent(files: Vec<(Part, PathBuf)>) -> Self {
        Self { files }
    }
}

/// The server's datastore.
pub struct ServerDatastore {
    partials: Partials,
    transfer: Transfer,
}

impl ServerDatastore {
    /// Takes over `directory`; what an earlier agent left there is gone on
    /// with, or goes where nobody has for too long.
    ///
    /// # Errors
    /// Where the directory cannot be cleaned.
    pub fn open(directory: PathBuf, transfer: Transfer) -> io::Result<Self> {
        Ok(Self {
            partials: Partials::open(directory)?,
            transfer,
        })
    }

    async fn fetch(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        meter: &Meter,
    ) -> Result<Fetched, Fault> {
        let files = self.partials.of(vm_id, saved).await?;
        for (part, path) in &files {
            let url = url(vm_id, saved.run_epoch, part.part);
            let mut tries = self.transfer.tries();
            while let Err(failure) = try_fetch(&self.transfer, &url, path, part, meter).await {
                tries.after(failure).await?;
            }
        }
        let files = files.into_iter().map(|(part, path)| (part.part, path));
        Ok(Fetched::lent(files.collect()))
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
        let urls = urls.collect::<Vec<_>>();
        let stored = put_all(&self.transfer, COPYING, &urls, meter).await?;
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
        let urls = urls.collect::<Vec<_>>();
        let stored = put_all(&self.transfer, KEEPING, &urls, meter).await?;
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
        let fetched = self.fetch(vm_id, saved, meter).await;
        // What will not come better is in nobody's way.
        if fetched
            .as_ref()
            .is_err_and(|fault| fault.kind != FaultKind::Unavailable)
        {
            self.forget(vm_id).await;
        }
        fetched
    }

    async fn forget(&self, vm_id: VmId) {
        self.partials.forget(vm_id).await;
    }

    async fn send_volume(&self, order: &VolumeOrder, copy: &Path) -> Result<(), Fault> {
        let VolumeOrder {
            image_id,
            operation_id,
            ..
        } = order;
        let url = format!("/agent/v1/images/{image_id}/{operation_id}");
        match put(&self.transfer, SENDING, &url, copy, &Meter::silent()).await {
            Err(fault) if fault.kind == FaultKind::Cancelled => Ok(()),
            sent => sent.map(drop),
        }
    }
}

fn url(vm_id: VmId, run_epoch: u64, part: Part) -> String {
    format!("/agent/v1/saved/{vm_id}/{run_epoch}/{part}")
}
