//! The ways a machine ends, and the removal of what it leaves.

use std::time::Duration;

use tokio::time::{interval, timeout};
use vimana_driver::{Fault, FaultKind, GuestEnd, Power};

use crate::host::{Turn, blocking, overtaken};
use crate::limits::{POWER_BUTTON_EVERY, QUIT_TIMEOUT};
use crate::machine::{Intent, Machine};
use crate::process;
use crate::snapshot::{self, SnapshotRecord};
use crate::volume;

/// See [`vimana_driver::HostDriver::kill`].
pub async fn kill(turn: Turn) -> Result<(), Fault> {
    match turn.vm.held().and_then(|held| held.machine) {
        Some(machine) => machine.stop(Intent::Stop).await,
        None => Ok(()),
    }
}

/// See [`vimana_driver::HostDriver::shutdown`].
pub async fn shutdown(turn: Turn, grace: Duration) -> Result<GuestEnd, Fault> {
    let Some(machine) = turn.vm.held().and_then(|held| held.machine) else {
        return Ok(GuestEnd::ByGuest);
    };
    tokio::select! {
        biased;
        () = turn.cancelled.cancelled() => return Err(overtaken()),
        _ = timeout(grace, press_power_button(&machine)) => {}
    }
    let ended = turn.vm.held().filter(|held| held.machine.is_none());
    match ended {
        Some(held) if held.power == Power::Off && !held.stopped => Ok(GuestEnd::ByGuest),
        Some(_) => Ok(GuestEnd::Forced),
        None => machine.stop(Intent::Stop).await.map(|()| GuestEnd::Forced),
    }
}

/// Presses the power button again and again until the machine is gone.
pub async fn press_power_button(machine: &Machine) {
    let mut pressing = interval(POWER_BUTTON_EVERY);
    loop {
        tokio::select! {
            () = machine.gone() => return,
            _ = pressing.tick() => {
                // A QEMU that does not answer is switched off after the grace time.
                if let Err(error) = machine.qmp().system_powerdown().await {
                    tracing::debug!(%error, "the power button could not be pressed");
                }
            }
        }
    }
}

/// See [`vimana_driver::HostDriver::clean`].
pub async fn clean(turn: Turn) -> Result<(), Fault> {
    if let Some(machine) = turn.vm.held().and_then(|held| held.machine) {
        // It may just be ending.
        if timeout(QUIT_TIMEOUT / 3, machine.gone()).await.is_err() {
            return Err(still_runs());
        }
    }
    snapshot::forget(&turn).await?;
    let (layout, id) = (turn.host.layout.clone(), turn.vm.id);
    let dir = layout.vm(id);
    // A directory nobody could make sense of may have a process, too.
    let runs = blocking(move || Ok(!process::running(id, &dir).is_empty()));
    if runs.await? {
        return Err(still_runs());
    }
    // Before the directory goes: who finds none knows of no volumes.
    volume::release(&turn.host, id).await?;
    let removed = blocking(move || {
        let removed = layout.remove(&id);
        removed.map_err(|error| Fault::io("removing the machine's files", &error))
    });
    removed.await?;
    turn.host
        .snapshots
        .put(turn.vm.id, SnapshotRecord::default());
    turn.vm.forget();
    Ok(())
}

fn still_runs() -> Fault {
    Fault::new(FaultKind::Hypervisor, "the machine still runs")
}
