//! The datastore: what both its sides see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use vimana_agent::{Fetched, ImageSource, LocalImage, Meter};
use vimana_datastore::{Contents, DatastoreDriver, Item, ItemFile, Room};
use vimana_driver::{BackupFile, Fault, FaultKind, ImageRef, Part, SavedMachine, SavedPart};
use vimana_driver_sim::{Course, Mishap, SimHost};
use vimana_engine::Transfer;
use vimana_model::backup::{DiskId, KeptDisk};
use vimana_model::{BackupId, Error, HostId, VmId};
use vimana_protocol::agent::VolumeOrder;

use super::chance::Chance;
use super::server::Server;
use super::weather::Weather;

type Kept = BTreeMap<ItemFile, Bytes>;

/// Decides how each removal goes.
type Director = Box<dyn FnMut() -> Course + Send>;

/// What is kept; outlives the server.
#[derive(Clone, Default)]
pub struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    kept: Mutex<Kept>,
    removals: Mutex<Option<Director>>,
}

impl Vault {
    /// Lets `director` decide how every removal goes from now on.
    pub fn direct_removals(&self, director: impl FnMut() -> Course + Send + 'static) {
        *self.removals() = Some(Box::new(director));
    }

    fn removals(&self) -> MutexGuard<'_, Option<Director>> {
        self.0
            .removals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// That of which something is kept.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let items: BTreeSet<Item> = self.kept().keys().map(|file| file.item()).collect();
        items.into_iter().collect()
    }

    /// Everything that is kept.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (file, bytes) in &*self.kept() {
            match *file {
                ItemFile::Saved {
                    vm,
                    run_epoch,
                    part,
                } => {
                    let runs = contents.saved.entry(vm).or_default();
                    let parts = runs.entry(run_epoch).or_default();
                    parts.insert(part, size(bytes));
                }
                ItemFile::Backup { backup, disk } => {
                    let disks = contents.backups.entry(backup).or_default();
                    disks.insert(disk, size(bytes));
                }
            }
        }
        contents
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's side.
pub struct ServerVault {
    vault: Vault,
    chance: Chance,
    weather: Weather,
    /// The server whose side it is was killed.
    dead: CancellationToken,
}

impl ServerVault {
    #[must_use]
    pub fn new(vault: Vault, chance: Chance, weather: Weather, dead: CancellationToken) -> Self {
        Self {
            vault,
            chance,
            weather,
            dead,
        }
    }

    async fn reach(&self) -> io::Result<()> {
        let sky = self.weather.now();
        if sky.slow {
            tokio::time::sleep(self.chance.ms(0..=50)).await;
        }
        if self.dead.is_cancelled() {
            return std::future::pending().await;
        }
        if self.chance.one_in(sky.bad_datastore) {
            return Err(io::Error::other("the simulated datastore has a bad moment"));
        }
        Ok(())
    }
}

#[async_trait]
impl DatastoreDriver for ServerVault {
    async fn discard(&self, item: Item) -> io::Result<()> {
        self.reach().await?;
        let course = self.vault.removals().as_mut().map(|director| director());
        let course = course.unwrap_or_default();
        if !course.before.is_zero() {
            tokio::time::sleep(course.before).await;
        }
        match course.mishap {
            Some(Mishap::Fail(fault)) => return Err(io::Error::other(fault.message)),
            Some(Mishap::FailAfter(_) | Mishap::Panic | Mishap::PanicAfter) | None => {}
        }
        if self.dead.is_cancelled() {
            return std::future::pending().await;
        }
        self.vault.kept().retain(|file, _| file.item() != item);
        match course.mishap {
            Some(Mishap::FailAfter(fault)) => Err(io::Error::other(fault.message)),
            Some(Mishap::Fail(_) | Mishap::Panic | Mishap::PanicAfter) | None => Ok(()),
        }
    }

    async fn holds(&self) -> io::Result<Vec<Item>> {
        self.reach().await?;
        Ok(self.vault.items())
    }

    async fn contents(&self) -> io::Result<Contents> {
        self.reach().await?;
        Ok(self.vault.contents())
    }

    async fn room(&self) -> io::Result<Room> {
        self.reach().await?;
        Ok(Room {
            capacity: 1 << 40,
            free: 1 << 39,
            reserve: 0,
        })
    }
}

/// An agent's side: every file goes by way of the server.
pub struct AgentVault {
    pub host_id: HostId,
    pub host: Arc<SimHost>,
    pub server: Server,
    pub vault: Vault,
    pub chance: Chance,
    pub weather: Weather,
}

impl AgentVault {
    async fn carry(&self) -> Result<(), Fault> {
        let sky = self.weather.now();
        if sky.slow {
            let long = self.chance.one_in(10);
            let takes = self.chance.ms(0..=if long { 8000 } else { 300 });
            tokio::time::sleep(takes).await;
        }
        if self.chance.one_in(sky.broken_transfers) {
            return Err(unavailable("the transfer broke off"));
        }
        Ok(())
    }

    async fn may(&self, vm: VmId, run_epoch: u64, way: Transfer) -> Result<(), Fault> {
        let host = self.host_id;
        let asked = self.server.call(move |engine| async move {
            engine.check_transfer(host, vm, run_epoch, way).await
        });
        allowed(asked.await)
    }

    async fn may_keep(&self, backup: BackupId, disk: DiskId) -> Result<(), Fault> {
        let host = self.host_id;
        let asked = self.server.call(move |engine| async move {
            engine.check_backup(host, backup, disk).await.map(drop)
        });
        allowed(asked.await)
    }
}

#[async_trait]
impl vimana_agent::Datastore for AgentVault {
    async fn upload(
        &self,
        vm_id: VmId,
        run_epoch: u64,
        files: &[(Part, PathBuf)],
        meter: &Meter,
    ) -> Result<Vec<SavedPart>, Fault> {
        let mut parts = Vec::new();
        for (part, path) in files {
            let reading = |error| Fault::io("reading the saved machine", &error);
            let bytes = self.host.read_file(path).map_err(reading)?;
            meter.expect(size(&bytes));
            self.may(vm_id, run_epoch, Transfer::Upload).await?;
            self.carry().await?;
            // The server looks again when everything has arrived.
            self.may(vm_id, run_epoch, Transfer::Upload).await?;
            meter.moved(size(&bytes));
            parts.push(SavedPart {
                part: *part,
                size_bytes: size(&bytes),
                sha256: digest(&bytes),
            });
            let file = ItemFile::Saved {
                vm: vm_id,
                run_epoch,
                part: *part,
            };
            self.vault.kept().insert(file, bytes);
        }
        Ok(parts)
    }

    async fn keep(
        &self,
        backup: BackupId,
        files: &[BackupFile],
        meter: &Meter,
    ) -> Result<Vec<KeptDisk>, Fault> {
        let mut disks = Vec::new();
        for BackupFile {
            disk,
            path,
            size: size_mib,
        } in files
        {
            let reading = |error| Fault::io("reading the backup", &error);
            let bytes = self.host.read_file(path).map_err(reading)?;
            meter.expect(size(&bytes));
            self.may_keep(backup, *disk).await?;
            self.carry().await?;
            // The server looks again when everything has arrived.
            self.may_keep(backup, *disk).await?;
            meter.moved(size(&bytes));
            disks.push(KeptDisk {
                disk: *disk,
                size_mib: *size_mib,
                size_bytes: size(&bytes),
                sha256: digest(&bytes),
            });
            let file = ItemFile::Backup {
                backup,
                disk: *disk,
            };
            self.vault.kept().insert(file, bytes);
        }
        Ok(disks)
    }

    async fn download(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        meter: &Meter,
    ) -> Result<Fetched, Fault> {
        let mut files = Vec::new();
        for promised in &saved.parts {
            self.may(vm_id, saved.run_epoch, Transfer::Download).await?;
            self.carry().await?;
            let key = ItemFile::Saved {
                vm: vm_id,
                run_epoch: saved.run_epoch,
                part: promised.part,
            };
            let bytes = self.vault.kept().get(&key).cloned();
            let bytes = bytes.ok_or_else(|| unavailable("the datastore does not have it"))?;
            if digest(&bytes) != promised.sha256 || size(&bytes) != promised.size_bytes {
                let message = "the saved machine is not what was promised";
                return Err(Fault::new(FaultKind::BadImage, message));
            }
            meter.expect(size(&bytes));
            meter.moved(size(&bytes));
            let path = PathBuf::from(format!("/incoming/{vm_id}/{}", promised.part));
            self.host.write_file(&path, bytes);
            files.push((promised.part, path));
        }
        Ok(Fetched::lent(files))
    }

    async fn send_volume(&self, _order: &VolumeOrder, _copy: &Path) -> Result<(), Fault> {
        // The simulated server takes no images in.
        Err(unavailable("no images are taken in here"))
    }
}

/// Images are everywhere already.
pub struct Images;

#[async_trait]
impl ImageSource for Images {
    async fn get(&self, _image: &ImageRef, _meter: &Meter) -> Result<LocalImage, Fault> {
        Ok(LocalImage::lasting(PathBuf::from("/simulated/image")))
    }
}

fn allowed(answer: Option<Result<(), Error>>) -> Result<(), Fault> {
    match answer {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(unavailable(&error.public)),
        None => Err(unavailable("the server is away")),
    }
}

fn unavailable(message: &str) -> Fault {
    Fault::new(FaultKind::Unavailable, message)
}

fn size(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Enough to tell two contents apart.
fn digest(bytes: &Bytes) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
