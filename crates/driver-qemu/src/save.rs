//! A machine's memory on the host's disk: writing it there.
//!
//! The guest is stopped, QEMU writes its memory into `memory.part`, the file
//! becomes `memory`, and `saved.json` makes it count; only then the process
//! ends. Until that record is on the disk everything can be taken back, and
//! from then on nothing lets the process run on. Whoever finds a machine in
//! between knows by the record which of the two it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vimana_driver::{Fault, FaultKind, Power};

use crate::argv::DISK;
use crate::guest;
use crate::host::{Turn, blocking, not_running, overtaken};
use crate::machine::{self, Intent, Machine};
use crate::prepare::enough_room_in;
use crate::qmp::{Migration, Passage, Qmp, QmpError, RunState};
use crate::record::{self, DiskMark, MEMORY, MEMORY_PART, Saved, home, in_home};

/// The first QEMU that moves memory to and from a file.
pub const SAVING_QEMU: (u32, u32) = (8, 2);

/// See [`vimana_driver::HostDriver::save`].
pub async fn save(turn: Turn) -> Result<(), Fault> {
    if turn.held()?.power == Power::Saved {
        return Ok(());
    }
    turn.stays()?;
    let machine = turn.held()?.machine.ok_or_else(not_running)?;
    if machine.intent() == Intent::Saved {
        // All that is missing is the end of the process.
        return machine.stop(Intent::Saved).await;
    }
    if turn.host.version < SAVING_QEMU {
        let (major, minor) = SAVING_QEMU;
        let message = format!("saving a memory needs QEMU {major}.{minor} or later on the host");
        return Err(Fault::new(FaultKind::Unsupported, message));
    }
    turn.still_wanted()?;
    let (host, dir) = (Arc::clone(&turn.host), turn.dir());
    blocking(move || {
        enough_room_in(&host, &home(&dir))?;
        record::remove_file(&home(&dir).join(MEMORY_PART)).map_err(unwritten)
    })
    .await?;
    guest::goes_on(&machine, &turn.dir()).await?;
    let motion = machine.motion().await;
    let file = in_home(&turn.dir(), MEMORY_PART);
    let written = turn
        .cancelled
        .run_until_cancelled(write_out(&machine, &file));
    let written = written.await.unwrap_or_else(|| Err(overtaken()));
    let kept = match written {
        Ok(()) => keep(&turn, &machine).await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = kept {
        take_back(&turn, &machine).await;
        return Err(fault);
    }
    // Nothing can take it back any more, and nobody gets to move the guest.
    let ended = machine.stop(Intent::Saved).await;
    drop(motion);
    ended
}

/// Stops the guest and has QEMU write its memory.
async fn write_out(machine: &Machine, file: &str) -> Result<(), Fault> {
    let qmp = machine.qmp();
    if stand_still(&qmp).await.map_err(unanswered)? == RunState::Shutdown {
        let message = "the guest has just switched itself off";
        return Err(Fault::new(FaultKind::Hypervisor, message));
    }
    let mut events = qmp.events().ok_or(QmpError::Closed).map_err(unanswered)?;
    qmp.migrate(file).await.map_err(unanswered)?;
    match machine::moved(&qmp, &mut events).await {
        Ok(Migration::Completed) => Ok(()),
        Ok(Migration::Failed { reason }) => Err(refused(&reason)),
        Ok(
            Migration::None
            | Migration::Setup
            | Migration::Underway
            | Migration::Waiting
            | Migration::PostCopy
            | Migration::Cancelled,
        ) => Err(refused("QEMU cancelled it")),
        Err(error) => Err(unanswered(error)),
    }
}

/// Stops the guest; says how it stands.
async fn stand_still(qmp: &Qmp) -> Result<RunState, QmpError> {
    match qmp.query_status().await? {
        // A save before this one was interrupted, and nobody has let the
        // machine run on yet. QEMU does not write a memory twice.
        RunState::Paused | RunState::FinishMigrate | RunState::Postmigrate | RunState::Other => {
            machine::run_on(qmp).await?
        }
        RunState::Prelaunch
        | RunState::Inmigrate
        | RunState::Running
        | RunState::Shutdown
        | RunState::IoError
        | RunState::InternalError => {}
    }
    qmp.prepare_migration(Passage::File).await?;
    qmp.stop().await?;
    qmp.query_status().await
}

/// Makes the memory that was written count.
async fn keep(turn: &Turn, machine: &Machine) -> Result<(), Fault> {
    // A machine whose end is on record cannot be saved any more, and one that
    // is saved here has no other end.
    let _ending = machine.ending.lock().await;
    if machine.is_gone() {
        return Err(unanswered(QmpError::Closed));
    }
    let (dir, ran_epoch) = (turn.dir(), turn.epoch);
    let files = turn.host.volumes.files(turn.vm.id);
    let saved = blocking(move || record_saved(&dir, &files, ran_epoch).map_err(unwritten)).await?;
    machine.intend(Intent::Saved);
    turn.vm.change(&turn.host, |held| held.saved = Some(saved));
    Ok(())
}

/// Blocks.
fn record_saved(dir: &Path, volumes: &[PathBuf], ran_epoch: u64) -> std::io::Result<Saved> {
    // QEMU has flushed both; that they are on the disk is for us to know.
    let home = home(dir);
    for name in [MEMORY_PART, DISK] {
        File::open(home.join(name))?.sync_all()?;
    }
    for volume in volumes {
        File::open(volume)?.sync_all()?;
    }
    let saved = Saved {
        ran_epoch,
        let_go: false,
        disk: DiskMark::of(dir, volumes)?,
    };
    std::fs::rename(home.join(MEMORY_PART), home.join(MEMORY))?;
    record::sync(&home)?;
    record::write(dir, &saved)?;
    Ok(saved)
}

/// The machine runs on, and nothing of its memory is left.
async fn take_back(turn: &Turn, machine: &Machine) {
    let dir = turn.dir();
    let removed = blocking(move || {
        record::remove_file(&home(&dir).join(MEMORY_PART))
            .and_then(|()| record::erase_saved(&dir))
            .map_err(unwritten)
    });
    if let Err(error) = removed.await {
        tracing::error!(vm = %turn.vm.id, %error, "a memory that was not saved is left");
    }
    if !machine.is_gone()
        && let Err(error) = machine::run_on(&machine.qmp()).await
    {
        // The supervisor tries again as soon as QEMU answers.
        tracing::warn!(vm = %turn.vm.id, %error, "a machine that was not saved does not run on");
    }
}

fn unwritten(error: std::io::Error) -> Fault {
    Fault::io("saving the memory", &error)
}

fn unanswered(error: QmpError) -> Fault {
    let message = format!("the memory was not saved: {error}");
    Fault::new(FaultKind::Hypervisor, message)
}

fn refused(reason: &str) -> Fault {
    // QEMU has no other way of saying it.
    if reason.contains("No space left") || reason.contains("quota exceeded") {
        let message = "saving the memory: the host's disk is full";
        return Fault::new(FaultKind::NoSpace, message);
    }
    let message = format!("the memory was not saved: {reason}");
    Fault::new(FaultKind::Hypervisor, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_told_apart_from_other_refusals() {
        let full = refused("Unable to write to file: No space left on device");
        assert_eq!(full.kind, FaultKind::NoSpace);
        assert_eq!(refused("Bad luck").kind, FaultKind::Hypervisor);
    }
}
