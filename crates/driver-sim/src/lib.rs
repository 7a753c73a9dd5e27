//! A hypervisor that runs nothing: machines are entries in memory.
//!
//! What a host "holds" lives in a [`SimHost`]; a [`SimDriver`] is the agent's
//! view of it. Dropping the driver and making another one on the same host is
//! an agent's restart. Time is tokio's, so that paused time is virtual time;
//! nothing is random and nothing depends on the order of a hash.
//!
//! No file is read or written. The files that [`export`] names are the
//! simulation's own: whatever plays the datastore reads them with
//! [`SimHost::read_file`] and lays down what [`import`] shall find with
//! [`SimHost::write_file`]. Only [`SimHost::keep_files_in`] makes them real.
//!
//! [`export`]: HostDriver::export
//! [`import`]: HostDriver::import

mod backup;
mod files;
mod host;
mod life;
mod migration;
mod mishap;
mod run_log;
mod snapshot;
mod volume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use vimana_driver::{
    Arrival, BackupFiles, Capabilities, CopyWatcher, DiskPlan, Endpoint, Fault, FaultKind,
    GuestEnd, HostDriver, IncarnationSpec, Keep, Observed, ObservedSnapshot, ObservedVolume, Part,
    Power, Sending, SerialStream, VolumeSource,
};
use vimana_model::backup::DiskId;
use vimana_model::host::Accelerator;
use vimana_model::migration::{CopyPhase, CopyProgress, Sent};
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{BackupId, SnapshotId, VmId, VolumeId};

pub use host::{Effects, SimHost};
pub use life::{BOOTS, COUNT};
pub use mishap::{Call, Course, Director, Mishap};
pub use run_log::{Moment, RunEntry, RunLog};
pub use volume::SimDatastore;

use mishap::Rest;

/// The driver of one [`SimHost`].
pub struct SimDriver {
    host: Arc<SimHost>,
    capabilities: Capabilities,
}

impl SimDriver {
    #[must_use]
    pub fn new(host: Arc<SimHost>) -> Self {
        let capabilities = Capabilities {
            hypervisor: format!("simulation {}", env!("CARGO_PKG_VERSION")),
            accelerator: Accelerator::Simulated,
            accelerator_note: "machines are simulated; no guest code runs".to_owned(),
            hot_resize: host.hot_resize(),
            hardware: Some(host.hardware()),
        };
        host.remove_copies();
        Self { host, capabilities }
    }

    #[must_use]
    pub fn host(&self) -> &Arc<SimHost> {
        &self.host
    }

    /// Every call's beginning: the epoch is checked before and after what was
    /// planned for the call, and a later call that overtook it cancels it.
    async fn enter(&self, call: Call, vm: VmId, epoch: u64) -> Result<Rest, Fault> {
        let turn = self.host.arrive(call, vm, epoch)?;
        let rest = self.host.begin(call, Some(vm)).await?;
        self.host.still_wanted(vm, epoch, turn)?;
        Ok(rest)
    }

    /// Waits, for the grace time at most, until the machine no longer runs;
    /// `false` where it still does.
    async fn ended_within(
        &self,
        mut changes: broadcast::Receiver<Observed>,
        vm: VmId,
        grace: Duration,
    ) -> bool {
        let ends = async {
            while self.host.power(vm) == Some(Power::Running) {
                if changes.recv().await == Err(RecvError::Closed) {
                    break;
                }
            }
        };
        tokio::time::timeout(grace, ends).await.is_ok()
    }

    async fn shut_down(&self, vm: VmId, grace: Duration) -> Result<GuestEnd, Fault> {
        let changes = self.host.subscribe();
        if !self.host.ask_guest_off(vm) {
            return Ok(GuestEnd::ByGuest);
        }
        if self.ended_within(changes, vm, grace).await {
            return Err(ended_otherwise());
        }
        self.host.stop(vm);
        Ok(GuestEnd::Forced)
    }

    async fn restart(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault> {
        let changes = self.host.subscribe();
        if !self.host.is_deaf(vm, epoch)? {
            self.host.restart(vm, epoch, true)?;
            return Ok(GuestEnd::ByGuest);
        }
        if self.ended_within(changes, vm, grace).await {
            return Err(ended_otherwise());
        }
        self.host.restart(vm, epoch, true)?;
        Ok(GuestEnd::Forced)
    }
}

fn ended_otherwise() -> Fault {
    let message = "the machine was stopped in another way";
    Fault::new(FaultKind::Cancelled, message)
}

#[async_trait]
impl HostDriver for SimDriver {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn subscribe(&self) -> broadcast::Receiver<Observed> {
        self.host.subscribe()
    }

    async fn inventory(&self) -> Result<Vec<Observed>, Fault> {
        let rest = self.host.begin(Call::Inventory, None).await?;
        rest.end(Call::Inventory, Ok(self.host.observed())).await
    }

    async fn prepare(&self, spec: &IncarnationSpec, image: &Path) -> Result<(), Fault> {
        let (vm, epoch) = (spec.vm_id, spec.run_epoch);
        let rest = self.enter(Call::Prepare, vm, epoch).await?;
        let result = self.host.prepare(spec, image);
        rest.end(Call::Prepare, result).await
    }

    async fn images_in_use(&self) -> Result<Vec<PathBuf>, Fault> {
        let rest = self.host.begin(Call::ImagesInUse, None).await?;
        let images = self.host.images_in_use();
        rest.end(Call::ImagesInUse, Ok(images)).await
    }

    async fn boot(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault> {
        let rest = self.enter(Call::Boot, vm, epoch).await?;
        let result = self.host.boot(vm, epoch, resources);
        rest.end(Call::Boot, result).await
    }

    async fn shutdown(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault> {
        let rest = self.enter(Call::Shutdown, vm, epoch).await?;
        let result = self.shut_down(vm, grace).await;
        rest.end(Call::Shutdown, result).await
    }

    async fn kill(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Kill, vm, epoch).await?;
        self.host.stop(vm);
        rest.end(Call::Kill, Ok(())).await
    }

    async fn save(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Save, vm, epoch).await?;
        let result = self.host.save(vm, epoch);
        rest.end(Call::Save, result).await
    }

    async fn load(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Load, vm, epoch).await?;
        let result = self.host.load(vm, epoch);
        rest.end(Call::Load, result).await
    }

    async fn export(
        &self,
        vm: VmId,
        epoch: u64,
        disks: &DiskPlan,
    ) -> Result<Vec<(Part, PathBuf)>, Fault> {
        let rest = self.enter(Call::Export, vm, epoch).await?;
        let result = self.host.export(vm, disks);
        rest.end(Call::Export, result).await
    }

    async fn import(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        files: &[(Part, PathBuf)],
        disks: &DiskPlan,
    ) -> Result<(), Fault> {
        let (vm, epoch) = (spec.vm_id, spec.run_epoch);
        let rest = self.enter(Call::Import, vm, epoch).await?;
        let result = self.host.import(spec, image, files, disks);
        rest.end(Call::Import, result).await
    }

    async fn reboot(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault> {
        let rest = self.enter(Call::Reboot, vm, epoch).await?;
        let result = self.restart(vm, epoch, grace).await;
        rest.end(Call::Reboot, result).await
    }

    async fn reset(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Reset, vm, epoch).await?;
        let result = self.host.restart(vm, epoch, false);
        rest.end(Call::Reset, result).await
    }

    async fn resize(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault> {
        let rest = self.enter(Call::Resize, vm, epoch).await?;
        let result = self.host.resize(vm, epoch, resources);
        rest.end(Call::Resize, result).await
    }

    async fn create_volume(
        &self,
        volume: VolumeId,
        size: MiB,
        from: &VolumeSource,
        datastore: &DatastoreName,
    ) -> Result<(), Fault> {
        let rest = self.host.begin(Call::CreateVolume, None).await?;
        let result = self.host.create_volume(volume, size, from, datastore);
        rest.end(Call::CreateVolume, result).await
    }

    async fn remove_volume(&self, volume: VolumeId) -> Result<(), Fault> {
        let rest = self.host.begin(Call::RemoveVolume, None).await?;
        let result = self.host.remove_volume(volume);
        rest.end(Call::RemoveVolume, result).await
    }

    async fn grow_volume(&self, volume: VolumeId, size: MiB) -> Result<(), Fault> {
        let rest = self.host.begin(Call::GrowVolume, None).await?;
        let result = self.host.grow_volume(volume, size);
        rest.end(Call::GrowVolume, result).await
    }

    async fn copy_volume(&self, volume: VolumeId) -> Result<PathBuf, Fault> {
        let rest = self.host.begin(Call::CopyVolume, None).await?;
        let result = self.host.copy_volume(volume);
        rest.end(Call::CopyVolume, result).await
    }

    async fn remove_copy(&self, volume: VolumeId) -> Result<(), Fault> {
        let rest = self.host.begin(Call::RemoveCopy, None).await?;
        let result = self.host.remove_copy(volume);
        rest.end(Call::RemoveCopy, result).await
    }

    async fn volumes(&self) -> Result<Vec<ObservedVolume>, Fault> {
        let rest = self.host.begin(Call::Volumes, None).await?;
        rest.end(Call::Volumes, Ok(self.host.volumes())).await
    }

    async fn attach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<u8, Fault> {
        let rest = self.enter(Call::Attach, vm, epoch).await?;
        let result = self.host.attach(vm, epoch, volume);
        rest.end(Call::Attach, result).await
    }

    async fn move_disk(
        &self,
        vm: VmId,
        epoch: u64,
        disk: DiskId,
        to: &DatastoreName,
        _: CopyWatcher,
    ) -> Result<Sent, Fault> {
        let rest = self.enter(Call::MoveDisk, vm, epoch).await?;
        let result = match disk {
            DiskId::Root => self.host.move_root(vm, epoch, to),
            DiskId::Volume(volume) => self.host.move_volume(vm, epoch, volume, to),
        };
        rest.end(Call::MoveDisk, result).await
    }

    async fn detach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<(), Fault> {
        let rest = self.enter(Call::Detach, vm, epoch).await?;
        let result = self.host.detach(vm, epoch, volume);
        rest.end(Call::Detach, result).await
    }

    async fn snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
        keep: Keep,
    ) -> Result<(), Fault> {
        let rest = self.enter(Call::Snapshot, vm, epoch).await?;
        let result = self.host.snapshot(vm, epoch, snapshot, keep);
        rest.end(Call::Snapshot, result).await
    }

    async fn revert(&self, vm: VmId, epoch: u64, snapshot: SnapshotId) -> Result<(), Fault> {
        let rest = self.enter(Call::Revert, vm, epoch).await?;
        let result = self.host.revert(vm, epoch, snapshot);
        rest.end(Call::Revert, result).await
    }

    async fn remove_snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
    ) -> Result<(), Fault> {
        let rest = self.enter(Call::RemoveSnapshot, vm, epoch).await?;
        self.host.remove_snapshot(vm, snapshot);
        rest.end(Call::RemoveSnapshot, Ok(())).await
    }

    async fn back_up(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        since: Option<BackupId>,
    ) -> Result<BackupFiles, Fault> {
        let rest = self.enter(Call::BackUp, vm, epoch).await?;
        let result = self.host.back_up(vm, epoch, backup, since);
        rest.end(Call::BackUp, result).await
    }

    async fn end_backup(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        kept: bool,
    ) -> Result<(), Fault> {
        let rest = self.enter(Call::EndBackup, vm, epoch).await?;
        self.host.end_backup(vm, backup, kept);
        rest.end(Call::EndBackup, Ok(())).await
    }

    async fn snapshots(&self) -> Result<Vec<ObservedSnapshot>, Fault> {
        let rest = self.host.begin(Call::Snapshots, None).await?;
        rest.end(Call::Snapshots, Ok(self.host.snapshots())).await
    }

    async fn receive(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        arrival: &Arrival,
    ) -> Result<Endpoint, Fault> {
        let (vm, epoch) = (spec.vm_id, spec.run_epoch);
        let rest = self.enter(Call::Receive, vm, epoch).await?;
        let endpoint = self.host.receive(spec, image, &arrival.disks);
        let result = endpoint.map(|endpoint| Endpoint {
            post_copy: arrival.post_copy,
            ..endpoint
        });
        rest.end(Call::Receive, result).await
    }

    async fn send(
        &self,
        vm: VmId,
        epoch: u64,
        sending: &Sending,
        watcher: CopyWatcher,
    ) -> Result<Sent, Fault> {
        let turn = self.host.arrive(Call::Send, vm, epoch)?;
        self.host.may_send(vm, epoch, &sending.disks)?;
        watcher(CopyProgress {
            phase: CopyPhase::Memory,
            remaining_bytes: 1 << 20,
            dirty_bytes_per_s: 0,
            bytes_per_s: 1 << 20,
            rounds: 1,
        });
        let rest = self.host.begin(Call::Send, Some(vm)).await?;
        self.host.still_wanted(vm, epoch, turn)?;
        let result = self.host.send(vm, epoch, sending);
        rest.end(Call::Send, result).await
    }

    async fn call_off(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::CallOff, vm, epoch).await?;
        let result = self.host.call_off(vm, epoch);
        rest.end(Call::CallOff, result).await
    }

    async fn switch(&self, vm: VmId, epoch: u64) -> Result<Sent, Fault> {
        let rest = self.enter(Call::Switch, vm, epoch).await?;
        let result = self.host.switch(vm, epoch);
        rest.end(Call::Switch, result).await
    }

    async fn run(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Run, vm, epoch).await?;
        let result = self.host.run(vm, epoch);
        rest.end(Call::Run, result).await
    }

    async fn complete(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Complete, vm, epoch).await?;
        let result = self.host.complete(vm, epoch);
        rest.end(Call::Complete, result).await
    }

    async fn leave(&self, vm: VmId, epoch: u64, disks: &DiskPlan) -> Result<(), Fault> {
        let rest = self.enter(Call::Clean, vm, epoch).await?;
        self.host.leave_volumes(vm, disks);
        let result = self.host.remove(vm, !disks.shares_root);
        rest.end(Call::Clean, result).await
    }

    async fn clean(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let rest = self.enter(Call::Clean, vm, epoch).await?;
        let result = self.host.remove(vm, true);
        rest.end(Call::Clean, result).await
    }

    async fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault> {
        let rest = self.host.begin(Call::Serial, Some(vm)).await?;
        let result = self.host.serial(vm);
        rest.end(Call::Serial, result).await
    }
}
