//! Volumes: made, attached, grown, detached, removed.
//!
//! A volume's own record names the machine that has it, so that two never do.
//! It is written before a volume is plugged in and after it is out: a call that
//! was interrupted leaves it attached, and repeating the call looks what is
//! missing. Volumes are qcow2, whatever they were copied from.

pub mod copy;
pub mod img;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use vimana_driver::{DiskPlan, Fault, FaultKind, ObservedVolume, VolumePlan, VolumeSource};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::{VmId, VolumeId};

use crate::argv::{Plug, VOLUME};
use crate::config::QemuConfig;
use crate::host::{Host, Line, Place, Turn, blocking, lock, overtaken};
use crate::limits::{COPY_TIMEOUT, DETACH_POLL, DETACH_TIMEOUT, IMG_TIMEOUT, VOLUMES};
use crate::machine;
use crate::prepare::{enough_room_in, measure};
use crate::qcow2;
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Entry, Layout, Record};
use crate::relocate::Live;
use crate::relocate::volume as relocate;

/// What a volume is, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    pub volume_id: VolumeId,
    pub size_mib: MiB,
    /// Of its file: said here, never guessed.
    pub format: ImageFormat,
    pub attached: Option<Attached>,
    /// The one whose directory this is in.
    pub datastore: DatastoreName,
    /// See [`Plug::moves`].
    pub moves: u32,
    /// Where it comes from, as long as it may be there too.
    pub comes: Option<Coming>,
}

/// A volume on its way from one datastore to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coming {
    pub from: DatastoreName,
    /// All is here, and whatever is written comes here, too: this one counts.
    /// Where it is not so, the other one does.
    pub whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attached {
    pub vm_id: VmId,
    /// Where the guest finds it; it stays as long as it is attached.
    pub place: u8,
}

impl Record for VolumeRecord {
    const FILE: &'static str = "volume.json";
}

/// The volumes of a host.
pub struct Volumes {
    /// The host's own directory, and what else there is.
    datastores: BTreeMap<DatastoreName, Layout>,
    pub records: Mutex<BTreeMap<VolumeId, VolumeRecord>>,
    /// One call at a time. A call that also works on a VM has that VM's turn
    /// first.
    lines: Mutex<BTreeMap<VolumeId, Arc<Line>>>,
    /// One look at a time: the last one to end is the last one to begin.
    looking: tokio::sync::Mutex<()>,
}

impl Volumes {
    pub fn new(local: Layout, config: &QemuConfig) -> Self {
        let others = config.datastores.iter().map(|(name, dir)| {
            let layout = Layout::shared(dir.clone(), &config.owner);
            (name.clone(), layout)
        });
        Self {
            datastores: others.chain([(DatastoreName::local(), local)]).collect(),
            records: Mutex::default(),
            lines: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    pub const fn datastores(&self) -> &BTreeMap<DatastoreName, Layout> {
        &self.datastores
    }

    pub fn datastore(&self, name: &DatastoreName) -> Result<&Layout, Fault> {
        self.datastores.get(name).ok_or_else(|| {
            let message = format!("the host has no datastore `{name}`");
            Fault::new(FaultKind::Unsupported, message)
        })
    }

    /// Those found at the start. Gives back halves: of volumes that were on their
    /// way, which do not count and are to be dropped.
    pub fn take_in(&self, found: Vec<VolumeRecord>, vms: &[VmId]) -> Vec<VolumeRecord> {
        let is_half = |record: &VolumeRecord| record.comes.as_ref().is_some_and(|c| !c.whole);
        let is_here = |record: &VolumeRecord| {
            // A machine of another host has it.
            let elsewhere = record.attached.is_some_and(|has| !vms.contains(&has.vm_id));
            record.datastore.is_local() || !elsewhere
        };
        let found = found.into_iter().filter(is_here);
        let (halves, found): (Vec<_>, Vec<_>) = found.partition(is_half);
        let mut records = lock(&self.records);
        for record in found {
            // The one that comes is whole, and counts.
            if record.comes.is_some() || !records.contains_key(&record.volume_id) {
                records.insert(record.volume_id, record);
            }
        }
        let (known, alone): (Vec<_>, Vec<_>) = halves
            .into_iter()
            .partition(|half| records.contains_key(&half.volume_id));
        for half in alone {
            let (id, datastore) = (half.volume_id, half.datastore);
            tracing::error!(volume = %id, %datastore, "half of a volume is left alone: the other one is not found");
        }
        known
    }

    /// Looks once more at what no machine of this host has, where other hosts
    /// have the same right to it: they may have taken, made or removed it.
    async fn look(&self) -> Result<(), Fault> {
        let shared = self.datastores.iter().filter(|(name, _)| !name.is_local());
        let shared: BTreeMap<_, _> = shared.map(|(n, l)| (n.clone(), l.clone())).collect();
        if shared.is_empty() {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        let found = blocking(move || {
            let mut found = BTreeMap::new();
            for (name, layout) in shared {
                match free_in(&name, &layout) {
                    Ok(free) => {
                        found.insert(name, free);
                    }
                    // The others go on.
                    Err(error) => {
                        tracing::error!(datastore = %name, %error, "a datastore cannot be read");
                    }
                }
            }
            Ok(found)
        });
        let found = found.await?;
        let mut records = lock(&self.records);
        records.retain(|_, record| {
            record.attached.is_some() || !found.contains_key(&record.datastore)
        });
        for record in found.into_values().flatten() {
            records.entry(record.volume_id).or_insert(record);
        }
        Ok(())
    }

    /// The same, unless the volume is this host's alone.
    async fn look_for(&self, volume: VolumeId) -> Result<(), Fault> {
        let record = self.get(volume);
        let own = record.is_some_and(|r| r.datastore.is_local() || r.attached.is_some());
        if own { Ok(()) } else { self.look().await }
    }

    /// Where a volume is; where there is none, it is the host's own directory's.
    pub fn dir(&self, volume: VolumeId) -> PathBuf {
        let name = lock(&self.records)
            .get(&volume)
            .map(|r| r.datastore.clone());
        self.place(&name.unwrap_or_else(DatastoreName::local), volume)
    }

    pub fn place(&self, datastore: &DatastoreName, volume: VolumeId) -> PathBuf {
        let layout = self.datastores.get(datastore);
        layout.map_or_else(PathBuf::new, |layout| layout.volume(volume))
    }

    pub async fn observed(&self) -> Result<Vec<ObservedVolume>, Fault> {
        self.look().await?;
        let records = lock(&self.records);
        let seen = records.values().map(|record| ObservedVolume {
            volume_id: record.volume_id,
            size_mib: record.size_mib,
            attached_to: record.attached.map(|attached| attached.vm_id),
            datastore: record.datastore.clone(),
        });
        Ok(seen.collect())
    }

    /// What a machine has, in the order of its ids.
    pub fn of(&self, vm: VmId) -> Vec<Plug> {
        let records = lock(&self.records);
        let plugs = records.values().filter_map(|record| self.plug(record));
        let ours = plugs.filter(|(owner, _)| *owner == vm);
        ours.map(|(_, plug)| plug).collect()
    }

    /// The files of what a machine has.
    pub fn files(&self, vm: VmId) -> Vec<PathBuf> {
        let of = self.of(vm).into_iter();
        of.map(|plug| self.dir(plug.volume).join(VOLUME)).collect()
    }

    /// Where a volume is, if the host has it.
    pub fn file(&self, volume: VolumeId) -> Option<PathBuf> {
        self.get(volume)?;
        Some(self.dir(volume).join(VOLUME))
    }

    pub fn get(&self, volume: VolumeId) -> Option<VolumeRecord> {
        lock(&self.records).get(&volume).cloned()
    }

    /// What it is in the machine that has it.
    pub fn plug(&self, record: &VolumeRecord) -> Option<(VmId, Plug)> {
        let Attached { vm_id, place } = record.attached?;
        let file = if record.datastore.is_local() {
            format!("../{}/{VOLUME}", record.volume_id)
        } else {
            let file = self.place(&record.datastore, record.volume_id).join(VOLUME);
            // Paths of datastores are text: see `QemuDriver::open`.
            file.to_str()?.to_owned()
        };
        let plug = Plug {
            volume: record.volume_id,
            format: record.format,
            place,
            moves: record.moves,
            file,
        };
        Some((vm_id, plug))
    }

    pub async fn turn(&self, volume: VolumeId) -> Place {
        self.line(volume).wait().await
    }

    fn line(&self, volume: VolumeId) -> Arc<Line> {
        Arc::clone(lock(&self.lines).entry(volume).or_default())
    }
}

/// Does the work in a task of its own: a caller that goes away leaves nothing
/// half done.
pub async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, Fault> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call of the QEMU driver broke");
        let message = "the driver met an internal error";
        Err(Fault::new(FaultKind::Host, message))
    })
}

/// See [`vimana_driver::HostDriver::create_volume`].
pub async fn create(
    host: Arc<Host>,
    id: VolumeId,
    size: MiB,
    from: VolumeSource,
    datastore: DatastoreName,
) -> Result<(), Fault> {
    let _turn = host.volumes.turn(id).await;
    host.volumes.look_for(id).await?;
    if host.volumes.get(id).is_some() {
        return Ok(());
    }
    let bytes = allowed(&host, size)?;
    let layout = host.volumes.datastore(&datastore)?.clone();
    let (place, dir) = (Arc::clone(&host), layout.clone());
    let begun = blocking(move || {
        enough_room_in(&place, dir.state())?;
        dir.begin(&id).map_err(unmade)
    });
    let part = begun.await?;
    let file = part.0.join(VOLUME);
    match from {
        VolumeSource::Empty => {
            blocking(move || {
                let file = record::new_file(&file).map_err(unmade)?;
                qcow2::write_empty(&file, bytes, None).map_err(unmade)
            })
            .await?;
        }
        VolumeSource::Image { path, format } => {
            let image = path.clone();
            let (_, shown) = blocking(move || measure(&image, format)).await?;
            if shown > bytes {
                let message = "the image is larger than the volume";
                return Err(Fault::new(FaultKind::BadImage, message));
            }
            img::copy(&path, format, &part.0, COPY_TIMEOUT).await?;
            img::resize(&part.0, bytes, IMG_TIMEOUT).await?;
        }
    }
    let record = VolumeRecord {
        volume_id: id,
        size_mib: size,
        format: ImageFormat::Qcow2,
        attached: None,
        datastore,
        moves: 0,
        comes: None,
    };
    let made = record.clone();
    blocking(move || {
        let synced = File::open(part.0.join(VOLUME)).and_then(|file| file.sync_all());
        synced
            .and_then(|()| record::write(&part.0, &made))
            .and_then(|()| layout.complete(&part, &id))
            .map_err(unmade)
    })
    .await?;
    lock(&host.volumes.records).insert(id, record);
    Ok(())
}

/// See [`vimana_driver::HostDriver::remove_volume`].
pub async fn remove(host: Arc<Host>, id: VolumeId) -> Result<(), Fault> {
    let _turn = host.volumes.turn(id).await;
    host.volumes.look_for(id).await?;
    if host.volumes.get(id).is_some_and(|v| v.attached.is_none()) {
        relocate::settle(&host, id, None).await?;
    }
    let record = host.volumes.get(id);
    if record.as_ref().is_some_and(|v| v.attached.is_some()) {
        return Err(attached());
    }
    let datastore = record.map_or_else(DatastoreName::local, |record| record.datastore);
    let layout = host.volumes.datastore(&datastore)?.clone();
    blocking(move || {
        let removed = layout.remove(&id);
        removed.map_err(|error| Fault::io("removing the volume", &error))
    })
    .await?;
    lock(&host.volumes.records).remove(&id);
    Ok(())
}

/// See [`vimana_driver::HostDriver::grow_volume`].
pub async fn grow(host: Arc<Host>, id: VolumeId, size: MiB) -> Result<(), Fault> {
    host.volumes.look_for(id).await?;
    loop {
        // Its machine neither starts nor ends meanwhile.
        let owner = host.volumes.get(id).ok_or_else(no_such_volume)?.attached;
        let vm = owner.map(|owner| host.vm(owner.vm_id));
        let _vm_turn = match &vm {
            Some(vm) => Some(vm.at_rest().await),
            None => None,
        };
        let _turn = host.volumes.turn(id).await;
        let record = host.volumes.get(id).ok_or_else(no_such_volume)?;
        if record.attached != owner {
            continue;
        }
        let held = vm.and_then(|vm| vm.held());
        if held.as_ref().is_some_and(|held| held.saved.is_some()) {
            return Err(saved());
        }
        let qmp = held.and_then(|held| held.machine).map(|m| m.qmp());
        return grow_to(&host, record, size, qmp).await;
    }
}

async fn grow_to(
    host: &Arc<Host>,
    mut record: VolumeRecord,
    size: MiB,
    qmp: Option<Qmp>,
) -> Result<(), Fault> {
    let bytes = allowed(host, size)?;
    let dir = host.volumes.dir(record.volume_id);
    let file = dir.join(VOLUME);
    let (place, root) = (Arc::clone(host), dir.clone());
    // The file says more than the record where a call was interrupted.
    let has = blocking(move || {
        let has = qcow2::overlay_size(&file);
        let has = has.map_err(|_| Fault::new(FaultKind::Host, "the volume is damaged"))?;
        if has < bytes {
            enough_room_in(&place, &root)?;
        }
        Ok(has)
    })
    .await?;
    if has < bytes {
        match (qmp, host.volumes.plug(&record)) {
            (Some(qmp), Some((_, plug))) => {
                let grown = qmp.block_resize(&plug.node_name(), bytes).await;
                grown.map_err(|error| hypervisor("the volume does not grow", &error))?;
            }
            (Some(_) | None, _) => img::resize(&dir, bytes, IMG_TIMEOUT).await?,
        }
    }
    if record.size_mib < size {
        record.size_mib = size;
        write(host, record).await?;
    }
    Ok(())
}

/// See [`vimana_driver::HostDriver::attach`].
pub async fn attach(turn: Turn, id: VolumeId) -> Result<u8, Fault> {
    let held = turn.disks()?;
    let volumes = &turn.host.volumes;
    let _turn = volumes.turn(id).await;
    volumes.look_for(id).await?;
    let mut record = volumes.get(id).ok_or_else(no_such_volume)?;
    match record.attached {
        Some(attached) if attached.vm_id == turn.vm.id => {}
        Some(_) => return Err(attached()),
        None if held.saved.is_some() => return Err(saved()),
        None => {
            turn.still_wanted()?;
            let place = free_place(&volumes.of(turn.vm.id))?;
            let vm_id = turn.vm.id;
            record.attached = Some(Attached { vm_id, place });
            write(&turn.host, record.clone()).await?;
        }
    }
    let Some((_, plug)) = volumes.plug(&record) else {
        return Err(no_such_volume());
    };
    let (Some(machine), None) = (held.machine, held.saved) else {
        return Ok(plug.place);
    };
    let qmp = machine.qmp();
    let plugged = turn.cancelled.run_until_cancelled(plug_in(&qmp, &plug));
    let fault = match plugged.await {
        Some(Ok(())) => return Ok(plug.place),
        Some(Err(error)) => hypervisor("the volume was not attached", &error),
        None => overtaken(),
    };
    if pull_out(&qmp, &plug).await.is_ok() || machine.is_gone() {
        record.attached = None;
        write(&turn.host, record).await?;
    }
    Err(fault)
}

/// See [`vimana_driver::HostDriver::detach`].
pub async fn detach(turn: Turn, id: VolumeId) -> Result<(), Fault> {
    let held = turn.disks()?;
    let volumes = &turn.host.volumes;
    let _turn = volumes.turn(id).await;
    if volumes.get(id).is_none() {
        return Ok(());
    }
    let live = held.machine.as_deref().map(Live::of);
    let mut record = relocate::settle(&turn.host, id, live.as_ref()).await?;
    let Some((owner, plug)) = volumes.plug(&record) else {
        return Ok(());
    };
    if owner != turn.vm.id {
        return Err(attached());
    }
    if held.saved.is_some() {
        return Err(saved());
    }
    in_no_snapshot(&turn, id)?;
    if let Some(live) = live {
        let pulled = pull_out(&live.qmp, &plug);
        let pulled = turn.cancelled.run_until_cancelled(pulled);
        let pulled = pulled.await.ok_or_else(overtaken)?;
        pulled.map_err(|error| hypervisor("the volume is still attached", &error))?;
    }
    record.attached = None;
    write(&turn.host, record).await
}

/// The machine is gone: its volumes are free again.
pub async fn release(host: &Arc<Host>, vm: VmId) -> Result<(), Fault> {
    for plug in host.volumes.of(vm) {
        let id = plug.volume;
        let _turn = host.volumes.turn(id).await;
        if host.volumes.get(id).is_some() {
            let mut record = relocate::settle(host, id, None).await?;
            record.attached = None;
            write(host, record).await?;
        }
    }
    Ok(())
}

/// Takes in the volumes that a machine of another host has, or comes with: makes
/// those that are copied, empty, and looks at those that both hosts reach. Each is
/// the machine's from its beginning.
pub async fn expect(host: &Arc<Host>, vm: VmId, plans: &[VolumePlan]) -> Result<(), Fault> {
    for plan in plans {
        let id = plan.volume_id;
        let _turn = host.volumes.turn(id).await;
        let layout = host.volumes.datastore(&plan.datastore)?.clone();
        let attached = Attached {
            vm_id: vm,
            place: plan.place,
        };
        let record = if plan.shared {
            blocking(move || shared(&layout, id, attached)).await?
        } else {
            if host.volumes.get(id).is_some() {
                let message = "the host still holds another copy of a volume of this machine";
                return Err(Fault::new(FaultKind::Host, message));
            }
            let record = VolumeRecord {
                volume_id: id,
                size_mib: plan.size_mib,
                format: ImageFormat::Qcow2,
                attached: Some(attached),
                datastore: plan.datastore.clone(),
                moves: 0,
                comes: None,
            };
            let (bytes, made) = (allowed(host, plan.size_mib)?, record.clone());
            let place = Arc::clone(host);
            blocking(move || {
                enough_room_in(&place, layout.state())?;
                make_empty(&layout, &made, bytes).map_err(unmade)
            })
            .await?;
            record
        };
        lock(&host.volumes.records).insert(id, record);
    }
    Ok(())
}

/// The record of a volume that another host's machine has, where both reach it.
/// Blocks.
fn shared(layout: &Layout, id: VolumeId, attached: Attached) -> Result<VolumeRecord, Fault> {
    let record = record::read::<VolumeRecord>(&layout.volume(id));
    let record = record.map_err(|error| Fault::io("looking at a volume", &error))?;
    let ours = |record: &VolumeRecord| record.attached == Some(attached);
    record.filter(ours).ok_or_else(|| {
        let message = "the host does not find a volume of the machine where it is to be";
        Fault::new(FaultKind::NoSuchVolume, message)
    })
}

/// Blocks.
fn make_empty(layout: &Layout, record: &VolumeRecord, bytes: u64) -> std::io::Result<()> {
    let part = layout.begin(&record.volume_id)?;
    let file = record::new_file(&part.0.join(VOLUME))?;
    qcow2::write_empty(&file, bytes, None)?;
    file.sync_all()?;
    record::write(&part.0, record)?;
    layout.complete(&part, &record.volume_id)
}

/// The machine is another host's: what was copied of its volumes goes from here.
/// Those that both hosts reach stay as they are, and so does what nothing is known
/// of; what is in the host's own directory is free again.
pub async fn leave(host: &Arc<Host>, vm: VmId, disks: &DiskPlan) -> Result<(), Fault> {
    for plug in host.volumes.of(vm) {
        let id = plug.volume;
        let _turn = host.volumes.turn(id).await;
        let Some(mut record) = host.volumes.get(id) else {
            continue;
        };
        match disks.volume(id) {
            Some(plan) if !plan.shared => {
                let layout = host.volumes.datastore(&record.datastore)?.clone();
                let removed = blocking(move || {
                    let removed = layout.remove(&id);
                    removed.map_err(|error| Fault::io("removing the volume", &error))
                });
                removed.await?;
            }
            None if record.datastore.is_local() => {
                record.attached = None;
                write(host, record).await?;
                continue;
            }
            Some(_) | None => {}
        }
        lock(&host.volumes.records).remove(&id);
    }
    Ok(())
}

/// Whatever of it is in already stays.
async fn plug_in(qmp: &Qmp, plug: &Plug) -> Result<(), QmpError> {
    if !qmp.block_nodes().await?.contains(&plug.node_name()) {
        qmp.blockdev_add(plug.node()).await?;
    }
    if !qmp.devices().await?.contains(&plug.device_name()) {
        qmp.device_add(plug.device()).await?;
    }
    Ok(())
}

/// Whatever of it is out already is fine.
async fn pull_out(qmp: &Qmp, plug: &Plug) -> Result<(), QmpError> {
    let (name, node) = (plug.device_name(), plug.node_name());
    let mut events = qmp.events().ok_or(QmpError::Closed)?;
    let deadline = Instant::now() + DETACH_TIMEOUT;
    let asked = match qmp.devices().await?.contains(&name) {
        // Where it was asked for before, QEMU says so; what counts is the end.
        true => qmp.device_del(&name).await,
        false => Ok(()),
    };
    loop {
        let out = !qmp.devices().await?.contains(&name);
        if !qmp.block_nodes().await?.contains(&node) {
            return Ok(());
        }
        // A device that is out still lets go of its node.
        let deleted = match out {
            true => qmp.blockdev_del(&node).await,
            false => Err(QmpError::Timeout {
                command: "device_del",
                within: DETACH_TIMEOUT,
            }),
        };
        match deleted {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return asked.and(Err(error)),
            Err(_) => {}
        }
        let heard = machine::heard(&mut events, "DEVICE_DELETED");
        let _ = timeout(DETACH_POLL, heard).await;
    }
}

/// What no machine has. Blocks.
fn free_in(datastore: &DatastoreName, layout: &Layout) -> std::io::Result<Vec<VolumeRecord>> {
    let mut free = Vec::new();
    for entry in std::fs::read_dir(layout.state())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(Entry::Volume(id)) = name.to_str().map(|name| layout.entry(name)) else {
            continue;
        };
        let record = match record::read::<VolumeRecord>(&entry.path()) {
            Ok(Some(record)) => record,
            // One that is just being removed, or makes no sense, is nobody's.
            Ok(None) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => continue,
            Err(error) => return Err(error),
        };
        let sensible = record.volume_id == id && record.datastore == *datastore;
        let half = record.comes.as_ref().is_some_and(|comes| !comes.whole);
        if sensible && !half && record.attached.is_none() {
            free.push(record);
        }
    }
    Ok(free)
}

fn free_place(taken: &[Plug]) -> Result<u8, Fault> {
    let free = (0..VOLUMES).find(|place| taken.iter().all(|plug| plug.place != *place));
    free.ok_or_else(|| {
        let message = format!("the machine has {VOLUMES} volumes, which is all it can have");
        Fault::new(FaultKind::Unsupported, message)
    })
}

/// First on the disk, then in memory.
pub async fn write(host: &Arc<Host>, record: VolumeRecord) -> Result<(), Fault> {
    let dir = host.volumes.place(&record.datastore, record.volume_id);
    let now = record.clone();
    blocking(move || {
        let written = record::write(&dir, &now);
        written.map_err(|error| Fault::io("recording the volume", &error))
    })
    .await?;
    lock(&host.volumes.records).insert(record.volume_id, record);
    Ok(())
}

fn allowed(host: &Host, size: MiB) -> Result<u64, Fault> {
    let bytes = size.bytes().filter(|bytes| *bytes > 0);
    let bytes = bytes.filter(|_| size <= host.config.limits.disk);
    bytes.ok_or_else(|| {
        let message = "the volume is larger than this host allows, or empty";
        Fault::new(FaultKind::Unsupported, message)
    })
}

pub fn in_no_snapshot(turn: &Turn, id: VolumeId) -> Result<(), Fault> {
    let snapshots = turn.host.snapshots.of(turn.vm.id);
    let mut taken = snapshots.taken.iter();
    if taken.any(|taken| taken.volumes.contains(&id)) {
        let message = "the volume is in a snapshot of its machine";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    Ok(())
}

fn unmade(error: std::io::Error) -> Fault {
    Fault::io("making the volume", &error)
}

fn hypervisor(what: &str, error: &QmpError) -> Fault {
    Fault::new(FaultKind::Hypervisor, format!("{what}: {error}"))
}

pub fn no_such_volume() -> Fault {
    let message = "the host does not hold this volume";
    Fault::new(FaultKind::NoSuchVolume, message)
}

fn attached() -> Fault {
    Fault::new(FaultKind::Conflict, "the volume is attached to a machine")
}

pub fn saved() -> Fault {
    let message = "the machine's memory is saved; its volumes stay as they are";
    Fault::new(FaultKind::Conflict, message)
}
