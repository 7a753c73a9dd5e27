//! The seam between an agent and a hypervisor.
//!
//! A driver runs Incarnations on one host and nothing else: it knows no
//! database, no tenant and no scheduler. Every call is idempotent, so that an
//! operation's step can be repeated after a crash. Names of users never get
//! here; ids and numbers do, and texts that only ever become file content.

mod backup;
#[cfg(feature = "conformance")]
pub mod conformance;
mod fault;
mod migration;
pub mod qcow2;
mod serial;
mod snapshot;
mod spec;
pub mod text;
mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use vimana_model::backup::DiskId;
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{BackupId, SnapshotId, VmId, VolumeId};

pub use backup::{BackupFile, BackupFiles};
pub use fault::{Fault, FaultKind};
pub use migration::{
    Arrival, CopyWatcher, DiskPlan, Endpoint, Sending, SnapshotPlan, VolumePlan, unwatched,
};
pub use serial::{SERIAL_RECENT_BYTES, SerialHub};
pub use snapshot::{Keep, ObservedSnapshot};
pub use spec::{Capabilities, ImageRef, IncarnationSpec, Observed, Power, Seed};
pub use vimana_model::saved::{Part, SavedMachine, SavedPart};
pub use volume::{ObservedVolume, VolumeSource, VolumeSpec};

/// A serial line: bytes both ways, until either side hangs up.
pub trait SerialStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> SerialStream for T {}

/// How something the guest was asked for came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest did it.
    ByGuest,
    /// It did not within the grace time, and was made to.
    Forced,
}

/// Runs machines on one host.
///
/// `epoch` is the `run_epoch` of the Incarnation meant. A call for an epoch
/// lower than the highest the driver has seen for that VM is refused with
/// [`FaultKind::Superseded`] and has no effect.
#[async_trait]
pub trait HostDriver: Send + Sync + 'static {
    /// What this host can do; constant for the life of the driver.
    fn capabilities(&self) -> &Capabilities;

    /// Every change of power state of every Incarnation on this host, from
    /// the moment of the call. A lagging receiver must ask [`Self::inventory`].
    fn subscribe(&self) -> broadcast::Receiver<Observed>;

    /// All Incarnations this host holds, running or not. On the first call
    /// after a start, processes that survived have been re-adopted.
    async fn inventory(&self) -> Result<Vec<Observed>, Fault>;

    /// Makes the disk (an overlay over `image`, a read-only local file) in its
    /// datastore, where it takes the place of one of the same machine, and the seed. Repeating it for the same epoch changes nothing. A failed
    /// call leaves no file behind.
    async fn prepare(&self, spec: &IncarnationSpec, image: &Path) -> Result<(), Fault>;

    /// The image files that machines of this host are made from, and that stay
    /// for as long as those do: [`Self::prepare`] and [`Self::import`] have
    /// returned for them. An error where it is not certain that these are all.
    async fn images_in_use(&self) -> Result<Vec<PathBuf>, Fault>;

    /// Starts the machine with that many vCPUs and that much memory; returns
    /// when guest code runs. A higher `epoch` than the one prepared, on a
    /// machine that does not run, is a new run from the same disk, whose size
    /// then grows to `resources` and never shrinks. Repeating it while the
    /// machine runs changes nothing. Refused where a memory is saved: only
    /// [`Self::load`] uses that. A failed call leaves no process, and the disk.
    async fn boot(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault>;

    /// Asks the guest to switch itself off; after `grace` it is switched off.
    /// Returns when the machine no longer exists; fine if it already did not.
    async fn shutdown(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault>;

    /// Stops the machine at once; fine if it does not run or never did. The
    /// disk stays, and a saved memory, too.
    async fn kill(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Pauses the machine and saves its memory to the host's disk; returns
    /// when no process is left and everything is on the disk
    /// ([`Power::Saved`]). Repeating it changes nothing. After a failed call
    /// the machine runs on and nothing of the memory is left on the disk.
    async fn save(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Lets the machine run on from where [`Self::save`] paused it, under
    /// `epoch`, which is higher than the run's that was saved; returns when
    /// guest code runs. Also takes back a save that has not ended, or never
    /// began: the machine runs on, from now on under `epoch`. The saved memory
    /// is removed once the machine runs; after a failed call it is still there,
    /// and no process, unless the guest may already have run and written.
    /// Repeating it while the machine runs changes nothing.
    async fn load(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// The files that hold a machine that does not run, as far as `disks` says that
    /// they are copied: its disk, its memory where that is saved, and its volumes. They
    /// stay as they are until [`Self::boot`],
    /// [`Self::load`] or [`Self::clean`]. [`FaultKind::Hypervisor`] where it runs,
    /// or never did; [`FaultKind::Conflict`] where it has volumes or snapshots that
    /// `disks` does not name.
    async fn export(
        &self,
        vm: VmId,
        epoch: u64,
        disks: &DiskPlan,
    ) -> Result<Vec<(Part, PathBuf)>, Fault>;

    /// Takes over the files of a machine of another host. With a memory among
    /// them it is [`Power::Saved`] here afterwards, and without one
    /// [`Power::Off`], under the specification's epoch, which is higher than that
    /// of the machine's latest run: [`Self::load`] may use the same. `files` are
    /// moved or copied; what `disks` says that both hosts reach is not among them,
    /// and stays where it is. The snapshots that `disks` names are the machine's here
    /// as well. Repeating it for the same epoch changes nothing. A failed call leaves
    /// nothing behind.
    async fn import(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        files: &[(Part, PathBuf)],
        disks: &DiskPlan,
    ) -> Result<(), Fault>;

    /// Asks the guest to restart; after `grace` it is reset. The process and
    /// the epoch stay.
    async fn reboot(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<GuestEnd, Fault>;

    /// Restarts the guest at once. The process and the epoch stay.
    async fn reset(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Changes vCPUs and memory of the running machine, as far as
    /// [`Capabilities::hot_resize`] says; `Unsupported` otherwise. Its disk
    /// grows in any case. Repeating it changes nothing.
    async fn resize(&self, vm: VmId, epoch: u64, resources: &Resources) -> Result<(), Fault>;

    /// Makes a volume of that size, which belongs to no machine yet. It reads
    /// zeros wherever `from` says nothing: never bytes of an earlier volume.
    /// Repeating it changes nothing. A failed call leaves nothing behind.
    async fn create_volume(
        &self,
        volume: VolumeId,
        size: MiB,
        from: &VolumeSource,
        datastore: &DatastoreName,
    ) -> Result<(), Fault>;

    /// Removes a volume and its content. Fine if there is none;
    /// [`FaultKind::Conflict`] where it is attached.
    async fn remove_volume(&self, volume: VolumeId) -> Result<(), Fault>;

    /// Makes a volume larger, whether it is attached, and its machine runs, or
    /// not. It never shrinks. Repeating it changes nothing;
    /// [`FaultKind::Conflict`] where its machine's memory is saved.
    async fn grow_volume(&self, volume: VolumeId, size: MiB) -> Result<(), Fault>;

    /// Copies what is on a volume at one instant into a file of its own on this
    /// host: qcow2, with nothing behind it, and no larger than it has to be.
    /// The volume's machine goes on meanwhile, and so does its guest's writing.
    /// Whatever else is asked of either comes first and ends the copying
    /// ([`FaultKind::Cancelled`]). An earlier copy of the volume makes way.
    /// [`FaultKind::NoSuchVolume`] where there is none. A failed call leaves
    /// nothing behind, and a driver that starts removes all copies.
    async fn copy_volume(&self, volume: VolumeId) -> Result<PathBuf, Fault>;

    /// Removes the copy of a volume; fine if there is none.
    async fn remove_copy(&self, volume: VolumeId) -> Result<(), Fault>;

    /// All volumes of this host, by id.
    async fn volumes(&self) -> Result<Vec<ObservedVolume>, Fault>;

    /// Gives the machine the volume, at once where it runs and otherwise from
    /// its next start on. Says where on its bus the guest finds it, for as long as
    /// it has it. Repeating it changes nothing.
    /// [`FaultKind::Conflict`] where another machine has the volume, or this
    /// one's memory is saved. After a failed call it is not attached.
    async fn attach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<u8, Fault>;

    /// Brings what is on a disk of the machine, its own one or a volume, to another
    /// datastore of this host: the machine runs on meanwhile, and so does its guest's
    /// writing. Says what it took; nothing where it is there already. A failed call,
    /// and one that was overtaken, leaves it in one of the two, with all that was ever
    /// written to it; a later call brings it to either. [`FaultKind::Conflict`] where
    /// the machine does not have the volume, its memory is saved, or one of its
    /// snapshots holds the disk; [`FaultKind::Unsupported`] where the host has no such
    /// datastore.
    async fn move_disk(
        &self,
        vm: VmId,
        epoch: u64,
        disk: DiskId,
        to: &DatastoreName,
        watcher: CopyWatcher,
    ) -> Result<Sent, Fault>;

    /// Takes the volume from the machine. Fine if it has none of that name.
    /// [`FaultKind::Conflict`] where another machine has the volume, or this
    /// one's memory is saved; [`FaultKind::Hypervisor`] where a running
    /// machine does not let go of it in time: it stays attached, then.
    async fn detach(&self, vm: VmId, epoch: u64, volume: VolumeId) -> Result<(), Fault>;

    /// Keeps what [`Keep`] says of the machine as it is at one instant, whether
    /// it runs or not. Volumes in a snapshot cannot be detached. Repeating it
    /// changes nothing. [`FaultKind::Conflict`] where the machine's memory is
    /// saved, [`FaultKind::NoSuchVolume`] where the machine does not have the
    /// volume. A failed call leaves no snapshot, and the machine running.
    async fn snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
        keep: Keep,
    ) -> Result<(), Fault>;

    /// Puts the disks of the snapshot back; volumes that were attached later
    /// stay as they are. A machine that runs goes on from the snapshot's
    /// memory, in the same process and under the same epoch. One that does not
    /// run stays so, and starts from its disks.
    ///
    /// [`FaultKind::Conflict`] where the machine runs and the snapshot has no
    /// memory (stop it first), or its memory does not fit because vCPUs,
    /// memory or volumes have changed since, and where the machine's memory is
    /// saved. [`FaultKind::NoSuchSnapshot`] where there is none. Repeating it
    /// reverts once more; after a failed call nothing but that starts the
    /// machine.
    async fn revert(&self, vm: VmId, epoch: u64, snapshot: SnapshotId) -> Result<(), Fault>;

    /// Removes a snapshot; fine if there is none. What the machine has now
    /// stays as it is, running or not.
    async fn remove_snapshot(
        &self,
        vm: VmId,
        epoch: u64,
        snapshot: SnapshotId,
    ) -> Result<(), Fault>;

    /// Copies the machine's disks, the root disk and every attached volume, as
    /// they are at one instant, to files of the host, whether it runs, and runs
    /// on, or not. From that instant on the driver marks what changes. With
    /// `since`, the files hold only what has changed since that backup, unless
    /// that is not known of every disk: then all of them, and the answer says so.
    ///
    /// Repeating it gives the same files. One machine has the files of one
    /// backup at a time: another backup takes the place of one that was not
    /// ended. [`FaultKind::Conflict`] where the machine's memory is saved. A
    /// failed call leaves no files, and the marks of `since`.
    async fn back_up(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        since: Option<BackupId>,
    ) -> Result<BackupFiles, Fault>;

    /// The backup's files are no longer needed here. Where it is `kept`
    /// elsewhere, the next one may hold the changes since it; otherwise it
    /// never was. Fine if there are none.
    async fn end_backup(
        &self,
        vm: VmId,
        epoch: u64,
        backup: BackupId,
        kept: bool,
    ) -> Result<(), Fault>;

    /// All snapshots of this host's machines.
    async fn snapshots(&self) -> Result<Vec<ObservedSnapshot>, Fault>;

    /// Makes place for a machine that runs on another host: disks as large as those
    /// of it that are copied, and a process that waits for its memory
    /// ([`Power::Arriving`]). Disks that both hosts reach are opened, and not written;
    /// with them come the snapshots that are named.
    /// [`FaultKind::Unsupported`] where it is to come by post-copy, and this host cannot
    /// have that. The specification's epoch is that of the run
    /// there; no guest code runs here before [`Self::run`]. Repeating it before
    /// anything came changes nothing. A failed call leaves nothing behind;
    /// [`Self::kill`] and [`Self::leave`] remove what a good one made.
    async fn receive(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        arrival: &Arrival,
    ) -> Result<Endpoint, Fault>;

    /// Sends a machine that runs, to where a host waits for it: its disks, which
    /// are kept in step from then on, then its memory. Returns when the guest
    /// stands still and everything has arrived ([`Power::Left`]); here it goes on
    /// by [`Self::call_off`] alone. Where the other host waits for it by post-copy,
    /// all but a part of its memory has arrived then. Repeating it waits for the same, or says once
    /// more what it took. After a failed call the machine runs on here as if
    /// nothing had been. [`FaultKind::Conflict`] where its memory is saved, it has
    /// volumes or snapshots that the plan does not name, or snapshots and a disk that is
    /// copied: they are not.
    async fn send(
        &self,
        vm: VmId,
        epoch: u64,
        sending: &Sending,
        watcher: CopyWatcher,
    ) -> Result<Sent, Fault>;

    /// Takes back a sending that has not ended, or has, or never began: the
    /// machine runs on here. Overtakes it. Fine where the machine has ended.
    async fn call_off(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// The machine that has left has gone over to its new host, under `epoch`, which
    /// is higher than that of its run here: nothing lets it go on here any more, and
    /// what is missing of its memory goes there while it runs. Returns when it may
    /// be let run there; the process stays for as long as pages are missing. Says
    /// what sending took, the rest included. Repeating it changes nothing, and
    /// neither does it where all had arrived before.
    async fn switch(&self, vm: VmId, epoch: u64) -> Result<Sent, Fault>;

    /// Waits until all of the memory of a machine is here that runs, and that was
    /// received by post-copy; fine if it is already, or the guest has switched itself
    /// off. After an error the machine has ended ([`Power::Crashed`]): it stands still
    /// wherever it needs what is missing.
    async fn complete(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Lets the machine run that was received here and has arrived, or all but a
    /// part of its memory has, under `epoch`, which is higher than that of the run on its old host; returns when
    /// guest code runs. Repeating it while the machine runs changes nothing.
    async fn run(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Removes what this host alone has of a machine that is another host's now, or
    /// still, after it is gone here: all files but those of disks that both reach.
    /// Volumes that `disks` has copied go; those it does not name are detached and
    /// stay. Fine if there is nothing.
    async fn leave(&self, vm: VmId, epoch: u64, disks: &DiskPlan) -> Result<(), Fault>;

    /// Removes every file of the VM from this host, after the machine is
    /// gone, and its snapshots; its volumes are detached and stay. Fine if there is nothing. Afterwards [`Self::inventory`] no
    /// longer names it.
    async fn clean(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Attaches a viewer to the serial line. It first receives the recent
    /// output (at most 64 KiB), then what comes; several viewers see the same
    /// and may all type.
    async fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault>;
}
