//! Finding out, at the agent's start, what its predecessor left running.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;
use vimana_driver::{Fault, Power};
use vimana_model::VmId;

use crate::argv::{QMP_SOCKET, SERIAL_SOCKET};
use crate::host::{Held, Host, Vm, blocking};
use crate::limits::{ADOPT_TIMEOUT, KILL_TIMEOUT};
use crate::machine::{Machine, Parts, record_end};
use crate::process::{self, Process};
use crate::qmp::{Qmp, QmpError, RunState, connect_in};
use crate::record::{self, Ended, Entry, Layout, Prepared, Started};

/// What a VM's records say.
enum Found {
    /// Nothing runs: prepared, or ended in a known way.
    AtRest(Held),
    /// Its process may live.
    Started(Held, Started),
}

/// Takes in every VM of the state directory. One that cannot be made sense
/// of is left alone and logged.
pub async fn adopt(host: &Arc<Host>) -> Result<(), Fault> {
    let layout = host.layout.clone();
    let ids = blocking(move || {
        survey(&layout).map_err(|error| Fault::io("reading the state directory", &error))
    });
    let mut adoptions = JoinSet::new();
    for id in ids.await? {
        let host = Arc::clone(host);
        adoptions.spawn(async move {
            if let Err(error) = adopt_vm(&host, id).await {
                tracing::error!(vm = %id, %error, "a VM on this host is left alone: its records make no sense");
            }
        });
    }
    adoptions.join_all().await;
    Ok(())
}

/// The VMs; what is half made or half removed goes. Blocks.
fn survey(layout: &Layout) -> std::io::Result<Vec<VmId>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(layout.state())? {
        let entry = entry?;
        match entry.file_name().to_str().map(Layout::entry) {
            Some(Entry::Vm(id)) => ids.push(id),
            Some(Entry::Debris) => std::fs::remove_dir_all(entry.path())?,
            Some(Entry::Other) | None => {}
        }
    }
    Ok(ids)
}

async fn adopt_vm(host: &Arc<Host>, id: VmId) -> Result<(), Fault> {
    let dir = host.layout.vm(id);
    let place = dir.clone();
    let found =
        blocking(move || look(&place).map_err(|error| Fault::io("reading the records", &error)));
    let vm = host.vm(id);
    match found.await? {
        None => {
            tracing::error!(vm = %id, "a VM on this host is left alone: it has no record");
        }
        Some(Found::AtRest(held)) => vm.hold(host, held),
        Some(Found::Started(held, started)) => {
            vm.hold(host, held);
            readopt(host, &vm, &dir, started).await?;
        }
    }
    Ok(())
}

/// Blocks.
fn look(dir: &Path) -> std::io::Result<Option<Found>> {
    let Some(record) = record::read::<Prepared>(dir)? else {
        return Ok(None);
    };
    let epoch = record.spec.run_epoch;
    let mut held = Held::prepared(Arc::new(record));
    let started = record::read::<Started>(dir)?.filter(|s| s.run_epoch == epoch);
    let ended = record::read::<Ended>(dir)?.filter(|e| e.run_epoch == epoch);
    Ok(Some(match (ended, started) {
        (Some(ended), _) => {
            held.power = ended.power;
            held.stopped = ended.stopped;
            Found::AtRest(held)
        }
        (None, Some(started)) => Found::Started(held, started),
        (None, None) => Found::AtRest(held),
    }))
}

/// A VM whose start is on record and whose end is not.
async fn readopt(
    host: &Arc<Host>,
    vm: &Arc<Vm>,
    dir: &Path,
    started: Started,
) -> Result<(), Fault> {
    let Some(identity) = started.process else {
        // The start was interrupted before its process was recorded: no
        // guest code ran, and a process waits for nobody.
        for identity in process::running(vm.id, dir) {
            if let Some(process) = Process::find(&identity) {
                discard(&process).await;
            }
        }
        return never_ran(dir).await;
    };
    let Some(process) = Process::find(&identity) else {
        let reason = "the QEMU process ended while no agent watched it".to_owned();
        let power = Power::Crashed { reason };
        return end(host, vm, dir, started.run_epoch, power).await;
    };
    let (qmp, events) = match timeout(ADOPT_TIMEOUT, reconnect(dir)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(_)) | Err(_) => {
            tracing::error!(vm = %vm.id, "a QEMU process lives but does not answer");
            Qmp::closed()
        }
    };
    if matches!(qmp.query_status().await, Ok(RunState::Prelaunch)) {
        discard(&process).await;
        return never_ran(dir).await;
    }
    let parts = Parts {
        qmp,
        events,
        process,
        child: None,
        serial: connect_in(dir, SERIAL_SOCKET).await.ok(),
    };
    Machine::supervise(host, vm, parts);
    Ok(())
}

async fn reconnect(
    dir: &Path,
) -> Result<(Qmp, tokio::sync::broadcast::Receiver<String>), QmpError> {
    let stream = connect_in(dir, QMP_SOCKET).await;
    Qmp::connect(stream.map_err(|_| QmpError::Closed)?).await
}

async fn discard(process: &Process) {
    process.kill();
    let _ = timeout(KILL_TIMEOUT, process.ended()).await;
}

/// Back to prepared.
async fn never_ran(dir: &Path) -> Result<(), Fault> {
    let dir = dir.to_owned();
    blocking(move || {
        let erased = record::erase::<Started>(&dir);
        erased.map_err(|error| Fault::io("recording the interrupted start", &error))
    })
    .await
}

async fn end(
    host: &Arc<Host>,
    vm: &Arc<Vm>,
    dir: &Path,
    run_epoch: u64,
    power: Power,
) -> Result<(), Fault> {
    let ended = Ended {
        run_epoch,
        power: power.clone(),
        stopped: false,
    };
    let dir = dir.to_owned();
    blocking(move || {
        record_end(&dir, &ended).map_err(|error| Fault::io("recording the end", &error))
    })
    .await?;
    if let Some(mut held) = vm.held() {
        held.power = power;
        vm.hold(host, held);
    }
    Ok(())
}
