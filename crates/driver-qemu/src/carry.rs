//! Machines that do not run, and come from and go to other hosts.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vimana_driver::{DiskPlan, Fault, FaultKind, IncarnationSpec, Part, Power};

use crate::argv::{DISK, SEED};
use crate::boot::never_arrived;
use crate::host::{Held, Host, Turn, blocking, no_such_vm};
use crate::prepare::{self, disk_bytes, enough_room, make_home};
use crate::qcow2::{self, Refusal};
use crate::record::{self, DiskMark, Ended, MEMORY, Prepared, Saved};
use crate::relocate::root;
use crate::seed;
use crate::snapshot::{self, SnapshotRecord};
use crate::volume::{self, no_such_volume};

/// What QEMU writes first into a saved memory.
const MEMORY_MAGIC: [u8; 4] = *b"QEVM";

/// See [`vimana_driver::HostDriver::export`].
pub async fn export(turn: Turn, disks: DiskPlan) -> Result<Vec<(Part, PathBuf)>, Fault> {
    let held = turn.vm.held().ok_or_else(no_such_vm)?;
    let with_memory = match &held.power {
        Power::Saved if held.machine.is_none() && held.saved.is_some() => true,
        Power::Off | Power::Crashed { .. } if held.machine.is_none() => false,
        Power::Off
        | Power::Crashed { .. }
        | Power::Saved
        | Power::Prepared
        | Power::Running
        | Power::Arriving
        | Power::Left
        | Power::Unknown => {
            let message = "the machine is neither off nor saved";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
    };
    turn.host.snapshots.of(turn.vm.id).may_leave(&disks)?;
    root::settle(&turn.host, &turn.vm, None).await?;
    let home = record::home(&turn.dir());
    let volumes = &turn.host.volumes;
    let has = volumes.of(turn.vm.id);
    let as_planned =
        has.len() == disks.volumes.len() && disks.names_all(has.iter().map(|plug| plug.volume));
    // Who does not say what becomes of them, leaves them here.
    if !disks.volumes.is_empty() && !as_planned {
        return Err(DiskPlan::other_volumes());
    }
    let file = |part| {
        let place = match part {
            Part::Disk => home.join(DISK),
            Part::Memory => home.join(MEMORY),
            Part::Volume(id) => volumes.file(id).ok_or_else(no_such_volume)?,
        };
        Ok((part, place))
    };
    disks.parts(with_memory).into_iter().map(file).collect()
}

/// See [`vimana_driver::HostDriver::import`].
pub async fn import(
    turn: Turn,
    spec: IncarnationSpec,
    image: PathBuf,
    files: Vec<(Part, PathBuf)>,
    disks: DiskPlan,
) -> Result<(), Fault> {
    match turn.vm.held() {
        Some(held) if held.is_arriving() => return Err(never_arrived()),
        Some(held) if held.record.spec.run_epoch == turn.epoch => return Ok(()),
        Some(_) => {
            let message = "the host still holds another disk of this machine";
            return Err(Fault::new(FaultKind::Host, message));
        }
        None => {}
    }
    turn.still_wanted()?;
    volume::expect(&turn.host, turn.vm.id, &disks.volumes).await?;
    let host = Arc::clone(&turn.host);
    let volumes = host.volumes.files(turn.vm.id);
    let to_leave = disks.clone();
    let taken = blocking(move || {
        let record = prepare::promised(&host.config, spec, &image)?;
        enough_room(&host, &record.spec)?;
        check(&record.spec, &files, &disks)?;
        for (part, path) in &files {
            if let Part::Volume(id) = part {
                let place = host.volumes.file(*id).ok_or_else(no_such_volume)?;
                move_file(path, &place).map_err(untaken)?;
            }
        }
        if disks.shares_root {
            return join(&host, record, &disks, &volumes);
        }
        take_over(&host, record, &files, &disks, &volumes)
    });
    let (record, saved) = match taken.await {
        Ok(taken) => taken,
        Err(fault) => {
            volume::leave(&turn.host, turn.vm.id, &to_leave).await?;
            return Err(fault);
        }
    };
    let snapshots = SnapshotRecord::coming(&to_leave.snapshots);
    turn.host.snapshots.put(turn.vm.id, snapshots);
    let mut held = Held::prepared(Arc::new(record));
    held.power = match saved {
        Some(_) => Power::Saved,
        None => Power::Off,
    };
    held.stopped = saved.is_none();
    held.saved = saved;
    turn.vm.hold(&turn.host, held);
    Ok(())
}

/// There are the disks that are copied, and the parts are what they should be. Blocks.
fn check(spec: &IncarnationSpec, files: &[(Part, PathBuf)], disks: &DiskPlan) -> Result<(), Fault> {
    let here = |wanted: &Part| files.iter().any(|(part, _)| part == wanted);
    match disks.parts(false).iter().find(|part| !here(part)) {
        None => {}
        Some(Part::Volume(_)) => return Err(bad("a volume of it is missing")),
        Some(Part::Disk | Part::Memory) => return Err(bad("its disk is missing")),
    }
    for (part, path) in files {
        match part {
            Part::Disk => check_disk("its disk", path, disk_bytes(&spec.resources)?)?,
            Part::Volume(id) => {
                let plan = disks.volume(*id).filter(|plan| !plan.shared);
                let plan = plan.ok_or_else(|| bad("it comes with a volume that is not its own"))?;
                let most = plan.size_mib.bytes().unwrap_or(u64::MAX);
                check_disk("a volume of it", path, most)?;
            }
            Part::Memory => {
                let mut start = [0; MEMORY_MAGIC.len()];
                let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
                match read {
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
                    read => read.map_err(unread)?,
                }
                if start != MEMORY_MAGIC {
                    return Err(bad("its memory is damaged"));
                }
            }
        }
    }
    Ok(())
}

/// Blocks.
fn check_disk(what: &str, path: &Path, most: u64) -> Result<(), Fault> {
    let size = qcow2::overlay_size(path).map_err(|refusal| match refusal {
        Refusal::Io(error) => unread(error),
        Refusal::Header(_) | Refusal::Corrupt | Refusal::Damaged(_) => {
            bad(&format!("{what} is damaged"))
        }
    })?;
    if size > most {
        return Err(bad(&format!("{what} is larger than was promised")));
    }
    Ok(())
}

/// What the machine's own host has is where both reach it. Blocks.
fn join(
    host: &Host,
    record: Prepared,
    disks: &DiskPlan,
    volumes: &[PathBuf],
) -> Result<(Prepared, Option<Saved>), Fault> {
    let epoch = record.spec.run_epoch;
    let home = host.volumes.datastore(&record.spec.datastore)?;
    let has_memory = home.vm(record.spec.vm_id).join(MEMORY).exists();
    let mut saved = None;
    let record = prepare::join(host, record, |dir| {
        snapshot::come(dir, disks)?;
        saved = rest(dir, epoch, has_memory, volumes)?;
        Ok(())
    })?;
    Ok((record, saved))
}

/// Records how it rests: off, or with the memory that is here. Blocks.
fn rest(
    dir: &Path,
    run_epoch: u64,
    has_memory: bool,
    volumes: &[PathBuf],
) -> io::Result<Option<Saved>> {
    if !has_memory {
        let ended = Ended {
            run_epoch,
            power: Power::Off,
            stopped: true,
        };
        record::write(dir, &ended)?;
        return Ok(None);
    }
    let now = Saved {
        // What was saved was an earlier run, on another host.
        ran_epoch: run_epoch.saturating_sub(1),
        let_go: false,
        disk: DiskMark::of(dir, volumes)?,
    };
    record::write(dir, &now)?;
    Ok(Some(now))
}

/// Blocks.
fn take_over(
    host: &Host,
    record: Prepared,
    files: &[(Part, PathBuf)],
    disks: &DiskPlan,
    volumes: &[PathBuf],
) -> Result<(Prepared, Option<Saved>), Fault> {
    let spec = &record.spec;
    let has_memory = files.iter().any(|(part, _)| *part == Part::Memory);
    let mut saved = None;
    let place = host.volumes.datastore(&spec.datastore)?;
    let made = host.layout.create(spec.vm_id, |dir| {
        record::write(dir, &record)?;
        record::write_file(&dir.join(SEED), &seed::image(spec.vm_id, &spec.seed))?;
        make_home(place, spec, dir, |home| {
            let own = |(part, path): &'_ (Part, PathBuf)| match part {
                Part::Disk => move_file(path, &home.join(DISK)),
                Part::Memory => move_file(path, &home.join(MEMORY)),
                // It has a place of its own.
                Part::Volume(_) => Ok(()),
            };
            files.iter().try_for_each(own)
        })?;
        snapshot::come(dir, disks)?;
        saved = rest(dir, spec.run_epoch, has_memory, volumes)?;
        io::Result::Ok(())
    });
    made.map_err(untaken)?;
    Ok((record, saved))
}

/// Moves a file, across file systems where it has to; it is on the disk then.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if fs::rename(from, to).is_err() {
        fs::copy(from, to)?;
    }
    fs::set_permissions(to, Permissions::from_mode(0o600))?;
    File::open(to)?.sync_all()
}

fn untaken(error: io::Error) -> Fault {
    Fault::io("taking over the saved machine", &error)
}

fn unread(error: io::Error) -> Fault {
    Fault::io("reading the saved machine", &error)
}

fn bad(what: &str) -> Fault {
    let message = format!("the saved machine cannot be used: {what}");
    Fault::new(FaultKind::BadImage, message)
}
