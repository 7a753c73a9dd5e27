//! From a prepared machine to one that runs guest code.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};
use vimana_driver::{Fault, FaultKind, IncarnationSpec, Power};
use vimana_model::host::Accelerator;

use crate::argv::{self, Launch, QMP_SOCKET, SERIAL_SOCKET};
use crate::host::{Turn, blocking, no_such_vm, overtaken};
use crate::limits::{START_POLL, START_TIMEOUT};
use crate::machine::{Machine, Parts};
use crate::prepare;
use crate::process::{self, Identity, Process};
use crate::qmp::{Qmp, QmpError, connect_in};
use crate::record::{self, Prepared, Started};

/// See [`vimana_driver::HostDriver::boot`].
pub async fn boot(turn: Turn) -> Result<(), Fault> {
    let held = turn.vm.held();
    let held = held.filter(|held| held.record.spec.run_epoch == turn.epoch);
    let held = held.ok_or_else(no_such_vm)?;
    let ended = |how: &str| {
        let message = format!("this run of the machine has already ended: {how}");
        Err(Fault::new(FaultKind::Hypervisor, message))
    };
    match &held.power {
        Power::Prepared => {}
        Power::Running => return Ok(()),
        Power::Off if held.stopped => return ended("it was stopped"),
        // It ran, and its guest was quick to switch itself off.
        Power::Off => return Ok(()),
        Power::Crashed { reason } => return ended(reason),
    }
    turn.still_wanted()?;
    let dir = turn.host.layout.vm(turn.vm.id);
    let (place, record) = (dir.clone(), held.record.clone());
    blocking(move || make_ready(&place, &record)).await?;
    let launch = launch(
        &held.record.spec,
        &held.record.image,
        turn.host.capabilities.accelerator,
    );
    let started = start(&turn, &dir, &argv::machine(&launch)).await;
    match started {
        Ok(parts) => {
            Machine::supervise(&turn.host, &turn.vm, parts);
            Ok(())
        }
        Err(fault) => {
            blocking(move || {
                let erased = record::erase::<Started>(&dir);
                erased.map_err(|error| Fault::io("recording the failed start", &error))
            })
            .await?;
            Err(fault)
        }
    }
}

/// What QEMU is told of a spec: nothing of its seed.
#[must_use]
pub fn launch<'a>(spec: &IncarnationSpec, image: &'a str, accelerator: Accelerator) -> Launch<'a> {
    Launch {
        vm: spec.vm_id,
        resources: spec.resources,
        accelerator,
        image,
        format: spec.image.format,
    }
}

/// Before the effect its record. Blocks.
fn make_ready(dir: &Path, record: &Prepared) -> Result<(), Fault> {
    // The image may have changed since; QEMU shall not be the one to find out.
    prepare::measure(Path::new(&record.image), record.spec.image.format)?;
    let started = Started {
        run_epoch: record.spec.run_epoch,
        process: None,
    };
    let stale = [QMP_SOCKET, SERIAL_SOCKET].map(|socket| record::remove_file(&dir.join(socket)));
    let ready = stale.into_iter().collect::<Result<(), _>>();
    ready
        .and_then(|()| record::write(dir, &started))
        .map_err(|error| Fault::io("recording the start", &error))
}

/// Starts the process and lets the guest run; no process is left on failure.
async fn start(turn: &Turn, dir: &Path, args: &[String]) -> Result<Parts, Fault> {
    let qemu = &turn.host.qemu;
    let mut child = process::spawn(qemu, args, dir)
        .map_err(|error| Fault::io(&format!("starting {}", process::shown(qemu)), &error))?;
    let up = bring_up(turn.epoch, dir, &mut child);
    let up = turn.cancelled.run_until_cancelled(up).await;
    match up.unwrap_or_else(|| Err(overtaken())) {
        Ok(up) => Ok(Parts {
            qmp: up.qmp,
            events: up.events,
            process: up.process,
            serial: Some(up.serial),
            child: Some(child),
        }),
        Err(fault) => {
            if let Err(error) = child.kill().await {
                tracing::warn!(vm = %turn.vm.id, %error, "a failed QEMU cannot be ended");
            }
            Err(fault)
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
    qmp.cont().await.map_err(|e| failed(dir, Some(e)))?;
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
    let reason = process::last_words(dir).or_else(|| error.map(|error| error.to_string()));
    let reason = reason.unwrap_or_else(|| "it ended at once".to_owned());
    Fault::new(
        FaultKind::Hypervisor,
        format!("QEMU did not start: {reason}"),
    )
}
