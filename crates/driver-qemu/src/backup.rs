//! Backups: the disks at one instant, copied by QEMU while the guest runs on.
//!
//! A persistent dirty bitmap in each disk, named after a backup, marks what has
//! changed since; it begins in the very transaction that begins the copy. The
//! bitmap of the backup before is read and left as it is, until the new one is
//! kept elsewhere: so a copy that fails costs nothing. Where no QEMU runs,
//! `qemu-storage-daemon` does the same (see [`offline`]).
//!
//! The files are below the VM's directory, `backup.json` beside them once they
//! are whole. The machine's own end takes them along.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vimana_driver::{BackupFile, BackupFiles, Fault, FaultKind};
use vimana_model::BackupId;
use vimana_model::backup::DiskId;
use vimana_model::unit::MiB;

use crate::argv::{DISK, DISK_NODE, ROOT_DEVICE, VOLUME};
use crate::guest;
use crate::host::{Held, Turn, blocking, overtaken};
use crate::job::Job;
use crate::limits::BACKUP_TIMEOUT;
use crate::machine::Machine;
use crate::offline;
use crate::prepare::enough_room_in;
use crate::qcow2;
use crate::qmp::{Bitmap, Qmp, QmpError};
use crate::record::{self, Record, Scratch};
use crate::volume::{img, saved};

/// The directory of the files, in the VM's.
pub const BACKUP: &str = "backup";

/// What was made; whole, or there is no such record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    backup_id: BackupId,
    since: Option<BackupId>,
    frozen: bool,
    disks: Vec<(DiskId, MiB)>,
}

impl Record for Made {
    const FILE: &'static str = "backup.json";
}

/// A disk that is copied.
struct Source {
    disk: DiskId,
    /// As QEMU calls it.
    node: String,
    bytes: u64,
}

impl Source {
    /// The node that it is copied to.
    fn target(&self) -> String {
        format!("backup-{}", self.node)
    }
}

/// See [`vimana_driver::HostDriver::back_up`].
pub async fn back_up(
    turn: Turn,
    id: BackupId,
    since: Option<BackupId>,
) -> Result<BackupFiles, Fault> {
    let held = turn.disks()?;
    if held.saved.is_some() {
        return Err(saved());
    }
    let dir = record::home(&turn.dir()).join(BACKUP);
    if let Some(made) = read(&dir).await?.filter(|made| made.backup_id == id) {
        return Ok(made.files(&dir));
    }
    turn.still_wanted()?;
    let made = match &held.machine {
        Some(machine) => copy(&turn, &machine.qmp(), Some(machine), id, since).await,
        None => {
            let daemon = offline::start(&turn, &held).await?;
            let made = copy(&turn, &daemon.qmp, None, id, since).await;
            // What it knows of the bitmaps is in the disks only then.
            daemon.end().await.and(made)
        }
    };
    match made {
        Ok(made) => Ok(made.files(&dir)),
        Err(fault) => {
            clear(&turn).await?;
            Err(fault)
        }
    }
}

/// See [`vimana_driver::HostDriver::end_backup`].
pub async fn end(turn: Turn, id: BackupId, kept: bool) -> Result<(), Fault> {
    let held = turn.disks()?;
    let dir = record::home(&turn.dir()).join(BACKUP);
    if !kept && let Some(machine) = &held.machine {
        // Half of it may be under way still, of an agent that died.
        let qmp = machine.qmp();
        let sources = sources(&turn, Some(&qmp)).await?;
        let ending = give_up(&qmp, &sources);
        let ended = turn.cancelled.run_until_cancelled(ending).await;
        ended
            .ok_or_else(overtaken)?
            .map_err(|error| failed(&error))?;
    }
    if held.saved.is_none() {
        // One that is not kept counts for nothing; of those before it nothing
        // more is needed once it is.
        let goes = |mark: BackupId| (mark == id) != kept;
        forget_marks(&turn, &held, goes).await?;
    }
    if kept || read(&dir).await?.is_none_or(|made| made.backup_id == id) {
        clear(&turn).await?;
    }
    Ok(())
}

/// Takes marks out of the machine's disks: what they tell would be wrong from
/// now on, or is needed no more.
pub async fn forget_marks(
    turn: &Turn,
    held: &Held,
    goes: impl Fn(BackupId) -> bool,
) -> Result<(), Fault> {
    if let Some(machine) = &held.machine {
        let qmp = machine.qmp();
        let sources = sources(turn, Some(&qmp)).await?;
        let going = async {
            for (node, bitmap) in marks(&qmp, &sources).await? {
                if bitmap.name.parse().is_ok_and(&goes) {
                    qmp.remove_bitmap(&node, &bitmap.name).await?;
                }
            }
            Ok(())
        };
        let gone = turn.cancelled.run_until_cancelled(going).await;
        return gone
            .ok_or_else(overtaken)?
            .map_err(|error: QmpError| failed(&error));
    }
    let volumes = turn.host.volumes.of(turn.vm.id);
    let volumes = volumes
        .iter()
        .map(|plug| (turn.host.volumes.dir(plug.volume), VOLUME));
    for (dir, name) in std::iter::once((turn.dir(), DISK)).chain(volumes) {
        for mark in img::bitmaps(&dir, name).await? {
            if mark.parse().is_ok_and(&goes) {
                img::remove_bitmap(&dir, name, &mark).await?;
            }
        }
    }
    Ok(())
}

/// Has QEMU, which holds the disks, copy them to new files. `machine` is whose
/// guest runs.
async fn copy(
    turn: &Turn,
    qmp: &Qmp,
    machine: Option<&Arc<Machine>>,
    id: BackupId,
    since: Option<BackupId>,
) -> Result<Made, Fault> {
    let sources = sources(turn, machine.map(|_| qmp)).await?;
    let copying = async {
        give_up(qmp, &sources)
            .await
            .map_err(|error| failed(&error))?;
        make_targets(turn, &sources).await?;
        let copied = async {
            let place = record::in_home(&turn.dir(), BACKUP);
            let (since, actions) = ready(qmp, &place, &sources, id, since).await?;
            let begin = qmp.transaction(actions);
            let frozen = match machine {
                Some(machine) => {
                    let (begun, frozen) = guest::still(machine, &turn.dir(), begin).await;
                    begun.map(|()| frozen)
                }
                None => begin.await.map(|()| false),
            };
            let frozen = frozen?;
            ended(qmp, &sources).await?;
            Ok((since, frozen))
        };
        copied.await.map_err(|error| failed(&error))
    };
    let copied = turn.cancelled.run_until_cancelled(copying).await;
    let copied = copied.unwrap_or_else(|| Err(overtaken()));
    if copied.is_err() {
        if let Err(error) = take_back(qmp, &sources, id).await {
            tracing::warn!(%error, "what is left of a backup stays for the next one");
        }
    } else {
        let targets = sources.iter().map(Source::target);
        for target in targets {
            let closed = qmp.blockdev_del(&target).await;
            closed.map_err(|error| failed(&error))?;
        }
    }
    let (since, frozen) = copied?;
    let made = Made {
        backup_id: id,
        since,
        frozen,
        disks: sources
            .iter()
            .map(|source| (source.disk, MiB(source.bytes.div_ceil(1 << 20))))
            .collect(),
    };
    let (dir, whole) = (record::home(&turn.dir()).join(BACKUP), made.clone());
    blocking(move || {
        for (disk, _) in &whole.disks {
            let synced = File::open(dir.join(disk.to_string())).and_then(|file| file.sync_all());
            synced.map_err(unmade)?;
        }
        record::write(&dir, &whole).map_err(unmade)
    })
    .await?;
    Ok(made)
}

/// The machine's disks, the root disk first; `qmp` is that of its QEMU, where it runs.
async fn sources(turn: &Turn, qmp: Option<&Qmp>) -> Result<Vec<Source>, Fault> {
    let node = match qmp {
        Some(qmp) => qmp.node_of(ROOT_DEVICE).await,
        None => Ok(DISK_NODE.to_owned()),
    };
    let node = node.map_err(|error| failed(&error))?;
    let root = (DiskId::Root, node, turn.dir().join(DISK));
    let volumes = turn.host.volumes.of(turn.vm.id).into_iter();
    let volumes = volumes.map(|plug| {
        let file = turn.host.volumes.dir(plug.volume).join(VOLUME);
        (DiskId::Volume(plug.volume), plug.node_name(), file)
    });
    let all: Vec<_> = std::iter::once(root).chain(volumes).collect();
    blocking(move || {
        let source = |(disk, node, file): (DiskId, String, std::path::PathBuf)| {
            let bytes = qcow2::overlay_size(&file);
            let bytes = bytes.map_err(|_| Fault::new(FaultKind::Host, "a disk is damaged"))?;
            Ok(Source { disk, node, bytes })
        };
        all.into_iter().map(source).collect()
    })
    .await
}

/// New files for the copies, and nothing else in their directory.
async fn make_targets(turn: &Turn, sources: &[Source]) -> Result<(), Fault> {
    let (host, place) = (Arc::clone(&turn.host), turn.dir());
    let wanted: Vec<_> = sources
        .iter()
        .map(|source| (source.disk.to_string(), source.bytes))
        .collect();
    blocking(move || {
        let home = record::home(&place);
        enough_room_in(&host, &home)?;
        let dir = home.join(BACKUP);
        remove(&dir)?;
        record::make_dir(&dir).map_err(unmade)?;
        for (name, bytes) in wanted {
            let file = record::new_file(&dir.join(name)).map_err(unmade)?;
            qcow2::write_empty(&file, bytes, None).map_err(unmade)?;
        }
        Ok(())
    })
    .await
}

/// Gets everything ready for a transaction that begins to copy all disks as they
/// are at that instant, or what has changed of all of them since that backup:
/// says which.
async fn ready(
    qmp: &Qmp,
    place: &str,
    sources: &[Source],
    id: BackupId,
    since: Option<BackupId>,
) -> Result<(Option<BackupId>, Vec<Value>), QmpError> {
    let mark = since.map(|since| since.to_string());
    let mut usable = 0;
    for (node, bitmap) in marks(qmp, sources).await? {
        if mark.as_ref() == Some(&bitmap.name) {
            usable += usize::from(bitmap.is_usable());
        } else {
            qmp.remove_bitmap(&node, &bitmap.name).await?;
        }
    }
    let mark = mark.filter(|_| usable == sources.len());
    let mut actions: Vec<Value> = Vec::new();
    for source in sources {
        let (node, target) = (&source.node, source.target());
        qmp.blockdev_add(json!({
            "driver": "qcow2",
            "node-name": target,
            "file": {"driver": "file", "filename": format!("{place}/{}", source.disk)},
        }))
        .await?;
        actions.push(json!({
            "type": "block-dirty-bitmap-add",
            "data": {"node": node, "name": id.to_string(), "persistent": true},
        }));
        let mut copy = json!({
            "job-id": target, "device": node, "target": target, "auto-dismiss": false,
            "sync": if mark.is_some() { "bitmap" } else { "full" },
        });
        if let (Some(mark), Some(copy)) = (&mark, copy.as_object_mut()) {
            copy.insert("bitmap".to_owned(), json!(mark));
            copy.insert("bitmap-mode".to_owned(), json!("never"));
        }
        actions.push(json!({"type": "blockdev-backup", "data": copy}));
    }
    Ok((since.filter(|_| mark.is_some()), actions))
}

/// Our bitmaps in the disks, each with its node.
async fn marks(qmp: &Qmp, sources: &[Source]) -> Result<Vec<(String, Bitmap)>, QmpError> {
    let all = qmp.bitmaps().await?;
    let ours = all.into_iter().filter(|(node, bitmap)| {
        let is_disk = sources.iter().any(|source| source.node == *node);
        is_disk && bitmap.name.parse::<BackupId>().is_ok()
    });
    Ok(ours.collect())
}

/// Waits for the end of every copy, whatever becomes of the others.
async fn ended(qmp: &Qmp, sources: &[Source]) -> Result<(), QmpError> {
    let mut all = Ok(());
    for source in sources {
        match job(&source.target()).ended(qmp).await {
            Ok(()) => {}
            Err(error @ QmpError::Refused { .. }) => all = all.and(Err(error)),
            Err(error) => return Err(error),
        }
    }
    all
}

/// The job that copies to the target.
fn job(target: &str) -> Job<'_> {
    Job {
        id: target,
        command: "blockdev-backup",
        within: BACKUP_TIMEOUT,
    }
}

/// Ends what QEMU still does for a backup, and lets go of its files.
async fn give_up(qmp: &Qmp, sources: &[Source]) -> Result<(), QmpError> {
    for source in sources {
        job(&source.target()).cancel(qmp).await?;
    }
    let nodes = qmp.block_nodes().await?;
    for source in sources {
        let target = source.target();
        if nodes.contains(&target) {
            qmp.blockdev_del(&target).await?;
        }
    }
    Ok(())
}

/// Nothing came of it: no copy, and no mark of its own.
async fn take_back(qmp: &Qmp, sources: &[Source], id: BackupId) -> Result<(), QmpError> {
    give_up(qmp, sources).await?;
    for (node, bitmap) in marks(qmp, sources).await? {
        if bitmap.name == id.to_string() {
            qmp.remove_bitmap(&node, &bitmap.name).await?;
        }
    }
    Ok(())
}

impl Made {
    fn files(&self, dir: &Path) -> BackupFiles {
        let file = |(disk, size): &(DiskId, MiB)| BackupFile {
            disk: *disk,
            path: dir.join(disk.to_string()),
            size: *size,
        };
        BackupFiles {
            since: self.since,
            frozen: self.frozen,
            files: self.disks.iter().map(file).collect(),
        }
    }
}

async fn read(dir: &Path) -> Result<Option<Made>, Fault> {
    let dir = dir.to_owned();
    blocking(move || {
        let made = record::read(&dir);
        made.map_err(|error| Fault::io("reading the backup's record", &error))
    })
    .await
}

/// Removes the files.
async fn clear(turn: &Turn) -> Result<(), Fault> {
    let dir = record::home(&turn.dir()).join(BACKUP);
    blocking(move || remove(&dir)).await
}

fn remove(dir: &Path) -> Result<(), Fault> {
    let removed = Scratch(dir.to_owned()).remove();
    removed.map_err(|error| Fault::io("removing the backup's files", &error))
}

fn unmade(error: std::io::Error) -> Fault {
    Fault::io("making the backup", &error)
}

fn failed(error: &QmpError) -> Fault {
    if error.is_full() {
        let message = "making the backup: the host's disk is full";
        return Fault::new(FaultKind::NoSpace, message);
    }
    Fault::new(FaultKind::Hypervisor, format!("the backup: {error}"))
}
