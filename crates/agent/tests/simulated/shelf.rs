//! Images, the datastore and the lease, in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use vimana_agent::watchdog::{BootTime, Fenced};
use vimana_agent::{Datastore, Fetched, ImageSource, Lease, LocalImage, Meter};
use vimana_driver::{BackupFile, Fault, FaultKind, ImageRef, Part, SavedMachine, SavedPart};
use vimana_driver_sim::SimHost;
use vimana_model::backup::{DiskId, KeptDisk};
use vimana_model::{BackupId, VmId};
use vimana_protocol::agent::VolumeOrder;

/// What a part of a saved machine is kept under.
type Place = (VmId, u64, Part);

/// The server's side of files; shared by hosts.
#[derive(Default)]
pub struct Store {
    parts: Mutex<BTreeMap<Place, Vec<u8>>>,
    pub backups: Mutex<BTreeMap<(BackupId, DiskId), Vec<u8>>>,
    /// Volumes' contents that came.
    pub sent: Mutex<Vec<(VolumeOrder, Vec<u8>)>>,
    /// What becomes of the next ones that come, the last first.
    pub sending: Mutex<Vec<Fault>>,
}

/// A host's way to the store.
pub struct Shelf {
    pub store: Arc<Store>,
    pub host: Arc<SimHost>,
    /// How long an image takes, in ten steps.
    pub image_takes: Mutex<Duration>,
}

#[async_trait]
impl ImageSource for Shelf {
    async fn get(&self, image: &ImageRef, meter: &Meter) -> Result<LocalImage, Fault> {
        let takes = *self.image_takes.lock().unwrap();
        if !takes.is_zero() {
            meter.expect(image.size_bytes);
            for _ in 0..10 {
                tokio::time::sleep(takes / 10).await;
                meter.moved(image.size_bytes / 10);
            }
        }
        Ok(LocalImage::lasting(PathBuf::from("/simulated/image")))
    }
}

#[async_trait]
impl Datastore for Shelf {
    async fn upload(
        &self,
        vm_id: VmId,
        run_epoch: u64,
        files: &[(Part, PathBuf)],
        _meter: &Meter,
    ) -> Result<Vec<SavedPart>, Fault> {
        let mut saved = Vec::new();
        for (part, path) in files {
            let bytes = self.host.read_file(path).unwrap().to_vec();
            saved.push(SavedPart {
                part: *part,
                size_bytes: bytes.len() as u64,
                sha256: format!("{:x}", Sha256::digest(&bytes)),
            });
            let place = (vm_id, run_epoch, *part);
            self.store.parts.lock().unwrap().insert(place, bytes);
        }
        Ok(saved)
    }

    async fn keep(
        &self,
        backup: BackupId,
        files: &[BackupFile],
        _meter: &Meter,
    ) -> Result<Vec<KeptDisk>, Fault> {
        let mut kept = Vec::new();
        for file in files {
            let bytes = self.host.read_file(&file.path).unwrap().to_vec();
            kept.push(KeptDisk {
                disk: file.disk,
                size_mib: file.size,
                size_bytes: bytes.len() as u64,
                sha256: format!("{:x}", Sha256::digest(&bytes)),
            });
            let place = (backup, file.disk);
            self.store.backups.lock().unwrap().insert(place, bytes);
        }
        Ok(kept)
    }

    async fn download(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
        _meter: &Meter,
    ) -> Result<Fetched, Fault> {
        let mut files = Vec::new();
        for part in &saved.parts {
            let place = (vm_id, saved.run_epoch, part.part);
            let bytes = self.store.parts.lock().unwrap().get(&place).cloned();
            let bytes = bytes.ok_or_else(|| Fault::new(FaultKind::BadImage, "nothing there"))?;
            let path = PathBuf::from(format!("/fetched/{vm_id}/{}", part.part));
            self.host.write_file(path.clone(), bytes.into());
            files.push((part.part, path));
        }
        Ok(Fetched::lent(files))
    }

    async fn send_volume(&self, order: &VolumeOrder, copy: &Path) -> Result<(), Fault> {
        let bytes = self.host.read_file(copy).unwrap().to_vec();
        let faults = self.store.sending.lock().unwrap().pop();
        self.store.sent.lock().unwrap().push((*order, bytes));
        faults.map_or(Ok(()), Err)
    }
}

/// Remembers what was granted; its clock is virtual time.
pub struct FakeLease {
    started: Instant,
    pub grants: Mutex<Vec<(Duration, Option<Duration>)>>,
    pub over: Mutex<bool>,
    pub fenced: Mutex<Option<Fenced>>,
}

impl FakeLease {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            grants: Mutex::default(),
            over: Mutex::default(),
            fenced: Mutex::default(),
        }
    }

    pub fn grants(&self) -> Vec<(Duration, Option<Duration>)> {
        self.grants.lock().unwrap().clone()
    }
}

/// So that a test can keep its own hold of it.
pub struct Held(pub Arc<FakeLease>);

#[async_trait]
impl Lease for Held {
    fn now(&self) -> BootTime {
        BootTime::from_ms(0).plus(self.0.started.elapsed())
    }

    fn grant(&self, from: BootTime, lease: Option<Duration>) {
        let from = Duration::from_millis(from.as_ms());
        self.0.grants.lock().unwrap().push((from, lease));
    }

    fn is_over(&self) -> bool {
        *self.0.over.lock().unwrap()
    }

    fn fenced(&self) -> Option<Fenced> {
        self.0.fenced.lock().unwrap().clone()
    }

    fn told(&self, fenced: &Fenced) {
        assert_eq!(self.0.fenced.lock().unwrap().take().as_ref(), Some(fenced));
    }

    async fn disarm(&self) {}
}
