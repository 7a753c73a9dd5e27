//! The ways a machine ends, and the removal of what it leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, timeout};
use vimana_driver::{DiskPlan, Fault, FaultKind, GuestEnd, Power};

use crate::host::{Turn, blocking, overtaken};
use crate::limits::{POWER_BUTTON_EVERY, QUIT_TIMEOUT};
use crate::machine::{Intent, Machine};
use crate::prepare;
use crate::process;
use crate::record::{self, Prepared};
use crate::relocate::root;
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
    is_gone(&turn).await?;
    snapshot::forget(&turn).await?;
    // Before the directory goes: who finds none knows of no volumes.
    volume::release(&turn.host, turn.vm.id).await?;
    remove(&turn, Goes::Everywhere).await
}

/// See [`vimana_driver::HostDriver::leave`].
pub async fn leave(turn: Turn, disks: DiskPlan) -> Result<(), Fault> {
    is_gone(&turn).await?;
    // Of a disk that another host has now, half of a copy is not left here.
    root::settle(&turn.host, &turn.vm, None).await?;
    volume::leave(&turn.host, turn.vm.id, &disks).await?;
    let disk = match disks.shares_root {
        true => Goes::Nowhere,
        false => Goes::FromHere,
    };
    remove(&turn, disk).await
}

/// An error where a process has the machine's files.
async fn is_gone(turn: &Turn) -> Result<(), Fault> {
    if let Some(machine) = turn.vm.held().and_then(|held| held.machine) {
        // It may just be ending.
        if timeout(QUIT_TIMEOUT / 3, machine.gone()).await.is_err() {
            return Err(still_runs());
        }
    }
    let (dir, id) = (turn.dir(), turn.vm.id);
    // A directory nobody could make sense of may have a process, too.
    let runs = blocking(move || Ok(!process::running(id, &dir).is_empty()));
    if runs.await? {
        return Err(still_runs());
    }
    Ok(())
}

/// What goes of a machine's own disk in further datastores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    Nowhere,
    /// Where this host has it: another one may have it in any of the others now.
    FromHere,
    /// The machine is gone.
    Everywhere,
}

/// Removes the machine's files, and what is to go of its own disk elsewhere.
async fn remove(turn: &Turn, disk: Goes) -> Result<(), Fault> {
    let (host, id) = (Arc::clone(&turn.host), turn.vm.id);
    let removed = blocking(move || {
        // Before the directory goes: who finds none knows of no disk.
        let homes = match disk {
            Goes::Nowhere => Ok(()),
            Goes::FromHere => match record::read::<Prepared>(&host.layout.vm(id)) {
                Ok(Some(is)) => prepare::remove_home(&host, id, &is.spec.datastore),
                // Nothing is known to be here.
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            Goes::Everywhere => prepare::remove_homes(&host, id),
        };
        let removed = homes.and_then(|()| host.layout.remove(&id));
        removed.map_err(|error| Fault::io("removing the machine's files", &error))
    });
    removed.await?;
    let forgotten = SnapshotRecord::default();
    turn.host.snapshots.put(turn.vm.id, forgotten);
    turn.vm.forget();
    Ok(())
}

fn still_runs() -> Fault {
    Fault::new(FaultKind::Hypervisor, "the machine still runs")
}
