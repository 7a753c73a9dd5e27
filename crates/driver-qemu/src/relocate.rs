//! Disks that move to another datastore of their host, while their machines run
//! or not.
//!
//! A record says where the disk comes from before anything is copied. QEMU, or
//! `qemu-img`, copies what is there; QEMU goes on until both are in step, and has
//! every write of the guest on both from then on. The guest stands still for a
//! moment, which brings both to their disks; then the new one is recorded as the one
//! that counts, and QEMU lets go of the old one: whenever an agent or a QEMU dies,
//! the one that counts has all that the guest was told is written. The old one goes
//! last.

pub mod root;
pub mod volume;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use vimana_driver::{CopyWatcher, Fault, FaultKind};
use vimana_model::backup::DiskId;
use vimana_model::migration::{CopyPhase, Sent};
use vimana_model::name::DatastoreName;

use crate::host::Turn;
use crate::job::Job;
use crate::limits::{MOVE_END_TIMEOUT, QMP_TIMEOUT, SEND_TIMEOUT, WATCH_EVERY};
use crate::machine::Machine;
use crate::migration::send::ms;
use crate::migration::watch::Watch;
use crate::process::Process;
use crate::qmp::{Qmp, QmpError};

/// The name of our job inside QEMU: one disk of a machine moves at a time.
const JOB: Job = Job {
    id: "move",
    command: "blockdev-mirror",
    within: SEND_TIMEOUT,
};
/// Its end, once that is asked for: a kill waits for it.
const END: Job = Job {
    within: MOVE_END_TIMEOUT,
    ..JOB
};

/// The QEMU that has the disks.
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

/// See [`vimana_driver::HostDriver::move_disk`].
pub async fn relocate(
    turn: Turn,
    disk: DiskId,
    to: DatastoreName,
    watcher: CopyWatcher,
) -> Result<Sent, Fault> {
    match disk {
        DiskId::Root => root::relocate(turn, to, watcher).await,
        DiskId::Volume(id) => volume::relocate(turn, id, to, watcher).await,
    }
}

/// An error where a disk of the machine is on its way already.
fn none_between(turn: &Turn) -> Result<(), Fault> {
    if root::is_between(&turn.dir()) || volume::is_between(&turn.host, turn.vm.id) {
        let message = "another disk of the machine is between two places";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    Ok(())
}

/// What is copied of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Full,
    /// What it has itself, and not what it lies over.
    Top,
}

impl Extent {
    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Top => "top",
        }
    }
}

/// Has QEMU copy what is on the node `old` to the node `name`, which `node` makes,
/// and keep both in step from then on; how much it was, in bytes.
async fn mirror(
    qmp: &Qmp,
    extent: Extent,
    old: &str,
    (name, node): (&str, Value),
    watcher: CopyWatcher,
) -> Result<u64, Fault> {
    let mirrored = async {
        give_up(qmp, name).await?;
        qmp.blockdev_add(node).await?;
        let arguments = json!({
            "device": old, "target": name, "sync": extent.name(),
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

/// Does `switch` while nobody else moves the guest, which goes on in the end
/// whatever came of it.
async fn while_it_stands<T>(
    machine: &Machine,
    switch: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    // The guest goes on when this is given back, if not before.
    let _motion = machine.motion().await;
    let switched = switch.await;
    if let Err(error) = machine.qmp().cont().await {
        tracing::warn!(%error, "the machine is continued by its supervisor");
    }
    switched
}

/// Has the guest stand still. QEMU brings all that it has of both disks to where they
/// are when it stops, so that either may be what is found afterwards.
async fn stand_still(qmp: &Qmp) -> Result<(), Fault> {
    qmp.stop().await.map_err(|error| failed(&error))?;
    let job = qmp.job(JOB.id).await.map_err(|error| failed(&error))?;
    if !job.is_some_and(|job| job.ready && job.error.is_none()) {
        let message = "the disk was not moved: what was written meanwhile did not arrive";
        return Err(Fault::new(FaultKind::Hypervisor, message));
    }
    Ok(())
}

/// The node `new` takes the place of `old` in a device, if it has not: whether it is
/// there.
async fn pivot(qmp: &Qmp, device: &str, old: &str, new: &str) -> Result<bool, QmpError> {
    if qmp.job(JOB.id).await?.is_some() {
        // One that has ended already refuses; what came of it is seen below.
        let _ = qmp.job_complete(JOB.id).await;
        match END.ended(qmp).await {
            Ok(()) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if qmp.node_of(device).await? != new {
        return Ok(false);
    }
    qmp.blockdev_let_go(old).await?;
    Ok(true)
}

/// Ends a copy that is in step: both stay as they are.
async fn part(qmp: &Qmp) -> Result<(), QmpError> {
    qmp.mirror_end(JOB.id).await?;
    END.ended(qmp).await
}

/// Ends what QEMU still does for a move, and lets go of its target.
async fn give_up(qmp: &Qmp, new: &str) -> Result<(), QmpError> {
    END.cancel(qmp).await?;
    qmp.blockdev_let_go(new).await
}

/// As [`give_up`]; a QEMU that has ended does nothing more.
async fn give_up_for_good(qmp: &Qmp, new: &str) -> Result<(), Fault> {
    match give_up(qmp, new).await {
        Ok(()) | Err(QmpError::Closed) => Ok(()),
        // What is left there goes with the agent's next start.
        Err(error) => Err(failed(&error)),
    }
}

/// What a move took that began at `began`; `stood` is since when the guest stands
/// still for it, where there is one.
fn took(bytes: u64, began: Instant, stood: Option<Instant>) -> Sent {
    let paused_ms = stood.map_or(0, |stood| ms(stood.elapsed()));
    Sent {
        transferred_bytes: bytes,
        total_ms: ms(began.elapsed()),
        downtime_ms: paused_ms,
        paused_ms,
    }
}

fn given_up() -> Fault {
    let message = "QEMU gave the move up at its very end";
    Fault::new(FaultKind::Hypervisor, message)
}

fn between(error: &QmpError) -> Fault {
    let message = format!("the disk is between two places: {error}");
    Fault::new(FaultKind::Hypervisor, message)
}

fn unmoved(error: std::io::Error) -> Fault {
    Fault::io("moving the disk", &error)
}

fn failed(error: &QmpError) -> Fault {
    if error.is_full() {
        let message = "moving the disk: the datastore is full";
        return Fault::new(FaultKind::NoSpace, message);
    }
    Fault::new(
        FaultKind::Hypervisor,
        format!("the disk was not moved: {error}"),
    )
}
