//! Where the memory and disk of stopped VMs are kept.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use vimana_model::operation::{OperationKind, StepKind};
use vimana_model::saved::{Part, SavedPart};
use vimana_model::{Error, ErrorKind, HostId, Result, VmId};
use vimana_store::vm::VmRecord;
use vimana_store::{operation, vm};

use crate::Engine;
use crate::saga::current;

/// What is kept of one VM: of each run the parts, and their sizes in bytes.
pub type Copies = BTreeMap<u64, BTreeMap<Part, u64>>;

/// A place for saved machines.
#[async_trait]
pub trait Datastore: Send + Sync + 'static {
    /// Removes all that is kept of a VM; fine if there is nothing.
    async fn discard(&self, vm: VmId) -> io::Result<()>;

    /// The VMs of which something is kept.
    async fn holds(&self) -> io::Result<Vec<VmId>>;

    /// Everything that is kept; of parts only what was received as a whole.
    async fn contents(&self) -> io::Result<BTreeMap<VmId, Copies>>;

    /// Begins a part anew; what an earlier try left is overwritten.
    ///
    /// A place whose bytes hosts carry by another way has none here.
    async fn receive(&self, _vm: VmId, _run_epoch: u64, _part: Part) -> io::Result<Receiving> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A part that was received, and its size.
    async fn open(&self, _vm: VmId, _run_epoch: u64, _part: Part) -> io::Result<(File, u64)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A directory on the server: `<vm_id>/<run_epoch>/<part>`.
#[derive(Clone, Debug)]
pub struct DirDatastore {
    dir: PathBuf,
}

/// Which way bytes go between a host and the datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Upload,
    Download,
}

impl DirDatastore {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn run_dir(&self, vm: VmId, run_epoch: u64) -> PathBuf {
        self.dir.join(vm.to_string()).join(run_epoch.to_string())
    }
}

#[async_trait]
impl Datastore for DirDatastore {
    async fn discard(&self, vm: VmId) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.join(vm.to_string())).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    async fn holds(&self) -> io::Result<Vec<VmId>> {
        names(&self.dir).await
    }

    async fn contents(&self) -> io::Result<BTreeMap<VmId, Copies>> {
        let mut contents = BTreeMap::new();
        for vm in self.holds().await? {
            let mut copies = Copies::new();
            let runs = match names(&self.dir.join(vm.to_string())).await {
                // A file that is called like a VM: something is there, but no run.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => Vec::new(),
                other => other?,
            };
            for run_epoch in runs {
                copies.insert(run_epoch, parts(&self.run_dir(vm, run_epoch)).await?);
            }
            contents.insert(vm, copies);
        }
        Ok(contents)
    }

    async fn receive(&self, vm: VmId, run_epoch: u64, part: Part) -> io::Result<Receiving> {
        let dir = self.run_dir(vm, run_epoch);
        fs::create_dir_all(&dir).await?;
        let unfinished = dir.join(format!("{}.part", part.name()));
        Ok(Receiving {
            file: File::create(&unfinished).await?,
            unfinished,
            path: dir.join(part.name()),
            dir,
            part,
            size_bytes: 0,
            hash: Sha256::new(),
        })
    }

    async fn open(&self, vm: VmId, run_epoch: u64, part: Part) -> io::Result<(File, u64)> {
        let file = File::open(self.run_dir(vm, run_epoch).join(part.name())).await?;
        let size_bytes = file.metadata().await?.len();
        Ok((file, size_bytes))
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

async fn parts(dir: &Path) -> io::Result<BTreeMap<Part, u64>> {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    let mut parts = BTreeMap::new();
    for part in Part::ALL {
        match fs::metadata(dir.join(part.name())).await {
            Ok(file) => {
                parts.insert(part, file.len());
            }
            Err(error) if gone.contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

/// A part on its way into the datastore. Dropped unfinished, it leaves a file
/// that the next try overwrites and a discard removes.
#[derive(Debug)]
pub struct Receiving {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    dir: PathBuf,
    part: Part,
    size_bytes: u64,
    hash: Sha256,
}

impl Receiving {
    /// # Errors
    /// The file system's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.size_bytes = self.size_bytes.saturating_add(more);
        self.file.write_all(bytes).await
    }

    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Makes the part durable under its name, and says what was stored.
    ///
    /// # Errors
    /// The file system's.
    pub async fn finish(mut self) -> io::Result<SavedPart> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        fs::rename(&self.unfinished, &self.path).await?;
        sync_dir(&self.dir).await?;
        Ok(SavedPart {
            part: self.part,
            size_bytes: self.size_bytes,
            sha256: crate::secret::hex(&self.hash.finalize()),
        })
    }
}

async fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).await?.sync_all().await
}

impl Engine {
    /// Begins to take in a part of a saved machine, from the host that was
    /// asked for it; at most as much as may come, in bytes.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, `Unavailable` where the
    /// datastore has no room.
    pub async fn receive_saved(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        part: Part,
    ) -> Result<(Receiving, u64)> {
        let vm = self
            .transferred(host, id, run_epoch, Transfer::Upload)
            .await?;
        let amount = match part {
            Part::Disk => vm.resources.disk_mib,
            Part::Memory => vm.resources.memory_mib,
        };
        // Tables of the formats, and devices' state, come on top.
        let most = amount.bytes().unwrap_or(u64::MAX);
        let most = most.saturating_add(most / 16).saturating_add(256 << 20);
        let receiving = self.inner.datastore.receive(id, run_epoch, part).await;
        Ok((receiving.map_err(datastore_error)?, most))
    }

    /// A part of a saved machine, for the host that was asked to take it.
    ///
    /// # Errors
    /// `NotFound` where the host was not asked, or it is not there.
    pub async fn open_saved(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        part: Part,
    ) -> Result<(File, u64)> {
        self.transferred(host, id, run_epoch, Transfer::Download)
            .await?;
        match self.inner.datastore.open(id, run_epoch, part).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("saved machine `{id}`")))
            }
            other => other.map_err(datastore_error),
        }
    }

    /// Whether `host` has been asked to carry the saved machine that way, for
    /// datastores that hosts reach by themselves.
    ///
    /// # Errors
    /// `NotFound` where it has not.
    pub async fn check_transfer(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        way: Transfer,
    ) -> Result<()> {
        self.transferred(host, id, run_epoch, way).await.map(drop)
    }

    /// The VM, if `host` has been asked to carry it that way.
    ///
    /// # Errors
    /// `NotFound` where it has not.
    async fn transferred(
        &self,
        host: HostId,
        id: VmId,
        run_epoch: u64,
        way: Transfer,
    ) -> Result<VmRecord> {
        let refused = || Error::not_found(format!("saved machine `{id}`"));
        let read = self.store().read();
        let vm = vm::find(&read, id).await?.ok_or_else(refused)?;
        let operation = match vm.operation_id {
            Some(id) => operation::find(&read, id).await?,
            None => None,
        };
        let operation = operation.ok_or_else(refused)?;
        let step = current(&operation).filter(|current| !current.undo);
        let asked = match (operation.kind, step.map(|step| step.kind), way) {
            (OperationKind::Stop, Some(StepKind::Upload), Transfer::Upload) => {
                vm.run_epoch == run_epoch
            }
            (OperationKind::Resume, Some(StepKind::Download), Transfer::Download) => vm
                .saved
                .as_ref()
                .is_some_and(|saved| saved.run_epoch == run_epoch),
            _ => false,
        };
        let here = vm.host.as_ref().is_some_and(|on| on.id == host);
        if asked && here {
            Ok(vm)
        } else {
            Err(refused())
        }
    }
}

/// What the datastore's file system says, for whoever asked.
#[must_use]
pub fn datastore_error(error: io::Error) -> Error {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let message = if full.contains(&error.kind()) {
        "the datastore is full"
    } else {
        "the datastore cannot be used now"
    };
    let mut told = Error::new(ErrorKind::Unavailable, message);
    told.source = Some(error.into());
    told
}
