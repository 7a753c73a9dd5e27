//! From a prepared machine to one that runs guest code.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};
use vimana_driver::{Fault, FaultKind, IncarnationSpec, Power};
use vimana_model::host::Accelerator;
use vimana_model::unit::Resources;

use crate::argv::{self, DISK, GUEST_SOCKET, Launch, Plug, QMP_SOCKET, SERIAL_SOCKET};
use crate::host::{Held, Turn, blocking, no_such_vm, overtaken};
use crate::limits::{START_POLL, START_TIMEOUT};
use crate::machine::{self, Machine, Parts};
use crate::migration::{Arriving, Journey};
use crate::prepare;
use crate::process::{self, Identity, Process};
use crate::qcow2;
use crate::qmp::{Migration, Passage, Qmp, QmpError, connect_in};
use crate::record::{self, MEMORY, Prepared, Started};
use crate::relocate::root;
use crate::supervisor::record_no_process;

/// See [`vimana_driver::HostDriver::boot`].
pub async fn boot(turn: Turn, resources: Resources) -> Result<(), Fault> {
    let mut held = turn.vm.held().ok_or_else(no_such_vm)?;
    let again = held.record.spec.run_epoch == turn.epoch;
    match &held.power {
        Power::Prepared => {}
        Power::Unknown => return Err(no_such_vm()),
        Power::Saved => return Err(memory_saved()),
        _ if held.is_arriving() && !was_left(&held, turn.epoch) => return Err(never_arrived()),
        Power::Running | Power::Off | Power::Crashed { .. } if again => return has_run(&held),
        Power::Running | Power::Arriving | Power::Left => return Err(still_runs()),
        Power::Off | Power::Crashed { .. } => {}
    }
    if turn.host.snapshots.of(turn.vm.id).reverting.is_some() {
        let message = "a revert was interrupted: it has to be repeated first";
        return Err(Fault::new(FaultKind::Conflict, message));
    }
    turn.still_wanted()?;
    // QEMU shall not have the disk where it is not to stay.
    root::settle(&turn.host, &turn.vm, None).await?;
    held = turn.vm.held().unwrap_or(held);
    let mut record = Prepared::clone(&held.record);
    record.spec.run_epoch = turn.epoch;
    record.spec.resources = Resources {
        // Disks never shrink.
        disk_mib: record.spec.resources.disk_mib.max(resources.disk_mib),
        ..resources
    };
    prepare::allowed(&turn.host.config, &record.spec.resources)?;
    let dir = turn.dir();
    let (place, now) = (dir.clone(), record.clone());
    let grow_to = blocking(move || {
        let grow_to = wanted_growth(&place, &now)?;
        record::erase::<Arriving>(&place)
            .map_err(|error| Fault::io("recording that the machine is here", &error))?;
        make_ready(&place, &now)?;
        Ok(grow_to)
    })
    .await?;
    let accelerator = turn.host.capabilities.accelerator;
    let volumes = turn.host.volumes.of(turn.vm.id);
    let args = argv::machine(&launch(&record.spec, &record.image, accelerator, volumes));
    turn.vm
        .hold(&turn.host, Held::prepared(Arc::new(record.clone())));
    match start(&turn, &dir, &args, Beginning::Fresh { grow_to }).await {
        Ok(parts) => {
            Machine::supervise(&turn.host, &turn.vm, parts);
            Ok(())
        }
        Err(fault) => {
            not_started(dir).await?;
            Err(fault)
        }
    }
}

/// The answer to a start of a run that has begun already.
pub fn has_run(held: &Held) -> Result<(), Fault> {
    let ended = |how: &str| {
        let message = format!("this run of the machine has already ended: {how}");
        Err(Fault::new(FaultKind::Hypervisor, message))
    };
    match &held.power {
        // Off: it ran, and its guest was quick to switch itself off.
        Power::Running | Power::Off if !held.stopped => Ok(()),
        Power::Running | Power::Off => ended("it was stopped"),
        Power::Crashed { reason } => ended(reason),
        Power::Prepared | Power::Saved | Power::Arriving | Power::Left | Power::Unknown => {
            Err(no_such_vm())
        }
    }
}

pub fn still_runs() -> Fault {
    let message = "an earlier run of the machine has not ended";
    Fault::new(FaultKind::Hypervisor, message)
}

/// Whether all of its disk is here, of a machine that came and never ran: the next
/// run was to be here, and this is a later one. Whoever asks for that knows that
/// the machine is this host's now.
fn was_left(held: &Held, epoch: u64) -> bool {
    let Some(Journey::Arriving(arriving)) = &held.journey else {
        return false;
    };
    held.machine.is_none() && epoch > arriving.run_epoch.saturating_add(1)
}

/// What is on the disk is no more than a part of it.
pub fn never_arrived() -> Fault {
    let message = "the machine was to come from another host, and never ran here";
    Fault::new(FaultKind::Hypervisor, message)
}

pub fn memory_saved() -> Fault {
    let message = "the machine's memory is saved; it can only run on from there";
    Fault::new(FaultKind::Hypervisor, message)
}

/// What QEMU is told of a spec: nothing of its seed.
#[must_use]
pub fn launch<'a>(
    spec: &IncarnationSpec,
    image: &'a str,
    accelerator: Accelerator,
    volumes: Vec<Plug>,
) -> Launch<'a> {
    Launch {
        vm: spec.vm_id,
        resources: spec.resources,
        accelerator,
        image,
        format: spec.image.format,
        volumes,
        incoming: false,
    }
}

/// The bytes the disk has to grow to, if it has to. Blocks.
fn wanted_growth(dir: &Path, record: &Prepared) -> Result<Option<u64>, Fault> {
    let wanted = prepare::disk_bytes(&record.spec.resources)?;
    // A damaged disk is for QEMU to complain about.
    let has = qcow2::overlay_size(&dir.join(DISK)).ok();
    Ok(has.is_some_and(|has| has < wanted).then_some(wanted))
}

/// Before the effect its record. Blocks.
pub fn make_ready(dir: &Path, record: &Prepared) -> Result<(), Fault> {
    // The image may have changed since; QEMU shall not be the one to find out.
    prepare::measure(Path::new(&record.image), record.spec.image.format)?;
    let started = Started {
        run_epoch: record.spec.run_epoch,
        process: None,
    };
    let stale = [QMP_SOCKET, SERIAL_SOCKET, GUEST_SOCKET]
        .map(|socket| record::remove_file(&dir.join(socket)));
    let ready = stale.into_iter().collect::<Result<(), _>>();
    ready
        .and_then(|()| record::write(dir, record))
        .and_then(|()| record::write(dir, &started))
        .map_err(|error| Fault::io("recording the start", &error))
}

/// No process is left of a start.
pub async fn not_started(dir: PathBuf) -> Result<(), Fault> {
    blocking(move || {
        record_no_process(&dir).map_err(|error| Fault::io("recording the failed start", &error))
    })
    .await
}

/// What a process does first.
#[derive(Clone, Copy)]
pub enum Beginning {
    /// The guest starts, after its disk has grown to so many bytes.
    Fresh { grow_to: Option<u64> },
    /// The memory is read back; the guest stands still.
    FromMemory,
    /// The memory comes from another host.
    FromElsewhere,
}

/// Starts the process; none is left on failure.
pub async fn start(
    turn: &Turn,
    dir: &Path,
    args: &[String],
    beginning: Beginning,
) -> Result<Parts, Fault> {
    let qemu = &turn.host.qemu;
    let mut child = process::spawn(qemu, args, dir)
        .map_err(|error| Fault::io(&format!("starting {}", process::shown(qemu)), &error))?;
    let up = async {
        let up = bring_up(turn.epoch, dir, &mut child).await?;
        let begun = begin(&up.qmp, dir, beginning).await;
        begun.map_err(|error| failed(dir, Some(error)))?;
        Ok(up)
    };
    let up = turn.cancelled.run_until_cancelled(up).await;
    match up.unwrap_or_else(|| Err(overtaken())) {
        Ok(up) => Ok(Parts {
            qmp: up.qmp,
            events: up.events,
            process: up.process,
            serial: Some(up.serial),
            child: Some(child),
            restart_until: None,
        }),
        Err(fault) => {
            if let Err(error) = child.kill().await {
                tracing::warn!(vm = %turn.vm.id, %error, "a failed QEMU cannot be ended");
            }
            Err(fault)
        }
    }
}

async fn begin(qmp: &Qmp, dir: &Path, beginning: Beginning) -> Result<(), QmpError> {
    match beginning {
        Beginning::Fresh { grow_to } => {
            if let Some(bytes) = grow_to {
                qmp.block_resize(argv::DISK_NODE, bytes).await?;
            }
            qmp.cont().await
        }
        Beginning::FromElsewhere => Ok(()),
        Beginning::FromMemory => {
            qmp.prepare_migration(Passage::File).await?;
            let mut events = qmp.events().ok_or(QmpError::Closed)?;
            qmp.migrate_incoming(&record::in_home(dir, MEMORY)).await?;
            match machine::moved(qmp, &mut events).await? {
                Migration::Completed => Ok(()),
                Migration::Failed { reason } => Err(QmpError::Refused {
                    command: "migrate-incoming",
                    description: reason,
                }),
                Migration::None
                | Migration::Setup
                | Migration::Underway
                | Migration::Waiting
                | Migration::PostCopy
                | Migration::Cancelled => Err(QmpError::Unexpected),
            }
        }
    }
}

struct Up {
    qmp: Qmp,
    events: tokio::sync::broadcast::Receiver<String>,
    process: Process,
    serial: UnixStream,
}

async fn bring_up(run_epoch: u64, dir: &Path, child: &mut Child) -> Result<Up, Fault> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let identity = pid.and_then(Identity::of);
    let process = identity.as_ref().and_then(Process::find);
    let (Some(identity), Some(process)) = (identity, process) else {
        return Err(failed(dir, None));
    };
    // Recorded before any guest code runs.
    let place: PathBuf = dir.to_owned();
    let recorded = blocking(move || {
        let process = Some(identity);
        let written = record::write(&place, &Started { run_epoch, process });
        written.map_err(|error| Fault::io("recording the process", &error))
    });
    recorded.await?;
    let stream = first_connection(dir, child).await?;
    let (qmp, events) = Qmp::connect(stream)
        .await
        .map_err(|e| failed(dir, Some(e)))?;
    // Connected before the guest runs: none of its output is lost.
    let serial = connect_in(dir, SERIAL_SOCKET).await;
    let serial = serial.map_err(|error| Fault::io("connecting the serial line", &error))?;
    Ok(Up {
        qmp,
        events,
        process,
        serial,
    })
}

/// Connects as soon as QEMU listens.
async fn first_connection(dir: &Path, child: &mut Child) -> Result<UnixStream, Fault> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(stream) = connect_in(dir, QMP_SOCKET).await {
            return Ok(stream);
        }
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return Err(failed(dir, None));
        }
        if Instant::now() >= deadline {
            return Err(failed(dir, Some(slow(START_TIMEOUT))));
        }
        sleep(START_POLL).await;
    }
}

fn slow(within: Duration) -> QmpError {
    QmpError::Timeout {
        command: "starting",
        within,
    }
}

/// Why QEMU did not come up: its own words where it left some.
fn failed(dir: &Path, error: Option<QmpError>) -> Fault {
    let reason = process::last_words(&dir.join(process::LOG))
        .or_else(|| error.map(|error| error.to_string()));
    let reason = reason.unwrap_or_else(|| "it ended at once".to_owned());
    Fault::new(
        FaultKind::Hypervisor,
        format!("QEMU did not start: {reason}"),
    )
}
