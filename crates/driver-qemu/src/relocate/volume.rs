//! Volumes on their way: the new directory has a record from its beginning, which
//! says where the volume comes from.

use std::fs::File;
use std::sync::Arc;

use tokio::time::Instant;
use vimana_driver::{CopyWatcher, Fault, FaultKind};
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;
use vimana_model::{VmId, VolumeId};

use super::{
    Extent, Live, between, give_up_for_good, given_up, mirror, none_between, pivot, stand_still,
    took, unmoved, while_it_stands,
};
use crate::argv::{Plug, VOLUME};
use crate::host::{Host, Turn, blocking, lock, overtaken};
use crate::limits::COPY_TIMEOUT;
use crate::prepare::enough_room_in;
use crate::qcow2;
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Layout};
use crate::volume::{Coming, VolumeRecord, img, in_no_snapshot, no_such_volume, saved, write};

/// See [`vimana_driver::HostDriver::move_disk`].
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
    none_between(&turn)?;
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
            Some(live) => follow(host, &record, &arriving, &live.qmp, watcher).await,
            None => copy(host, &record, &arriving).await,
        }
    };
    let copied = turn.cancelled.run_until_cancelled(copying).await;
    let bytes = match copied.unwrap_or_else(|| Err(overtaken())) {
        Ok(bytes) => bytes,
        Err(fault) => {
            drop_half(host, &arriving, live.as_ref()).await?;
            return Err(fault);
        }
    };
    let stood = live.map(|_| Instant::now());
    let settled = match held.machine.as_deref() {
        Some(machine) => {
            while_it_stands(machine, switch(host, &arriving, &Live::of(machine))).await?
        }
        None => {
            count(host, &arriving).await?;
            settle(host, id, None).await?
        }
    };
    if settled.datastore != to {
        return Err(given_up());
    }
    Ok(took(bytes, began, stood))
}

/// From the one to the other, once the guest stands still.
async fn switch(
    host: &Arc<Host>,
    arriving: &VolumeRecord,
    live: &Live<'_>,
) -> Result<VolumeRecord, Fault> {
    let counted = async {
        stand_still(&live.qmp).await?;
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
        match take_over(host, &record, &live.qmp).await {
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
            Err(error) => return Err(between(&error)),
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
    for id in on_their_way(host, which) {
        if let Err(fault) = settle(host, id, live).await {
            tracing::error!(volume = %id, %fault, "a move that was interrupted is not ended");
        }
    }
}

fn is_of(record: &VolumeRecord, vm: VmId) -> bool {
    record.attached.is_some_and(|has| has.vm_id == vm)
}

/// Whether a volume that the machine has is on its way.
pub fn is_between(host: &Host, vm: VmId) -> bool {
    !on_their_way(host, |record| is_of(record, vm)).is_empty()
}

fn on_their_way(host: &Host, which: impl Fn(&VolumeRecord) -> bool) -> Vec<VolumeId> {
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
async fn follow(
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
    let to = (new.node_name(), new.node());
    mirror(qmp, Extent::Full, &old.node_name(), (&to.0, to.1), watcher).await
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
async fn take_over(host: &Host, record: &VolumeRecord, qmp: &Qmp) -> Result<bool, QmpError> {
    let Some((_, new)) = host.volumes.plug(record) else {
        return Ok(true);
    };
    let old = Plug {
        moves: new.moves.wrapping_sub(1),
        ..new.clone()
    };
    pivot(qmp, &new.device_name(), &old.node_name(), &new.node_name()).await
}

/// Nothing comes of the move: half of a volume goes, and whatever QEMU still does
/// for it. The other one is where it was.
async fn drop_half(
    host: &Arc<Host>,
    half: &VolumeRecord,
    live: Option<&Live<'_>>,
) -> Result<(), Fault> {
    if let (Some(live), Some((_, new))) = (live, host.volumes.plug(half)) {
        give_up_for_good(&live.qmp, &new.node_name()).await?;
    }
    remove(host.volumes.datastore(&half.datastore)?, half.volume_id).await
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
