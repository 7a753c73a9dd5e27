//! From a saved memory to a machine that runs on.
//!
//! Until the guest is let go, nothing was used up: the process goes, the
//! memory stays. Before it is let go that is recorded, and afterwards the
//! memory is removed, because the disk no longer fits to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vimana_driver::{Fault, FaultKind, Power};

use crate::argv::{self, Launch};
use crate::boot::{self, Beginning, has_run, launch};
use crate::host::{Held, Turn, blocking, no_such_vm};
use crate::machine::{Intent, Machine, Parts};
use crate::qmp::{QmpError, RunState};
use crate::record::{self, DiskMark, Ended, Prepared, Saved, Started};
use crate::relocate::root;
use crate::supervisor::{record_end, record_no_process};

/// See [`vimana_driver::HostDriver::load`].
pub async fn load(turn: Turn) -> Result<(), Fault> {
    let mut held = turn.vm.held().ok_or_else(no_such_vm)?;
    if let Some(machine) = &held.machine
        && machine.intent() == Intent::Saved
    {
        machine.stop(Intent::Saved).await?;
        held = turn.vm.held().ok_or_else(no_such_vm)?;
    }
    turn.stays()?;
    let again = held.record.spec.run_epoch == turn.epoch;
    match (&held.power, &held.machine, held.saved) {
        (Power::Running, Some(_), _) if again => Ok(()),
        (Power::Running, Some(machine), _) => renumber(&turn, &held, machine).await,
        (Power::Saved, None, Some(saved)) if turn.epoch > saved.ran_epoch => {
            turn.still_wanted()?;
            root::settle(&turn.host, &turn.vm, None).await?;
            let held = turn.vm.held().ok_or_else(no_such_vm)?;
            resume(&turn, &held, saved).await
        }
        (Power::Saved, _, _) => {
            let message = "the machine was saved in this run; only a later one can go on";
            Err(Fault::new(FaultKind::Hypervisor, message))
        }
        (Power::Off | Power::Crashed { .. }, _, _) if again => has_run(&held),
        (
            Power::Prepared
            | Power::Running
            | Power::Arriving
            | Power::Left
            | Power::Off
            | Power::Crashed { .. }
            | Power::Unknown,
            _,
            _,
        ) => {
            let message = "the machine does not run, and its memory is not saved";
            Err(Fault::new(FaultKind::Hypervisor, message))
        }
    }
}

/// A machine that was not saved after all runs on under a higher epoch.
async fn renumber(turn: &Turn, held: &Held, machine: &Machine) -> Result<(), Fault> {
    let record = renewed(turn, held);
    let (dir, now) = (turn.dir(), Arc::clone(&record));
    // No end is recorded meanwhile, under whichever epoch.
    let _ending = machine.ending.lock().await;
    if machine.is_gone() {
        let message = "the machine has just ended";
        return Err(Fault::new(FaultKind::Hypervisor, message));
    }
    let recorded = blocking(move || {
        let process = record::read::<Started>(&dir).map_err(unrecorded)?;
        record::write(&dir, &*now).map_err(unrecorded)?;
        let Some(mut process) = process else {
            return Ok(());
        };
        process.run_epoch = now.spec.run_epoch;
        record::write(&dir, &process).map_err(unrecorded)
    });
    recorded.await?;
    turn.vm.change(&turn.host, |held| held.record = record);
    Ok(())
}

async fn resume(turn: &Turn, held: &Held, saved: Saved) -> Result<(), Fault> {
    let record = renewed(turn, held);
    let (dir, now) = (turn.dir(), Arc::clone(&record));
    let files = turn.host.volumes.files(turn.vm.id);
    blocking(move || {
        if DiskMark::of(&dir, &files).map_err(unrecorded)? != saved.disk {
            let message = "the disk was written since the memory was saved; they no longer fit";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        boot::make_ready(&dir, &now)
    })
    .await?;
    turn.vm
        .change(&turn.host, |held| held.record = Arc::clone(&record));
    let accelerator = turn.host.capabilities.accelerator;
    let volumes = turn.host.volumes.of(turn.vm.id);
    let args = argv::machine(&Launch {
        incoming: true,
        ..launch(&record.spec, &record.image, accelerator, volumes)
    });
    let parts = match boot::start(turn, &turn.dir(), &args, Beginning::FromMemory).await {
        Ok(parts) => parts,
        Err(fault) => {
            boot::not_started(turn.dir()).await?;
            return Err(fault);
        }
    };
    // Short, and not to be cancelled from here on.
    match let_go(turn, &parts, saved).await {
        Ok(()) => {
            Machine::supervise(&turn.host, &turn.vm, parts);
            forget(turn).await;
            Ok(())
        }
        Err(fault) => {
            back_to_rest(turn, parts, saved).await?;
            Err(fault)
        }
    }
}

/// The record of the run that begins.
fn renewed(turn: &Turn, held: &Held) -> Arc<Prepared> {
    let mut record = Prepared::clone(&held.record);
    record.spec.run_epoch = turn.epoch;
    Arc::new(record)
}

/// First the record that the guest may have run, then the effect.
async fn let_go(turn: &Turn, parts: &Parts, saved: Saved) -> Result<(), Fault> {
    let (dir, ran_epoch) = (turn.dir(), turn.epoch);
    blocking(move || {
        let marked = Saved {
            ran_epoch,
            let_go: true,
            ..saved
        };
        record::write(&dir, &marked).map_err(unrecorded)
    })
    .await?;
    let unloaded = |error: QmpError| {
        let message = format!("the machine does not run on: {error}");
        Fault::new(FaultKind::Hypervisor, message)
    };
    parts.qmp.cont().await.map_err(unloaded)
}

/// The guest was not let go, or QEMU ended at that moment.
async fn back_to_rest(turn: &Turn, mut parts: Parts, saved: Saved) -> Result<(), Fault> {
    let never_ran = matches!(parts.qmp.query_status().await, Ok(RunState::Paused));
    parts.process.kill();
    if let Some(child) = &mut parts.child
        && let Err(error) = child.wait().await
    {
        tracing::warn!(vm = %turn.vm.id, %error, "a failed QEMU cannot be ended");
    }
    let (dir, run_epoch) = (turn.dir(), turn.epoch);
    let files = turn.host.volumes.files(turn.vm.id);
    let rest = blocking(move || {
        let rest = if never_ran {
            unmark(&dir, saved).map(Rest::Saved)
        } else {
            after_end(&dir, &files, run_epoch, saved)
        };
        rest.map_err(unrecorded)
    });
    let rest = rest.await?;
    turn.vm.change(&turn.host, |held| rest.put(held));
    Ok(())
}

/// What is left when a process has ended that had its memory from a file.
#[derive(Debug)]
pub enum Rest {
    Saved(Saved),
    /// Guest code ran and wrote: the memory no longer fits.
    Crashed(Power),
}

impl Rest {
    pub fn put(self, held: &mut Held) {
        match self {
            Self::Saved(saved) => {
                held.power = Power::Saved;
                held.saved = Some(saved);
            }
            Self::Crashed(power) => {
                held.power = power;
                held.saved = None;
            }
        }
    }
}

/// Decides by the disk whether a memory still counts, and records it. Blocks.
pub fn after_end(
    dir: &Path,
    volumes: &[PathBuf],
    run_epoch: u64,
    saved: Saved,
) -> std::io::Result<Rest> {
    if DiskMark::of(dir, volumes)? == saved.disk {
        let ran_epoch = saved.ran_epoch.max(run_epoch);
        return unmark(dir, Saved { ran_epoch, ..saved }).map(Rest::Saved);
    }
    let reason = "the QEMU process ended just after the machine was let run on".to_owned();
    let power = Power::Crashed { reason };
    let ended = Ended {
        run_epoch,
        power: power.clone(),
        stopped: false,
    };
    record_end(dir, &ended)?;
    record::erase_saved(dir)?;
    Ok(Rest::Crashed(power))
}

/// No process has the memory any more. Blocks.
pub fn unmark(dir: &Path, saved: Saved) -> std::io::Result<Saved> {
    let saved = Saved {
        let_go: false,
        ..saved
    };
    record::write(dir, &saved)?;
    record_no_process(dir)?;
    Ok(saved)
}

/// The memory is used up.
async fn forget(turn: &Turn) {
    let dir = turn.dir();
    let erased = blocking(move || record::erase_saved(&dir).map_err(unrecorded));
    if let Err(error) = erased.await {
        // The agent's next start finds it beside a machine that runs or ended.
        tracing::error!(vm = %turn.vm.id, %error, "a memory that was used up is left");
    }
}

fn unrecorded(error: std::io::Error) -> Fault {
    Fault::io("recording that the machine runs on", &error)
}
