//! Disk and seed of a machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vimana_driver::{Fault, FaultKind, IncarnationSpec};
use vimana_model::VmId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::Resources;

use crate::argv::{DISK, SEED};
use crate::boot::{memory_saved, never_arrived, still_runs};
use crate::config::QemuConfig;
use crate::host::{Held, Host, Turn, blocking};
use crate::limits::BACKING_NAME_BYTES;
use crate::qcow2::{self, Refusal};
use crate::record::{self, Entry, Layout, Prepared};
use crate::relocate::root;
use crate::seed;

/// See [`vimana_driver::HostDriver::prepare`].
pub async fn prepare(turn: Turn, spec: IncarnationSpec, image: PathBuf) -> Result<(), Fault> {
    let mut before = turn.vm.held();
    match &before {
        Some(held) if held.is_arriving() => return Err(never_arrived()),
        Some(held) if held.record.spec.run_epoch == turn.epoch => return Ok(()),
        Some(held) if held.machine.is_some() => return Err(still_runs()),
        Some(held) if held.saved.is_some() => return Err(memory_saved()),
        Some(_) | None => {}
    }
    turn.still_wanted()?;
    if before.is_some() {
        root::settle(&turn.host, &turn.vm, None).await?;
        before = turn.vm.held();
    }
    let host = Arc::clone(&turn.host);
    // It takes milliseconds: a call that overtakes this one waits that long.
    let record = blocking(move || {
        let record = promised(&host.config, spec, &image)?;
        enough_room(&host, &record.spec)?;
        match before {
            Some(held) => renew(&host, &held.record, record),
            None => create(&host, record, |_| Ok(())),
        }
    });
    let held = Held::prepared(Arc::new(record.await?));
    turn.vm.hold(&turn.host, held);
    Ok(())
}

/// A new disk and seed, and what else is to be beside them. Blocks.
pub fn create(
    host: &Host,
    record: Prepared,
    beside: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Prepared, Fault> {
    let spec = &record.spec;
    let size = disk_bytes(&spec.resources)?;
    let place = host.volumes.datastore(&spec.datastore)?;
    let made = host.layout.create(spec.vm_id, |dir| {
        record::write(dir, &record)?;
        make_home(place, spec, dir, |home| {
            let disk = record::new_file(&home.join(DISK))?;
            qcow2::write_empty(&disk, size, Some((&record.image, spec.image.format)))?;
            disk.sync_all()
        })?;
        record::write_file(&dir.join(SEED), &seed::image(spec.vm_id, &spec.seed))?;
        beside(dir)
    });
    made.map_err(|error| Fault::io("making the disk", &error))?;
    Ok(record)
}

/// The records and the seed of a machine whose own disk is in its datastore already,
/// where another host has it. Blocks.
pub fn join(
    host: &Host,
    record: Prepared,
    beside: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Prepared, Fault> {
    let spec = &record.spec;
    let place = host.volumes.datastore(&spec.datastore)?;
    if spec.datastore.is_local() || !place.vm(spec.vm_id).join(DISK).exists() {
        let message = "the host does not find the machine's disk where it is to be";
        return Err(Fault::new(FaultKind::Host, message));
    }
    let made = host.layout.create(spec.vm_id, |dir| {
        record::write(dir, &record)?;
        link_home(place, spec.vm_id, dir)?;
        record::write_file(&dir.join(SEED), &seed::image(spec.vm_id, &spec.seed))?;
        beside(dir)
    });
    made.map_err(|error| Fault::io("linking the disk", &error))?;
    Ok(record)
}

/// Where a machine's own disk is to be, filled by `fill`: its directory, or one in
/// the further datastore `place`, which takes the place of any that is left of the
/// same machine, and a link to the disk. Blocks.
pub fn make_home(
    place: &Layout,
    spec: &IncarnationSpec,
    dir: &Path,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if spec.datastore.is_local() {
        return fill(dir);
    }
    place.remove(&spec.vm_id)?;
    place.create(spec.vm_id, fill)?;
    link_home(place, spec.vm_id, dir)
}

/// The link to a disk that is in the further datastore `place` already. Blocks.
fn link_home(place: &Layout, vm: VmId, dir: &Path) -> io::Result<()> {
    symlink(linked(place, vm)?, dir.join(DISK))
}

/// What that is a link to. Blocks.
pub fn linked(place: &Layout, vm: VmId) -> io::Result<PathBuf> {
    Ok(std::path::absolute(place.vm(vm))?.join(DISK))
}

/// A machine's own disk in the further datastore `home`; another host may have it in
/// any of the others. Blocks.
pub fn remove_home(host: &Host, vm: VmId, home: &DatastoreName) -> io::Result<()> {
    let place = host.volumes.datastores().get(home);
    let place = place.filter(|_| !home.is_local());
    place.map_or(Ok(()), |place| place.remove(&vm))
}

/// Whatever is left of a machine's own disk in the further datastores of the host.
/// Blocks.
pub fn remove_homes(host: &Host, vm: VmId) -> io::Result<()> {
    let all = host.volumes.datastores().iter();
    let mut others = all.filter(|(name, _)| !name.is_local());
    others.try_for_each(|(_, place)| place.remove(&vm))
}

/// The next run of a VM whose disk is here: the disk stays. Blocks.
fn renew(host: &Host, before: &Prepared, record: Prepared) -> Result<Prepared, Fault> {
    let spec = &record.spec;
    let same = before.spec.image.sha256 == spec.image.sha256
        && before.image == record.image
        && before.spec.datastore == spec.datastore
        && before.spec.resources.disk_mib <= spec.resources.disk_mib;
    if !same {
        let message = "the host still holds another disk of this machine";
        return Err(Fault::new(FaultKind::Host, message));
    }
    let dir = host.layout.vm(spec.vm_id);
    // The record of the new run is what makes it valid: it comes last.
    record::replace_file(&dir, SEED, &seed::image(spec.vm_id, &spec.seed))
        .and_then(|()| record::write(&dir, &record))
        .map_err(|error| Fault::io("making the seed", &error))?;
    Ok(record)
}

/// See [`vimana_driver::HostDriver::images_in_use`]. What is on the disk
/// counts: a machine that is left alone because its records make no sense may
/// run all the same, from an image that nobody knows. Blocks.
pub fn images_in_use(host: &Host) -> Result<Vec<PathBuf>, Fault> {
    let unreadable = |error| Fault::io("reading the machines' records", &error);
    let mut images = BTreeSet::new();
    for entry in std::fs::read_dir(host.layout.state()).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(Entry::Vm(id)) = name.to_str().map(|name| host.layout.entry(name)) else {
            continue;
        };
        let held = host.known(id).and_then(|vm| vm.held());
        let image = match held {
            Some(held) => held.record.image.clone(),
            None => match record::read::<Prepared>(&host.layout.vm(id)).map_err(unreadable)? {
                Some(record) => record.image,
                // Cleaned meanwhile.
                None if !host.layout.vm(id).exists() => continue,
                None => {
                    let message = format!("the machine {id} has no record");
                    return Err(Fault::new(FaultKind::Host, message));
                }
            },
        };
        images.insert(PathBuf::from(image));
    }
    Ok(images.into_iter().collect())
}

/// Whether there is room where a machine's own disk is to be.
pub fn enough_room(host: &Host, spec: &IncarnationSpec) -> Result<(), Fault> {
    enough_room_in(host, host.volumes.datastore(&spec.datastore)?.state())
}

/// Whether the directory's file system has more than the host keeps free.
pub fn enough_room_in(host: &Host, dir: &Path) -> Result<(), Fault> {
    let facts = rustix::fs::statvfs(dir)
        .map_err(|error| Fault::io("looking for disk space", &error.into()))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let reserve = host.config.disk_reserve;
    if reserve.bytes().is_none_or(|reserve| free < reserve) {
        let message = format!("the host's disk is full: it keeps {reserve} free");
        return Err(Fault::new(FaultKind::NoSpace, message));
    }
    Ok(())
}

/// Checks what is asked for against the image and this host's limits. Blocks.
pub fn promised(
    config: &QemuConfig,
    spec: IncarnationSpec,
    image: &Path,
) -> Result<Prepared, Fault> {
    allowed(config, &spec.resources)?;
    let path = std::path::absolute(image).ok();
    let path = path.as_deref().and_then(Path::to_str);
    let Some(path) = path.filter(|path| path.len() <= BACKING_NAME_BYTES) else {
        let message = "the image's place on this host has no usable name";
        return Err(Fault::new(FaultKind::Host, message));
    };
    let (stored, shown) = measure(image, spec.image.format)?;
    if stored != spec.image.size_bytes {
        let message = format!(
            "the image has {stored} bytes, not the {} that were promised",
            spec.image.size_bytes
        );
        return Err(Fault::new(FaultKind::BadImage, message));
    }
    if shown > disk_bytes(&spec.resources)? {
        let message = "the image is larger than the disk";
        return Err(Fault::new(FaultKind::BadImage, message));
    }
    let image = path.to_owned();
    Ok(Prepared { spec, image })
}

/// Bytes of the image as stored, and of the disk it holds. Blocks.
pub fn measure(image: &Path, format: ImageFormat) -> Result<(u64, u64), Fault> {
    let unreadable = |error| Fault::io("reading the image", &error);
    let file = File::open(image).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(Fault::new(FaultKind::BadImage, "the image is not a file"));
    }
    let shown = match format {
        ImageFormat::Raw => facts.len(),
        ImageFormat::Qcow2 => qcow2::virtual_size(&file).map_err(|refusal| {
            if let Refusal::Io(error) = refusal {
                return unreadable(error);
            }
            Fault::new(FaultKind::BadImage, refusal.to_string())
        })?,
    };
    Ok((facts.len(), shown))
}

/// Refuses what is larger than this host takes.
pub fn allowed(config: &QemuConfig, asked: &Resources) -> Result<(), Fault> {
    let limits = config.limits;
    if asked.vcpus == 0
        || asked.vcpus > limits.vcpus
        || asked.memory_mib.0 == 0
        || asked.memory_mib > limits.memory
        || asked.disk_mib > limits.disk
    {
        let message = "the machine is larger than this host allows, or empty";
        return Err(Fault::new(FaultKind::Unsupported, message));
    }
    Ok(())
}

pub fn disk_bytes(resources: &Resources) -> Result<u64, Fault> {
    let too_big = || Fault::new(FaultKind::Unsupported, "the disk is too large");
    resources.disk_mib.bytes().ok_or_else(too_big)
}
