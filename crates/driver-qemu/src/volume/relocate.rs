//! Volumes that move to another datastore of their host, while their machines
//! run or not.
//!
//! The new directory has a record from its beginning, which says where the
//! volume comes from. QEMU, or `qemu-img`, copies what is there; QEMU goes on
//! until both are in step, and from then on has every write of the guest on both
//! before the guest hears of it. Only then is the new one recorded as the one that
//! counts, and only after that does QEMU let go of the old one: whenever an agent
//! or a QEMU dies, the directory that counts has all that the guest was told is
//! written. The old directory goes last.

use std::fs::File;
use std::sync::Arc;

use serde_json::json;
use vimana_driver::{Fault, FaultKind};
use vimana_model::name::DatastoreName;
use vimana_model::{VmId, VolumeId};

use super::{
    Coming, VolumeRecord, hypervisor, img, in_no_snapshot, lock, no_such_volume, saved, write,
};
use crate::argv::{Plug, VOLUME};
use crate::host::{Host, Turn, blocking, overtaken};
use crate::job::Job;
use crate::limits::COPY_TIMEOUT;
use crate::prepare::enough_room_in;
use crate::qcow2;
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Layout};

/// The name of our job inside QEMU: one volume of a machine moves at a time.
const JOB: Job = Job {
    id: "move",
    command: "blockdev-mirror",
    within: COPY_TIMEOUT,
};

/// See [`vimana_driver::HostDriver::move_volume`].
pub async fn relocate(turn: Turn, id: VolumeId, to: DatastoreName) -> Result<(), Fault> {
    let held = turn.disks()?;
    let host = &turn.host;
    let _turn = host.volumes.turn(id).await;
    let qmp = held.machine.as_ref().map(|machine| machine.qmp());
    let record = settle(host, id, qmp.as_ref()).await?;
    if record.attached.is_none_or(|has| has.vm_id != turn.vm.id) {
        let message = "the machine does not have the volume";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    if record.datastore == to {
        return Ok(());
    }
    let target = host.volumes.datastore(&to)?.clone();
    if held.saved.is_some() {
        return Err(saved());
    }
    in_no_snapshot(&turn, id)?;
    turn.still_wanted()?;
    let mut arriving = VolumeRecord {
        datastore: to.clone(),
        moves: record.moves.wrapping_add(u32::from(qmp.is_some())),
        comes: Some(Coming {
            from: record.datastore.clone(),
            whole: false,
        }),
        ..record.clone()
    };
    make_place(host, &target, &arriving).await?;
    let copying = async {
        match &qmp {
            Some(qmp) => mirror(host, &record, &arriving, qmp).await,
            None => copy(host, &record, &arriving).await,
        }
    };
    let copied = turn.cancelled.run_until_cancelled(copying).await;
    if let Err(fault) = copied.unwrap_or_else(|| Err(overtaken())) {
        take_back(host, &arriving, qmp.as_ref()).await?;
        return Err(fault);
    }
    if let Some(comes) = &mut arriving.comes {
        comes.whole = true;
    }
    write(host, arriving).await?;
    let settled = settle(host, id, qmp.as_ref()).await?;
    if settled.datastore != to {
        let message = "QEMU gave the move up at its very end";
        return Err(Fault::new(FaultKind::Hypervisor, message));
    }
    Ok(())
}

/// Ends a move that was interrupted, one way or the other: how the volume is
/// then. The caller has its turn; `qmp` is its machine's, if that runs.
pub async fn settle(
    host: &Arc<Host>,
    id: VolumeId,
    qmp: Option<&Qmp>,
) -> Result<VolumeRecord, Fault> {
    let mut record = host.volumes.get(id).ok_or_else(no_such_volume)?;
    let Some(comes) = record.comes.clone() else {
        return Ok(record);
    };
    if !comes.whole {
        take_back(host, &record, qmp).await?;
        return host.volumes.get(id).ok_or_else(no_such_volume);
    }
    if let Some(qmp) = qmp {
        match pivot(host, &record, qmp).await {
            Ok(true) => {}
            Ok(false) => {
                take_back(host, &record, Some(qmp)).await?;
                return host.volumes.get(id).ok_or_else(no_such_volume);
            }
            // It has ended: what counts is said.
            Err(QmpError::Closed) => {}
            Err(error) => return Err(hypervisor("the volume is between two places", &error)),
        }
    }
    remove(host.volumes.datastore(&comes.from)?, id).await?;
    record.comes = None;
    write(host, record.clone()).await?;
    Ok(record)
}

/// Ends the moves that were interrupted of what a machine that runs has.
pub async fn settle_all(host: &Arc<Host>, vm: VmId, qmp: &Qmp) {
    for id in between(host, |record| {
        record.attached.is_some_and(|has| has.vm_id == vm)
    }) {
        if let Err(fault) = settle(host, id, Some(qmp)).await {
            tracing::error!(volume = %id, %fault, "a move that was interrupted is not ended");
        }
    }
}

/// The same for what no machine that runs has.
pub async fn settle_rest(host: &Arc<Host>) {
    let is_free = |record: &VolumeRecord| {
        let vm = record.attached.map(|has| host.vm(has.vm_id));
        vm.is_none_or(|vm| vm.held().is_none_or(|held| held.machine.is_none()))
    };
    for id in between(host, is_free) {
        if let Err(fault) = settle(host, id, None).await {
            tracing::error!(volume = %id, %fault, "a move that was interrupted is not ended");
        }
    }
}

fn between(host: &Host, of: impl Fn(&VolumeRecord) -> bool) -> Vec<VolumeId> {
    let records = lock(&host.volumes.records).clone();
    let records = records
        .into_values()
        .filter(|record| record.comes.is_some());
    records.filter(of).map(|record| record.volume_id).collect()
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

/// Has QEMU copy the volume, and keep both in step from then on.
async fn mirror(
    host: &Arc<Host>,
    record: &VolumeRecord,
    arriving: &VolumeRecord,
    qmp: &Qmp,
) -> Result<(), Fault> {
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
    mirrored.await.map_err(|error| failed(&error))
}

/// Copies a volume that no QEMU has open.
async fn copy(
    host: &Arc<Host>,
    record: &VolumeRecord,
    arriving: &VolumeRecord,
) -> Result<(), Fault> {
    let [from, to] =
        [record, arriving].map(|record| host.volumes.place(&record.datastore, record.volume_id));
    img::copy(&from.join(VOLUME), record.format, &to, COPY_TIMEOUT).await?;
    blocking(move || {
        let synced = File::open(to.join(VOLUME)).and_then(|file| file.sync_all());
        synced.map_err(unmoved)
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
        match JOB.ended(qmp).await {
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
    if qmp.block_nodes().await?.contains(&old.node_name()) {
        qmp.blockdev_del(&old.node_name()).await?;
    }
    Ok(true)
}

/// Nothing comes of the move: the volume is where it was.
async fn take_back(
    host: &Arc<Host>,
    arriving: &VolumeRecord,
    qmp: Option<&Qmp>,
) -> Result<(), Fault> {
    let Some(comes) = &arriving.comes else {
        return Ok(());
    };
    let id = arriving.volume_id;
    let dir = host.volumes.place(&comes.from, id);
    let before = blocking(move || {
        let read = record::read::<VolumeRecord>(&dir);
        read.map_err(|error| Fault::io("reading the volume's record", &error))
    });
    let before = before.await?.ok_or_else(no_such_volume)?;
    lock(&host.volumes.records).insert(id, before);
    if let (Some(qmp), Some((_, new))) = (qmp, host.volumes.plug(arriving)) {
        match give_up(qmp, &new).await {
            Ok(()) | Err(QmpError::Closed) => {}
            // What is left there goes with the next move, or the agent's next start.
            Err(error) => return Err(failed(&error)),
        }
    }
    remove(host.volumes.datastore(&arriving.datastore)?, id).await
}

/// Ends what QEMU still does for a move, and lets go of its target.
async fn give_up(qmp: &Qmp, new: &Plug) -> Result<(), QmpError> {
    JOB.cancel(qmp).await?;
    if qmp.block_nodes().await?.contains(&new.node_name()) {
        qmp.blockdev_del(&new.node_name()).await?;
    }
    Ok(())
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
