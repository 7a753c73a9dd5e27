//! Volumes that move to another datastore of their host, while their machines
//! run or not.
//!
//! The new directory has a record from its beginning, which says where the
//! volume comes from. QEMU, or `qemu-img`, copies what is there; QEMU goes on
//! until both are in step, and has every write of the guest on both from then on.
//! The guest stands still for a moment, which brings both to their disks; then the
//! new one is recorded as the one that counts, and QEMU lets go of the old one:
//! whenever an agent or a QEMU dies, the directory that counts has all that the
//! guest was told is written. The old directory goes last.

use std::fs::File;
use std::sync::Arc;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use vimana_driver::{CopyWatcher, Fault, FaultKind};
use vimana_model::migration::{CopyPhase, Sent};
use vimana_model::name::DatastoreName;
use vimana_model::{VmId, VolumeId};

use super::{
    Coming, VolumeRecord, hypervisor, img, in_no_snapshot, lock, no_such_volume, saved, write,
};
use crate::argv::{Plug, VOLUME};
use crate::host::{Host, Turn, blocking, overtaken};
use crate::job::Job;
use crate::limits::{COPY_TIMEOUT, MOVE_END_TIMEOUT, QMP_TIMEOUT, WATCH_EVERY};
use crate::machine::Machine;
use crate::migration::send::ms;
use crate::migration::watch::Watch;
use crate::prepare::enough_room_in;
use crate::process::Process;
use crate::qcow2;
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Layout};

/// The name of our job inside QEMU: one volume of a machine moves at a time.
const JOB: Job = Job {
    id: "move",
    command: "blockdev-mirror",
    within: COPY_TIMEOUT,
};
/// Its end, once that is asked for: a kill waits for it.
const END: Job = Job {
    within: MOVE_END_TIMEOUT,
    ..JOB
};

/// The QEMU that has the volume.
pub struct Live<'a> {
    pub qmp: Qmp,
    pub process: &'a Process,
}

impl<'a> Live<'a> {
    pub fn of(machine: &'a Machine) -> Self {
        Self {
            qmp: machine.qmp(),
            process: &machine.process,
        }
    }

    /// Whether it has really ended: a connection ends sooner than that.
    async fn is_gone(&self) -> bool {
        timeout(QMP_TIMEOUT, self.process.ended()).await.is_ok()
    }
}

/// See [`vimana_driver::HostDriver::move_volume`].
pub async fn relocate(
    turn: Turn,
    id: VolumeId,
    to: DatastoreName,
    watcher: CopyWatcher,
) -> Result<Sent, Fault> {
    let began = Instant::now();
    let held = turn.disks()?;
    let host = &turn.host;
    let _turn = host.volumes.turn(id).await;
    let live = held.machine.as_deref().map(Live::of);
    let record = settle(host, id, live.as_ref()).await?;
    if record.attached.is_none_or(|has| has.vm_id != turn.vm.id) {
        let message = "the machine does not have the volume";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    if record.datastore == to {
        return Ok(Sent::default());
    }
    let target = host.volumes.datastore(&to)?.clone();
    if held.saved.is_some() {
        return Err(saved());
    }
    in_no_snapshot(&turn, id)?;
    if !between(host, |other| is_of(other, turn.vm.id)).is_empty() {
        let message = "another volume of the machine is between two places";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    turn.still_wanted()?;
    let arriving = VolumeRecord {
        datastore: to.clone(),
        moves: record.moves.wrapping_add(u32::from(live.is_some())),
        comes: Some(Coming {
            from: record.datastore.clone(),
            whole: false,
        }),
        ..record.clone()
    };
    make_place(host, &target, &arriving).await?;
    let copying = async {
        match &live {
            Some(live) => mirror(host, &record, &arriving, &live.qmp, watcher).await,
            None => copy(host, &record, &arriving).await,
        }
    };
    let copied = turn.cancelled.run_until_cancelled(copying).await;
    let transferred_bytes = match copied.unwrap_or_else(|| Err(overtaken())) {
        Ok(bytes) => bytes,
        Err(fault) => {
            drop_half(host, &arriving, live.as_ref()).await?;
            return Err(fault);
        }
    };
    let stood = Instant::now();
    let settled = match held.machine.as_deref() {
        Some(machine) => {
            // Nobody else moves the guest; it goes on when this is given back, if
            // not before.
            let _motion = machine.motion().await;
            let switched = switch(host, &arriving, &Live::of(machine)).await;
            if let Err(error) = machine.qmp().cont().await {
                tracing::warn!(volume = %id, %error, "the machine is continued by its supervisor");
            }
            switched?
        }
        None => {
            count(host, &arriving).await?;
            settle(host, id, None).await?
        }
    };
    if settled.datastore != to {
        let message = "QEMU gave the move up at its very end";
        return Err(Fault::new(FaultKind::Hypervisor, message));
    }
    let paused_ms = live.map_or(0, |_| ms(stood.elapsed()));
    Ok(Sent {
        transferred_bytes,
        total_ms: ms(began.elapsed()),
        downtime_ms: paused_ms,
        paused_ms,
    })
}

/// From the one to the other, while the guest stands still: QEMU brings all that
/// it has of both to their disks when it stops, so that either may be what is
/// found afterwards.
async fn switch(
    host: &Arc<Host>,
    arriving: &VolumeRecord,
    live: &Live<'_>,
) -> Result<VolumeRecord, Fault> {
    let qmp = &live.qmp;
    let counted = async {
        qmp.stop().await.map_err(|error| failed(&error))?;
        let job = qmp.job(JOB.id).await.map_err(|error| failed(&error))?;
        if !job.is_some_and(|job| job.ready && job.error.is_none()) {
            let message = "the volume was not moved: what was written meanwhile did not arrive";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        count(host, arriving).await
    };
    if let Err(fault) = counted.await {
        drop_half(host, arriving, Some(live)).await?;
        return Err(fault);
    }
    settle(host, arriving.volume_id, Some(live)).await
}

/// The one that comes is the one that counts from now on.
async fn count(host: &Arc<Host>, arriving: &VolumeRecord) -> Result<(), Fault> {
    let mut arrived = arriving.clone();
    if let Some(comes) = &mut arrived.comes {
        comes.whole = true;
    }
    write(host, arrived).await
}

/// Ends a move that was interrupted, one way or the other: how the volume is
/// then. The caller has its turn; `live` is its machine's, if that runs.
pub async fn settle(
    host: &Arc<Host>,
    id: VolumeId,
    live: Option<&Live<'_>>,
) -> Result<VolumeRecord, Fault> {
    let mut record = host.volumes.get(id).ok_or_else(no_such_volume)?;
    let Some(comes) = record.comes.clone() else {
        return Ok(record);
    };
    if let Some(live) = live {
        match pivot(host, &record, &live.qmp).await {
            Ok(true) => {}
            Ok(false) => {
                let before = read(host, &comes.from, id).await?;
                let before = before.ok_or_else(no_such_volume)?;
                lock(&host.volumes.records).insert(id, before.clone());
                drop_half(host, &record, Some(live)).await?;
                return Ok(before);
            }
            // What counts is said.
            Err(QmpError::Closed) if live.is_gone().await => {}
            Err(error) => return Err(hypervisor("the volume is between two places", &error)),
        }
    }
    remove(host.volumes.datastore(&comes.from)?, id).await?;
    record.comes = None;
    write(host, record.clone()).await?;
    Ok(record)
}

/// Ends the moves that were interrupted of what a machine that runs has.
pub async fn settle_all(host: &Arc<Host>, vm: VmId, halves: &[VolumeRecord], live: &Live<'_>) {
    settle_those(host, halves, |record| is_of(record, vm), Some(live)).await;
}

/// The same for what no machine that runs has.
pub async fn settle_rest(host: &Arc<Host>, halves: &[VolumeRecord]) {
    let is_free = |record: &VolumeRecord| {
        let vm = record.attached.map(|has| host.vm(has.vm_id));
        vm.is_none_or(|vm| vm.held().is_none_or(|held| held.machine.is_none()))
    };
    settle_those(host, halves, is_free, None).await;
}

async fn settle_those(
    host: &Arc<Host>,
    halves: &[VolumeRecord],
    which: impl Fn(&VolumeRecord) -> bool,
    live: Option<&Live<'_>>,
) {
    for half in halves.iter().filter(|half| which(half)) {
        if let Err(fault) = drop_half(host, half, live).await {
            let id = half.volume_id;
            tracing::error!(volume = %id, %fault, "half of a volume stays");
        }
    }
    for id in between(host, which) {
        if let Err(fault) = settle(host, id, live).await {
            tracing::error!(volume = %id, %fault, "a move that was interrupted is not ended");
        }
    }
}

fn is_of(record: &VolumeRecord, vm: VmId) -> bool {
    record.attached.is_some_and(|has| has.vm_id == vm)
}

fn between(host: &Host, which: impl Fn(&VolumeRecord) -> bool) -> Vec<VolumeId> {
    let records = lock(&host.volumes.records);
    let moving = records.values().filter(|record| record.comes.is_some());
    let moving: Vec<VolumeRecord> = moving.cloned().collect();
    drop(records);
    let moving = moving.into_iter().filter(which);
    moving.map(|record| record.volume_id).collect()
}

/// Makes the place that the volume comes to, empty but for its record.
async fn make_place(
    host: &Arc<Host>,
    target: &Layout,
    arriving: &VolumeRecord,
) -> Result<(), Fault> {
    let (host, target, arriving) = (Arc::clone(host), target.clone(), arriving.clone());
    blocking(move || {
        enough_room_in(&host, target.state())?;
        let id = arriving.volume_id;
        target
            .remove(&id)
            .and_then(|()| target.begin(&id))
            .and_then(|part| {
                record::write(&part.0, &arriving)?;
                target.complete(&part, &id)
            })
            .map_err(unmoved)
    })
    .await
}

/// Has QEMU copy the volume, and keep both in step from then on; how much it was,
/// in bytes.
async fn mirror(
    host: &Arc<Host>,
    record: &VolumeRecord,
    arriving: &VolumeRecord,
    qmp: &Qmp,
    watcher: CopyWatcher,
) -> Result<u64, Fault> {
    let (Some((_, old)), Some((_, new))) = (host.volumes.plug(record), host.volumes.plug(arriving))
    else {
        return Err(no_such_volume());
    };
    let [from, to] = [record, arriving].map(|record| {
        host.volumes
            .place(&record.datastore, record.volume_id)
            .join(VOLUME)
    });
    blocking(move || {
        let bytes = qcow2::overlay_size(&from);
        let bytes = bytes.map_err(|_| Fault::new(FaultKind::Host, "the volume is damaged"))?;
        let file = record::new_file(&to).map_err(unmoved)?;
        qcow2::write_empty(&file, bytes, None).map_err(unmoved)
    })
    .await?;
    let mirrored = async {
        give_up(qmp, &new).await?;
        qmp.blockdev_add(new.node()).await?;
        let arguments = json!({
            "device": old.node_name(), "target": new.node_name(), "sync": "full",
            "copy-mode": "write-blocking", "auto-dismiss": false,
        });
        JOB.begin(qmp, arguments).await?;
        JOB.ready(qmp).await
    };
    tokio::pin!(mirrored);
    let mut watch = Watch::new(watcher);
    loop {
        tokio::select! {
            biased;
            ready = &mut mirrored => {
                ready.map_err(|error| failed(&error))?;
                break;
            }
            () = sleep(WATCH_EVERY) => {
                look_at(qmp, &mut watch).await;
            }
        }
    }
    Ok(look_at(qmp, &mut watch).await)
}

/// Tells how far the copy is; how much is copied, in bytes.
async fn look_at(qmp: &Qmp, watch: &mut Watch) -> u64 {
    let Ok(Some(job)) = qmp.job(JOB.id).await else {
        return 0;
    };
    let left = job.total.saturating_sub(job.done);
    watch.tell(CopyPhase::Disks, left, job.done, (0, 0));
    job.done
}

/// Copies a volume that no QEMU has open; how much it was, in bytes.
async fn copy(
    host: &Arc<Host>,
    record: &VolumeRecord,
    arriving: &VolumeRecord,
) -> Result<u64, Fault> {
    let [from, to] =
        [record, arriving].map(|record| host.volumes.place(&record.datastore, record.volume_id));
    img::copy(&from.join(VOLUME), record.format, &to, COPY_TIMEOUT).await?;
    blocking(move || {
        let copied = File::open(to.join(VOLUME)).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        copied.map_err(unmoved)
    })
    .await
}

/// The new one takes the old one's place inside QEMU: whether it has it.
async fn pivot(host: &Host, record: &VolumeRecord, qmp: &Qmp) -> Result<bool, QmpError> {
    let Some((_, new)) = host.volumes.plug(record) else {
        return Ok(true);
    };
    if qmp.job(JOB.id).await?.is_some() {
        // One that has ended already refuses; what came of it is seen below.
        let _ = qmp.job_complete(JOB.id).await;
        match END.ended(qmp).await {
            Ok(()) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if qmp.node_of(&new.device_name()).await? != new.node_name() {
        return Ok(false);
    }
    let old = Plug {
        moves: new.moves.wrapping_sub(1),
        ..new
    };
    qmp.blockdev_let_go(&old.node_name()).await?;
    Ok(true)
}

/// Nothing comes of the move: half of a volume goes, and whatever QEMU still does
/// for it. The other one is where it was.
async fn drop_half(
    host: &Arc<Host>,
    half: &VolumeRecord,
    live: Option<&Live<'_>>,
) -> Result<(), Fault> {
    if let (Some(live), Some((_, new))) = (live, host.volumes.plug(half)) {
        match give_up(&live.qmp, &new).await {
            Ok(()) | Err(QmpError::Closed) => {}
            // What is left there goes with the agent's next start.
            Err(error) => return Err(failed(&error)),
        }
    }
    remove(host.volumes.datastore(&half.datastore)?, half.volume_id).await
}

/// Ends what QEMU still does for a move, and lets go of its target.
async fn give_up(qmp: &Qmp, new: &Plug) -> Result<(), QmpError> {
    END.cancel(qmp).await?;
    qmp.blockdev_let_go(&new.node_name()).await
}

async fn read(
    host: &Host,
    datastore: &DatastoreName,
    id: VolumeId,
) -> Result<Option<VolumeRecord>, Fault> {
    let dir = host.volumes.place(datastore, id);
    blocking(move || {
        let read = record::read::<VolumeRecord>(&dir);
        read.map_err(|error| Fault::io("reading the volume's record", &error))
    })
    .await
}

async fn remove(layout: &Layout, id: VolumeId) -> Result<(), Fault> {
    let layout = layout.clone();
    blocking(move || {
        let removed = layout.remove(&id);
        removed.map_err(|error| Fault::io("removing what the volume left", &error))
    })
    .await
}

fn unmoved(error: std::io::Error) -> Fault {
    Fault::io("moving the volume", &error)
}

fn failed(error: &QmpError) -> Fault {
    if error.is_full() {
        let message = "moving the volume: the datastore is full";
        return Fault::new(FaultKind::NoSpace, message);
    }
    hypervisor("the volume was not moved", error)
}
