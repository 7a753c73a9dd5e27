//! Machines' own disks on their way. Where one is, the name of the disk in the VM's
//! directory says, which is a file or a link to one: see [`record::home`]. The disk
//! has moved when that name means the other one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vimana_driver::{CopyWatcher, Fault, FaultKind};
use vimana_model::VmId;
use vimana_model::migration::Sent;
use vimana_model::name::DatastoreName;

use super::{
    Extent, Live, between, failed, give_up_for_good, given_up, mirror, none_between, part, pivot,
    stand_still, took, unmoved, while_it_stands,
};
use crate::argv::{self, DISK, ROOT_DEVICE};
use crate::backup::BACKUP;
use crate::host::{Held, Host, Turn, Vm, blocking, overtaken};
use crate::offline;
use crate::prepare::{enough_room_in, linked};
use crate::qcow2;
use crate::qmp::QmpError;
use crate::record::{self, Layout, Prepared, Record, Scratch};
use crate::volume::saved;

/// The disk that comes to the VM's directory, before it has its name.
const COMING: &str = "disk.coming.qcow2";
/// The one that leaves it, once another has its name.
const LEAVING: &str = "disk.leaving.qcow2";
/// The link that is to have the name.
const LINK: &str = "disk.link";

/// A disk on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moving {
    from: DatastoreName,
    to: DatastoreName,
    /// What QEMU calls both, where one had it when that began.
    nodes: Option<(String, String)>,
}

impl Record for Moving {
    const FILE: &'static str = "moving.json";
}

/// See [`vimana_driver::HostDriver::move_disk`].
pub async fn relocate(turn: Turn, to: DatastoreName, watcher: CopyWatcher) -> Result<Sent, Fault> {
    let began = Instant::now();
    let held = turn.disks()?;
    let live = held.machine.as_deref().map(Live::of);
    settle(&turn.host, &turn.vm, live.as_ref()).await?;
    let record = turn.disks()?.record;
    let from = record.spec.datastore.clone();
    if from == to {
        return Ok(Sent::default());
    }
    turn.host.volumes.datastore(&to)?;
    if held.saved.is_some() {
        return Err(saved());
    }
    let snapshots = turn.host.snapshots.of(turn.vm.id);
    if snapshots.taken.iter().any(|taken| taken.root) {
        let message = "the machine's own disk is in a snapshot";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    none_between(&turn)?;
    turn.still_wanted()?;
    let nodes = match &live {
        Some(live) => {
            let node = live.qmp.node_of(ROOT_DEVICE).await;
            let node = node.map_err(|error| failed(&error))?;
            let next = argv::next_disk_node(&node);
            Some((node, next))
        }
        None => None,
    };
    let way = Way::of(&turn.host, turn.vm.id, Moving { from, to, nodes })?;
    way.begin(&turn.host, &record).await?;
    let copied = match (&live, &way.moving.nodes) {
        (Some(live), Some((old, new))) => {
            let to = (new.as_str(), way.node(&record, new));
            let copying = mirror(&live.qmp, Extent::Top, old, to, watcher);
            let copied = turn.cancelled.run_until_cancelled(copying).await;
            copied.unwrap_or_else(|| Err(overtaken()))
        }
        _ => copy(&turn, &held, &way, watcher).await,
    };
    let bytes = match copied {
        Ok(bytes) => bytes,
        Err(fault) => {
            settle(&turn.host, &turn.vm, live.as_ref()).await?;
            return Err(fault);
        }
    };
    let stood = live.as_ref().map(|_| Instant::now());
    match held.machine.as_deref() {
        Some(machine) => {
            let switch = async {
                let named = match stand_still(&machine.qmp()).await {
                    Ok(()) => way.name_the_other().await,
                    Err(fault) => Err(fault),
                };
                settle(&turn.host, &turn.vm, Some(&Live::of(machine))).await?;
                named
            };
            while_it_stands(machine, switch).await?;
        }
        None => {
            let named = way.name_the_other().await;
            settle(&turn.host, &turn.vm, None).await?;
            named?;
        }
    }
    let now = turn.vm.held();
    if now.is_none_or(|held| held.record.spec.datastore != way.moving.to) {
        return Err(given_up());
    }
    Ok(took(bytes, began, stood))
}

/// Has a process that has nothing but the disks copy it; how much it was, in bytes.
async fn copy(turn: &Turn, held: &Held, way: &Way, watcher: CopyWatcher) -> Result<u64, Fault> {
    let daemon = offline::start(turn, held).await?;
    let new = argv::next_disk_node(argv::DISK_NODE);
    let to = (new.as_str(), way.node(&held.record, &new));
    let copying = async {
        let copied = mirror(&daemon.qmp, Extent::Top, argv::DISK_NODE, to, watcher).await?;
        let parted = part(&daemon.qmp).await;
        parted.map_err(|error| failed(&error))?;
        Ok(copied)
    };
    let copied = turn.cancelled.run_until_cancelled(copying).await;
    let copied = copied.unwrap_or_else(|| Err(overtaken()));
    // Whatever came of it: nobody else has the disks after that, and only then is
    // all of them in their files.
    let bytes = daemon.end().await.and(copied)?;
    let file = way.arrives_at();
    blocking(move || {
        let synced = File::open(file).and_then(|file| file.sync_all());
        synced.map_err(unmoved)
    })
    .await?;
    Ok(bytes)
}

/// Whether the machine of that directory has its own disk on its way. Blocks for a
/// look at one name.
pub fn is_between(dir: &Path) -> bool {
    dir.join(Moving::FILE).exists()
}

/// Ends a move that was interrupted, one way or the other. The caller has the VM's
/// turn; `live` is its machine's, if that runs.
pub async fn settle(host: &Arc<Host>, vm: &Vm, live: Option<&Live<'_>>) -> Result<(), Fault> {
    let dir = host.layout.vm(vm.id);
    let place = dir.clone();
    let read = blocking(move || record::read::<Moving>(&place).map_err(unmoved));
    let Some(moving) = read.await? else {
        return Ok(());
    };
    let way = Way::of(host, vm.id, moving)?;
    let look = way.clone();
    let mut arrived = blocking(move || look.has_arrived().map_err(unmoved)).await?;
    if let (Some(live), Some((old, new))) = (live, &way.moving.nodes) {
        let has_it = match arrived {
            true => pivot(&live.qmp, ROOT_DEVICE, old, new).await,
            false => Ok(false),
        };
        match has_it {
            Ok(true) => {}
            Ok(false) => {
                give_up_for_good(&live.qmp, new).await?;
                arrived = false;
            }
            // What counts is said.
            Err(QmpError::Closed) if live.is_gone().await => {}
            Err(error) => return Err(between(&error)),
        }
    }
    let end = way.clone();
    let now = blocking(move || end.end(arrived).map_err(unmoved)).await?;
    if let Some(record) = now {
        let record = Arc::new(record);
        vm.change(host, |held| held.record = record);
    }
    Ok(())
}

/// From one place to another.
#[derive(Clone)]
struct Way {
    vm: VmId,
    dir: PathBuf,
    moving: Moving,
    from: Layout,
    to: Layout,
}

impl Way {
    fn of(host: &Host, vm: VmId, moving: Moving) -> Result<Self, Fault> {
        Ok(Self {
            vm,
            dir: host.layout.vm(vm),
            from: host.volumes.datastore(&moving.from)?.clone(),
            to: host.volumes.datastore(&moving.to)?.clone(),
            moving,
        })
    }

    /// The file that the disk comes to, before it is the one that counts.
    fn arrives_at(&self) -> PathBuf {
        match self.moving.to.is_local() {
            true => self.dir.join(COMING),
            false => self.to.vm(self.vm).join(DISK),
        }
    }

    /// The new one as QEMU is to have it.
    fn node(&self, record: &Prepared, name: &str) -> serde_json::Value {
        let file = match self.moving.to.is_local() {
            true => COMING.to_owned(),
            // Paths of datastores are text: see `QemuDriver::open`.
            false => self.arrives_at().to_string_lossy().into_owned(),
        };
        argv::disk_in(&file, name, &record.image, record.spec.image.format)
    }

    /// First the record, then an empty disk over the same image.
    async fn begin(&self, host: &Arc<Host>, record: &Arc<Prepared>) -> Result<(), Fault> {
        let (way, host, record) = (self.clone(), Arc::clone(host), Arc::clone(record));
        blocking(move || {
            enough_room_in(&host, way.to.state())?;
            let bytes = qcow2::overlay_size(&way.dir.join(DISK));
            let bytes = bytes.map_err(|_| Fault::new(FaultKind::Host, "the disk is damaged"))?;
            let over = Some((record.image.as_str(), record.spec.image.format));
            let fill = |file: &Path| {
                let file = record::new_file(file)?;
                qcow2::write_empty(&file, bytes, over)?;
                file.sync_all()
            };
            let made = record::write(&way.dir, &way.moving).and_then(|()| {
                if way.moving.to.is_local() {
                    record::remove_file(&way.arrives_at())?;
                    return fill(&way.arrives_at());
                }
                way.to.remove(&way.vm)?;
                way.to.create(way.vm, |home| fill(&home.join(DISK)))
            });
            made.map_err(|error| {
                // Nothing has come of it.
                if let Err(error) = way.end(false) {
                    tracing::warn!(vm = %way.vm, %error, "half of a disk stays until it moves again");
                }
                unmoved(error)
            })
        })
        .await
    }

    /// The one that comes is the one that counts from now on.
    async fn name_the_other(&self) -> Result<(), Fault> {
        let way = self.clone();
        blocking(move || way.arrive().map_err(unmoved)).await
    }

    /// Whether the disk's name means the one that comes. Blocks.
    fn has_arrived(&self) -> io::Result<bool> {
        match fs::read_link(self.dir.join(DISK)) {
            Ok(disk) => Ok(!self.moving.to.is_local() && disk == linked(&self.to, self.vm)?),
            // It is a file.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Ok(self.moving.to.is_local())
            }
            Err(error) => Err(error),
        }
    }

    /// Blocks.
    fn arrive(&self) -> io::Result<()> {
        if self.moving.from.is_local() {
            // It is not lost with its name.
            record::remove_file(&self.dir.join(LEAVING))?;
            fs::hard_link(self.dir.join(DISK), self.dir.join(LEAVING))?;
            record::sync(&self.dir)?;
        }
        if self.moving.to.is_local() {
            self.give_name(COMING)
        } else {
            self.link_to(&self.to)
        }
    }

    /// The one that was to be left counts again. Blocks.
    fn turn_back(&self) -> io::Result<()> {
        if self.moving.from.is_local() {
            self.give_name(LEAVING)
        } else {
            self.link_to(&self.from)
        }
    }

    fn give_name(&self, file: &str) -> io::Result<()> {
        fs::rename(self.dir.join(file), self.dir.join(DISK))?;
        record::sync(&self.dir)
    }

    fn link_to(&self, place: &Layout) -> io::Result<()> {
        let link = self.dir.join(LINK);
        record::remove_file(&link)?;
        symlink(linked(place, self.vm)?, &link)?;
        self.give_name(LINK)
    }

    /// Nothing is left of the one that does not count, and nothing tells of the move
    /// any more. What is to run, where that has changed. Blocks.
    fn end(&self, arrived: bool) -> io::Result<Option<Prepared>> {
        let Moving { from, to, .. } = &self.moving;
        let mut changed = None;
        if arrived {
            changed = record::read::<Prepared>(&self.dir)?;
            if let Some(record) = &mut changed {
                record.spec.datastore = to.clone();
                record::write(&self.dir, record)?;
            }
        } else if self.has_arrived()? {
            self.turn_back()?;
        }
        match arrived {
            // With whatever was made beside it.
            true if from.is_local() => Scratch(self.dir.join(BACKUP)).remove()?,
            true => self.from.remove(&self.vm)?,
            false if to.is_local() => {}
            false => self.to.remove(&self.vm)?,
        }
        for name in [COMING, LEAVING, LINK] {
            record::remove_file(&self.dir.join(name))?;
        }
        record::erase::<Moving>(&self.dir)?;
        Ok(changed)
    }
}
