//! Snapshots: inside the disks, where nothing can lose them.
//!
//! They are qcow2's own: one file per disk whatever was snapshotted, no chain
//! of files that has to be merged, and a snapshot goes with its disk. QEMU takes
//! them of all disks in one transaction, or in a job together with the memory;
//! `qemu-img` does it where no QEMU runs. `snapshots.json` names them: before
//! the effect as not whole, which does not count, and afterwards as whole. Where the
//! machine goes to another host, they go with the files of its disks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::json;
use vimana_driver::{DiskPlan, Fault, FaultKind, Keep, ObservedSnapshot, SnapshotPlan};
use vimana_model::unit::Resources;
use vimana_model::{SnapshotId, VmId, VolumeId};

use crate::argv::{DISK, ROOT_DEVICE, VOLUME};
use crate::backup;
use crate::guest;
use crate::host::{Host, Turn, blocking, lock, not_running, overtaken};
use crate::job::Job;
use crate::limits::SNAPSHOT_TIMEOUT;
use crate::machine::Machine;
use crate::prepare::{enough_room, enough_room_in};
use crate::qmp::{Passage, Qmp, QmpError};
use crate::record::{self, Record};
use crate::volume::img::{self, Deed};
use crate::volume::{no_such_volume, saved};

/// The name of our job inside QEMU: one at a time.
const JOB: &str = "snapshot";

/// The snapshots of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    pub taken: Vec<Taken>,
    /// Some disks may have gone back and others not.
    pub reverting: Option<SnapshotId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    pub snapshot_id: SnapshotId,
    pub memory: bool,
    /// Being made or removed where it is not.
    pub whole: bool,
    pub resources: Resources,
    /// Whether the root disk is in it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub root: bool,
    pub volumes: Vec<VolumeId>,
}

/// Of those that older agents took.
const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_yes(root: &bool) -> bool {
    *root
}

impl SnapshotRecord {
    /// Those that come with a machine from another host.
    pub fn coming(plans: &[SnapshotPlan]) -> Self {
        let taken = |plan: &SnapshotPlan| {
            // In the order of those that a machine has.
            let mut volumes = plan.volumes.clone();
            volumes.sort();
            Taken {
                snapshot_id: plan.snapshot_id,
                memory: plan.memory,
                whole: plan.whole,
                resources: plan.resources,
                root: plan.root,
                volumes,
            }
        };
        Self {
            taken: plans.iter().map(taken).collect(),
            reverting: None,
        }
    }

    /// Whether they go where the machine goes, in files that hold them.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`].
    pub fn may_leave(&self, disks: &DiskPlan) -> Result<(), Fault> {
        if self.reverting.is_some() {
            let message = "some of the machine's disks may have gone back to a snapshot, and \
                           others not; go back to it again first";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
        let whole = self.taken.iter().filter(|taken| taken.whole);
        let whole: Vec<_> = whole.map(|taken| taken.snapshot_id).collect();
        let mut believed = disks.snapshots.iter().filter(|plan| plan.whole);
        if !disks.takes_snapshots(self.taken.iter().map(|taken| taken.snapshot_id))
            || believed.any(|plan| !whole.contains(&plan.snapshot_id))
        {
            return Err(DiskPlan::other_snapshots());
        }
        Ok(())
    }
}

impl Record for SnapshotRecord {
    const FILE: &'static str = "snapshots.json";
}

/// The snapshots of a host.
#[derive(Default)]
pub struct Snapshots {
    records: Mutex<BTreeMap<VmId, SnapshotRecord>>,
}

impl Snapshots {
    pub fn of(&self, vm: VmId) -> SnapshotRecord {
        lock(&self.records).get(&vm).cloned().unwrap_or_default()
    }

    pub fn put(&self, vm: VmId, record: SnapshotRecord) {
        lock(&self.records).insert(vm, record);
    }

    pub fn observed(&self) -> Vec<ObservedSnapshot> {
        let records = lock(&self.records);
        let all = records.iter().flat_map(|(vm_id, record)| {
            let whole = record.taken.iter().filter(|taken| taken.whole);
            whole.map(|taken| ObservedSnapshot {
                vm_id: *vm_id,
                snapshot_id: taken.snapshot_id,
                memory: taken.memory,
            })
        });
        all.collect()
    }
}

/// See [`vimana_driver::HostDriver::snapshot`].
pub async fn take(turn: Turn, id: SnapshotId, keep: Keep) -> Result<(), Fault> {
    let held = at_hand(&turn)?;
    let mut record = turn.host.snapshots.of(turn.vm.id);
    let before = record.taken.iter().find(|taken| taken.snapshot_id == id);
    if before.is_some_and(|taken| taken.whole) {
        return Ok(());
    }
    let memory = keep == Keep::Memory;
    if memory && held.machine.is_none() {
        return Err(not_running());
    }
    let plugs = turn.host.volumes.of(turn.vm.id).into_iter();
    let mut volumes: Vec<VolumeId> = plugs.map(|plug| plug.volume).collect();
    if let Keep::Volume(only) = keep {
        volumes.retain(|volume| *volume == only);
        if volumes.is_empty() {
            return Err(no_such_volume());
        }
    }
    turn.still_wanted()?;
    let host = Arc::clone(&turn.host);
    let dirs: Vec<PathBuf> = volumes.iter().map(|id| host.volumes.dir(*id)).collect();
    let root = !matches!(keep, Keep::Volume(_));
    let machine = Arc::clone(&held.record);
    blocking(move || {
        if root {
            enough_room(&host, &machine.spec)?;
        }
        dirs.iter().try_for_each(|dir| enough_room_in(&host, dir))
    })
    .await?;
    if let Some(before) = before.cloned() {
        discard(&turn, held.machine.as_deref(), &before).await?;
    }
    record.taken.retain(|taken| taken.snapshot_id != id);
    let mut taken = Taken {
        snapshot_id: id,
        memory,
        whole: false,
        resources: held.record.spec.resources,
        root,
        volumes,
    };
    let others = record.clone();
    record.taken.push(taken.clone());
    write(&turn, record).await?;
    let made = make(&turn, held.machine.as_ref(), &taken).await;
    if let Err(fault) = made {
        // Otherwise it is found, not whole, by whoever repeats the call.
        if discard(&turn, held.machine.as_deref(), &taken)
            .await
            .is_ok()
        {
            write(&turn, others).await?;
        }
        return Err(fault);
    }
    taken.whole = true;
    let mut record = others;
    record.taken.push(taken);
    write(&turn, record).await
}

async fn make(turn: &Turn, machine: Option<&Arc<Machine>>, taken: &Taken) -> Result<(), Fault> {
    let tag = taken.snapshot_id.to_string();
    let Some(machine) = machine else {
        for (dir, name) in files(&turn.host, turn.vm.id, taken) {
            img::snapshot(&dir, name, Deed::Create, &tag).await?;
        }
        return Ok(());
    };
    if taken.memory {
        guest::goes_on(machine, &turn.dir()).await?;
    }
    let _motion = machine.motion().await;
    let qmp = machine.qmp();
    let making = async {
        let nodes = nodes(turn, &qmp, taken).await?;
        if taken.memory {
            qmp.prepare_migration(Passage::File).await?;
            job(&qmp, "snapshot-save", &tag, &nodes).await
        } else {
            let taken = qmp.snapshot_disks(&nodes, &tag);
            guest::still(machine, &turn.dir(), taken).await.0
        }
    };
    let made = turn.cancelled.run_until_cancelled(making).await;
    made.ok_or_else(overtaken)?.map_err(|error| failed(&error))
}

/// See [`vimana_driver::HostDriver::revert`].
pub async fn revert(turn: Turn, id: SnapshotId) -> Result<(), Fault> {
    let held = at_hand(&turn)?;
    let mut record = turn.host.snapshots.of(turn.vm.id);
    let taken = record.taken.iter().find(|t| t.snapshot_id == id && t.whole);
    let taken = taken.cloned().ok_or_else(|| {
        let message = "the machine has no such snapshot";
        Fault::new(FaultKind::NoSuchSnapshot, message)
    })?;
    if held.machine.is_some() {
        let (then, has) = (taken.resources, held.record.spec.resources);
        let now = turn.host.volumes.of(turn.vm.id);
        let fits = (then.vcpus, then.memory_mib) == (has.vcpus, has.memory_mib)
            && now
                .iter()
                .map(|plug| plug.volume)
                .eq(taken.volumes.iter().copied());
        if !taken.memory || !fits {
            let message = "the snapshot has no memory that fits the machine that runs";
            return Err(Fault::new(FaultKind::Conflict, message));
        }
    }
    turn.still_wanted()?;
    if let Some(machine) = &held.machine {
        // What moves it between hosts, several channels above all, is not for a file.
        let ready = machine.qmp().prepare_migration(Passage::File).await;
        ready.map_err(|error| failed(&error))?;
    }
    // What they say of the disks would be wrong from then on.
    backup::forget_marks(&turn, &held, |_| true).await?;
    record.reverting = Some(id);
    write(&turn, record.clone()).await?;
    let tag = id.to_string();
    match held.machine {
        Some(machine) => {
            let _motion = machine.motion().await;
            let qmp = machine.qmp();
            let nodes = nodes(&turn, &qmp, &taken).await;
            let nodes = nodes.map_err(|error| failed(&error))?;
            let going = job(&qmp, "snapshot-load", &tag, &nodes);
            let gone = turn.cancelled.run_until_cancelled(going).await;
            if let Err(error) = gone.ok_or_else(overtaken)? {
                // What is left of the guest is neither then nor now.
                machine.end_process().await;
                return Err(failed(&error));
            }
        }
        None => {
            for (dir, name) in files(&turn.host, turn.vm.id, &taken) {
                img::snapshot(&dir, name, Deed::Apply, &tag).await?;
            }
        }
    }
    record.reverting = None;
    write(&turn, record).await
}

/// See [`vimana_driver::HostDriver::remove_snapshot`].
pub async fn remove(turn: Turn, id: SnapshotId) -> Result<(), Fault> {
    let mut record = turn.host.snapshots.of(turn.vm.id);
    let Some(taken) = record.taken.iter_mut().find(|t| t.snapshot_id == id) else {
        return Ok(());
    };
    let held = at_hand(&turn)?;
    taken.whole = false;
    let taken = taken.clone();
    write(&turn, record.clone()).await?;
    discard(&turn, held.machine.as_deref(), &taken).await?;
    record.taken.retain(|taken| taken.snapshot_id != id);
    write(&turn, record).await
}

/// Records which snapshots are in the disks that came from another host. Blocks.
pub fn come(dir: &Path, disks: &DiskPlan) -> io::Result<()> {
    if disks.snapshots.is_empty() {
        return Ok(());
    }
    record::write(dir, &SnapshotRecord::coming(&disks.snapshots))
}

/// The machine goes, and its disk: its volumes keep nothing of its snapshots.
pub async fn forget(turn: &Turn) -> Result<(), Fault> {
    let record = turn.host.snapshots.of(turn.vm.id);
    let has = turn.host.volumes.of(turn.vm.id);
    for taken in &record.taken {
        // What has gone to another host meanwhile is not this one's to touch.
        let here = |id: &&VolumeId| has.iter().any(|plug| plug.volume == **id);
        for volume in taken.volumes.iter().filter(here) {
            let dir = turn.host.volumes.dir(*volume);
            delete(&dir, VOLUME, &taken.snapshot_id.to_string()).await?;
        }
    }
    Ok(())
}

/// The machine, whose memory is not saved.
fn at_hand(turn: &Turn) -> Result<crate::host::Held, Fault> {
    let held = turn.disks()?;
    if held.saved.is_some() {
        return Err(saved());
    }
    Ok(held)
}

/// Takes a snapshot out of every disk that has it.
async fn discard(turn: &Turn, machine: Option<&Machine>, taken: &Taken) -> Result<(), Fault> {
    let tag = taken.snapshot_id.to_string();
    if let Some(machine) = machine {
        let qmp = machine.qmp();
        let going = async {
            let nodes = nodes(turn, &qmp, taken).await?;
            job(&qmp, "snapshot-delete", &tag, &nodes).await
        };
        // A kill does not wait for a QEMU that is silent.
        let gone = turn.cancelled.run_until_cancelled(going).await;
        return gone.ok_or_else(overtaken)?.map_err(|error| failed(&error));
    }
    for (dir, name) in files(&turn.host, turn.vm.id, taken) {
        delete(&dir, name, &tag).await?;
    }
    Ok(())
}

async fn delete(dir: &Path, name: &str, tag: &str) -> Result<(), Fault> {
    if img::snapshots(dir, name)
        .await?
        .iter()
        .any(|has| has == tag)
    {
        img::snapshot(dir, name, Deed::Delete, tag).await?;
    }
    Ok(())
}

/// The disks that are in a snapshot, as QEMU calls them, the root disk first.
async fn nodes(turn: &Turn, qmp: &Qmp, taken: &Taken) -> Result<Vec<String>, QmpError> {
    let mut nodes = Vec::new();
    if taken.root {
        nodes.push(qmp.node_of(ROOT_DEVICE).await?);
    }
    let plugs = turn.host.volumes.of(turn.vm.id).into_iter();
    let plugs = plugs.filter(|plug| taken.volumes.contains(&plug.volume));
    nodes.extend(plugs.map(|plug| plug.node_name()));
    Ok(nodes)
}

/// The same, as directories and files.
fn files(host: &Host, vm: VmId, taken: &Taken) -> Vec<(PathBuf, &'static str)> {
    let disk = taken.root.then(|| (host.layout.vm(vm), DISK)).into_iter();
    let volumes = taken.volumes.iter().map(|v| (host.volumes.dir(*v), VOLUME));
    disk.chain(volumes).collect()
}

/// Has QEMU do something to a snapshot.
async fn job(
    qmp: &Qmp,
    command: &'static str,
    tag: &str,
    nodes: &[String],
) -> Result<(), QmpError> {
    let job = Job {
        id: JOB,
        command,
        within: SNAPSHOT_TIMEOUT,
    };
    let mut arguments = json!({"tag": tag, "devices": nodes});
    if command != "snapshot-delete"
        && let Some(fields) = arguments.as_object_mut()
    {
        // The root disk has the memory.
        fields.insert("vmstate".to_owned(), json!(nodes.first()));
    }
    job.run(qmp, arguments).await
}

/// First on the disk, then in memory.
async fn write(turn: &Turn, record: SnapshotRecord) -> Result<(), Fault> {
    let (dir, now) = (turn.dir(), record.clone());
    blocking(move || {
        let written = record::write(&dir, &now);
        written.map_err(|error| Fault::io("recording the snapshot", &error))
    })
    .await?;
    turn.host.snapshots.put(turn.vm.id, record);
    Ok(())
}

fn failed(error: &QmpError) -> Fault {
    Fault::new(FaultKind::Hypervisor, format!("the snapshot: {error}"))
}
