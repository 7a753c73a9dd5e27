//! Runs machines with QEMU: no libvirt, no shell, no root.
//!
//! A VM is a directory below the state directory, named by its id:
//!
//! | file | what |
//! | --- | --- |
//! | `spec.json` | what is to run; its presence makes the directory a VM |
//! | `disk.qcow2` | the writable overlay over the image |
//! | `seed.iso` | the guest's first configuration |
//! | `process.json` | written before QEMU starts, and again with its identity |
//! | `qmp.sock`, `serial.sock` | while QEMU runs |
//! | `qemu.log` | QEMU's own messages |
//! | `ended.json` | how the run ended |
//! | `memory`, `saved.json` | a saved memory, and the record that makes it count |
//! | `memory.part` | one that is being written |
//! | `snapshots.json` | the snapshots, which are inside the disks |
//! | `moving.json` | while the disk moves to another datastore of the host |
//! | `restarting.json` | while the guest is restarted |
//! | `backup/` | the files of a backup, until they are kept elsewhere |
//! | `arriving.json` | while the machine comes from another host |
//! | `leaving.json` | while it goes to another host, and once it has |
//! | `storage.json` | while a process that is not QEMU has the disks |
//!
//! In a further datastore the disk, and a memory or a backup beside it, are in a
//! directory of the VM's name there; `disk.qcow2` is a link to it then.
//!
//! A volume is a directory beside them, named by its id, with `volume.qcow2`
//! and `volume.json`, which says how large it is and which VM has it: a volume
//! cannot belong to two. `<volume_id>.copy` holds a copy of one, on its way out.
//!
//! QEMU outlives the agent; [`QemuDriver::open`] finds it again.

mod adopt;
mod argv;
mod backup;
mod boot;
mod boot_sector;
mod carry;
mod config;
mod guest;
mod host;
mod job;
mod limits;
mod load;
mod machine;
mod migration;
mod offline;
mod prepare;
mod probe;
mod process;
mod qcow2;
mod qmp;
mod record;
mod relocate;
mod resize;
mod restart;
mod save;
mod seed;
mod snapshot;
mod stop;
mod supervisor;
mod volume;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::process::Command;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use vimana_driver::{
    Arrival, BackupFiles, Capabilities, CopyWatcher, DiskPlan, Endpoint, Fault, FaultKind,
    GuestEnd, HostDriver, IncarnationSpec, Keep, Observed, ObservedSnapshot, ObservedVolume, Part,
    Sending, SerialStream, VolumeSource,
};
use vimana_model::backup::DiskId;
use vimana_model::host::Hardware;
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{BackupId, SnapshotId, VmId, VolumeId};

pub use boot_sector::{BOOTS, COUNT, DEAF, OFF, READY, boot_sector};
pub use config::{
    AcceleratorSetting, Credentials, CredentialsSource, GuestLimits, InvalidAccelerator,
    MigrationConfig, ProbeImage, QemuConfig,
};

use host::{Host, Manner, no_such_vm};
use record::Layout;

/// The first QEMU with everything that is used here.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// The driver of one state directory. Dropping it lets go of the machines;
/// they run on.
pub struct QemuDriver {
    host: Arc<Host>,
}

impl QemuDriver {
    /// Finds QEMU, chooses the accelerator (the first time, by a probe of up
    /// to ten seconds) and takes over the machines that survived.
    ///
    /// # Errors
    /// Where QEMU is missing or too old, or the state directory cannot be
    /// used or is in use by another agent.
    pub async fn open(config: QemuConfig) -> Result<Self, Fault> {
        let qemu = process::find_binary(&config.qemu).ok_or_else(|| {
            let name = process::shown(&config.qemu);
            Fault::new(FaultKind::Host, format!("`{name}` is not installed"))
        })?;
        let lock = lock_state(&config.state_dir).await?;
        for (name, dir) in &config.datastores {
            if name.is_local() || !dir.is_absolute() || dir.to_str().is_none() {
                let message = format!("datastore `{name}` cannot be where it is said to be");
                return Err(Fault::new(FaultKind::Host, message));
            }
        }
        let (numbers, version) = qemu_version(&qemu).await?;
        let (accelerator, accelerator_note) = probe::choose(&config, &qemu, &version).await?;
        let layout = Layout::new(config.state_dir.clone());
        let volumes = volume::Volumes::new(layout.clone(), &config);
        let host = Arc::new(Host {
            layout,
            config,
            qemu,
            version: numbers,
            capabilities: Capabilities {
                hypervisor: format!("QEMU {version}"),
                accelerator,
                accelerator_note,
                hot_resize: false,
                hardware: Some(Hardware {
                    machine_type: argv::MACHINE.to_owned(),
                    cpu_model: argv::CPU.to_owned(),
                    live_migration: numbers >= migration::MIGRATING_QEMU,
                }),
            },
            changes: broadcast::Sender::new(limits::CHANGES),
            closing: CancellationToken::new(),
            vms: Mutex::new(BTreeMap::new()),
            volumes,
            snapshots: snapshot::Snapshots::default(),
            next_port: AtomicUsize::new(anywhere()),
            _lock: lock,
        });
        // From here on the host is let go of properly, whatever happens.
        let driver = Self { host };
        adopt::adopt(&driver.host).await?;
        Ok(driver)
    }
}

impl Drop for QemuDriver {
    fn drop(&mut self) {
        self.host.closing.cancel();
    }
}

#[async_trait]
impl HostDriver for QemuDriver {
    fn capabilities(&self) -> &Capabilities {
        &self.host.capabilities
    }

    fn subscribe(&self) -> broadcast::Receiver<Observed> {
        self.host.changes.subscribe()
    }

    async fn inventory(&self) -> Result<Vec<Observed>, Fault> {
        let all = self.host.all();
        Ok(all.iter().filter_map(|vm| vm.observed()).collect())
    }

    async fn prepare(&self, spec: &IncarnationSpec, image: &Path) -> Result<(), Fault> {
        let (id, epoch) = (spec.vm_id, spec.run_epoch);
        let (spec, image) = (spec.clone(), image.to_owned());
        let work = |turn| prepare::prepare(turn, spec, image);
        self.host.in_turn(id, epoch, Manner::Queue, work).await
    }

    async fn images_in_use(&self) -> Result<Vec<PathBuf>, Fault> {
        let host = Arc::clone(&self.host);
        host::blocking(move || prepare::images_in_use(&host)).await
    }

    async fn boot(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault> {
        let resources = *resources;
        let work = move |turn| boot::boot(turn, resources);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn shutdown(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault> {
        let work = move |turn| stop::shutdown(turn, grace);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn kill(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let turn = self.host.in_turn(vm, epoch, Manner::Overtake, stop::kill);
        turn.await
    }

    async fn save(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let turn = self.host.in_turn(vm, epoch, Manner::Queue, save::save);
        turn.await
    }

    async fn load(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let turn = self.host.in_turn(vm, epoch, Manner::TakeBack, load::load);
        turn.await
    }

    async fn export(
        &self,
        vm: VmId,
        epoch: u64,
        disks: &DiskPlan,
    ) -> Result<Vec<(Part, PathBuf)>, Fault> {
        let disks = disks.clone();
        let work = |turn| carry::export(turn, disks);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn import(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        files: &[(Part, PathBuf)],
        disks: &DiskPlan,
    ) -> Result<(), Fault> {
        let (id, epoch) = (spec.vm_id, spec.run_epoch);
        let (spec, image) = (spec.clone(), image.to_owned());
        let (files, disks) = (files.to_owned(), disks.clone());
        let work = |turn| carry::import(turn, spec, image, files, disks);
        self.host.in_turn(id, epoch, Manner::Queue, work).await
    }

    async fn reboot(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault> {
        let work = move |turn| restart::reboot(turn, grace);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn reset(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let turn = self.host.in_turn(vm, epoch, Manner::Queue, restart::reset);
        turn.await
    }

    async fn resize(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault> {
        let resources = *resources;
        let work = move |turn| resize::resize(turn, resources);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn create_volume(
        &self,
        volume: VolumeId,
        size: MiB,
        from: &VolumeSource,
        datastore: &DatastoreName,
    ) -> Result<(), Fault> {
        let (host, from) = (Arc::clone(&self.host), from.clone());
        let made = volume::create(host, volume, size, from, datastore.clone());
        volume::to_its_end(made).await
    }

    async fn remove_volume(&self, volume: VolumeId) -> Result<(), Fault> {
        let host = Arc::clone(&self.host);
        volume::to_its_end(volume::remove(host, volume)).await
    }

    async fn grow_volume(&self, volume: VolumeId, size: MiB) -> Result<(), Fault> {
        let host = Arc::clone(&self.host);
        volume::to_its_end(volume::grow(host, volume, size)).await
    }

    async fn copy_volume(&self, volume: VolumeId) -> Result<PathBuf, Fault> {
        let host = Arc::clone(&self.host);
        volume::to_its_end(volume::copy::copy(host, volume)).await
    }

    async fn remove_copy(&self, volume: VolumeId) -> Result<(), Fault> {
        let host = Arc::clone(&self.host);
        volume::to_its_end(volume::copy::remove(host, volume)).await
    }

    async fn volumes(&self) -> Result<Vec<ObservedVolume>, Fault> {
        self.host.volumes.observed().await
    }

    async fn attach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<u8, Fault> {
        let work = move |turn| volume::attach(turn, volume);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn move_disk(
        &self,
        vm: VmId,
        epoch: u64,
        disk: DiskId,
        to: &DatastoreName,
        watcher: CopyWatcher,
    ) -> Result<Sent, Fault> {
        let to = to.clone();
        let work = move |turn| relocate::relocate(turn, disk, to, watcher);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn detach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<(), Fault> {
        let work = move |turn| volume::detach(turn, volume);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
        keep: Keep,
    ) -> Result<(), Fault> {
        let work = move |turn| snapshot::take(turn, snapshot, keep);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn revert(&self, vm: VmId, epoch: u64, snapshot: SnapshotId) -> Result<(), Fault> {
        let work = move |turn| snapshot::revert(turn, snapshot);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn remove_snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
    ) -> Result<(), Fault> {
        let work = move |turn| snapshot::remove(turn, snapshot);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn back_up(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        since: Option<BackupId>,
    ) -> Result<BackupFiles, Fault> {
        let work = move |turn| backup::back_up(turn, backup, since);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn end_backup(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        kept: bool,
    ) -> Result<(), Fault> {
        let work = move |turn| backup::end(turn, backup, kept);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn snapshots(&self) -> Result<Vec<ObservedSnapshot>, Fault> {
        Ok(self.host.snapshots.observed())
    }

    async fn receive(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        arrival: &Arrival,
    ) -> Result<Endpoint, Fault> {
        let (id, epoch) = (spec.vm_id, spec.run_epoch);
        let (spec, image, arrival) = (spec.clone(), image.to_owned(), arrival.clone());
        let work = move |turn| migration::receive::receive(turn, spec, image, arrival);
        self.host.in_turn(id, epoch, Manner::Queue, work).await
    }

    async fn send(
        &self,
        vm: VmId,
        epoch: u64,
        sending: &Sending,
        watcher: CopyWatcher,
    ) -> Result<Sent, Fault> {
        let sending = sending.clone();
        let work = move |turn| migration::send::send(turn, sending, watcher);
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn call_off(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let work = migration::send::call_off;
        let turn = self.host.in_turn(vm, epoch, Manner::Overtake, work);
        turn.await
    }

    async fn switch(&self, vm: VmId, epoch: u64) -> Result<Sent, Fault> {
        let work = migration::post_copy::switch;
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn run(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let work = migration::receive::run;
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn complete(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let work = migration::post_copy::complete;
        self.host.in_turn(vm, epoch, Manner::Queue, work).await
    }

    async fn leave(&self, vm: VmId, epoch: u64, disks: &DiskPlan) -> Result<(), Fault> {
        let disks = disks.clone();
        let work = move |turn| stop::leave(turn, disks);
        let turn = self.host.in_turn(vm, epoch, Manner::Overtake, work);
        turn.await
    }

    async fn clean(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let turn = self.host.in_turn(vm, epoch, Manner::Overtake, stop::clean);
        turn.await
    }

    async fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault> {
        let held = self.host.known(vm).and_then(|vm| vm.held());
        let held = held.ok_or_else(no_such_vm)?;
        let serial = held.serial.ok_or_else(|| {
            let message = "the machine has no serial output: it does not run";
            Fault::new(FaultKind::Hypervisor, message)
        })?;
        Ok(serial.attach())
    }
}

/// One agent at a time uses a state directory; a predecessor that is just
/// ending is waited for.
async fn lock_state(state: &Path) -> Result<File, Fault> {
    let unusable = |error| Fault::io("using the state directory", &error);
    record::make_dir(state).map_err(unusable)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(state.join("lock"))
        .map_err(unusable)?;
    let deadline = Instant::now() + limits::LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                sleep(Duration::from_millis(5)).await;
            }
            Err(TryLockError::WouldBlock) => {
                let message = "another agent uses the state directory";
                return Err(Fault::new(FaultKind::Host, message));
            }
        }
    }
}

/// A number that another driver on this machine hardly begins with, too.
fn anywhere() -> usize {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().subsec_micros();
    usize::try_from(now).unwrap_or_default()
}

/// "10.0.2".
async fn qemu_version(qemu: &Path) -> Result<((u32, u32), String), Fault> {
    let asked = Command::new(qemu)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let said = timeout(limits::VERSION_TIMEOUT, asked).await;
    let said = said.ok().and_then(Result::ok).unwrap_or_else(|| {
        let (status, stdout, stderr) = Default::default();
        std::process::Output {
            status,
            stdout,
            stderr,
        }
    });
    let said = String::from_utf8_lossy(&said.stdout);
    let version = version_in(&said).filter(|(numbers, _)| *numbers >= OLDEST_QEMU);
    let (numbers, version) = version.ok_or_else(|| {
        let (major, minor) = OLDEST_QEMU;
        let message = format!("QEMU {major}.{minor} or later is needed");
        Fault::new(FaultKind::Host, message)
    })?;
    Ok((numbers, version.to_owned()))
}

/// From "QEMU emulator version 10.0.2 (…)".
fn version_in(text: &str) -> Option<((u32, u32), &str)> {
    let (_, rest) = text.split_once("version ")?;
    let version = rest.split_ascii_whitespace().next()?;
    let mut numbers = version.split('.').map_while(|n| n.parse().ok());
    Some(((numbers.next()?, numbers.next()?), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_qemu_says() {
        let said = "QEMU emulator version 10.0.2 (Debian 1:10.0.2)\nCopyright\n";
        assert_eq!(version_in(said), Some(((10, 0), "10.0.2")));
        assert_eq!(version_in("something else"), None);
    }
}
