//! Reboot and reset: the process stays, the guest starts anew.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use vimana_driver::{Fault, FaultKind, GuestEnd};

use crate::host::{Turn, blocking, overtaken};
use crate::machine::{self, Machine};
use crate::record::{self, Restarting};
use crate::stop::press_power_button;

/// See [`vimana_driver::HostDriver::reboot`].
pub async fn reboot(turn: Turn, grace: Duration) -> Result<GuestEnd, Fault> {
    let machine = turn.machine()?;
    turn.still_wanted()?;
    begin(&turn).await?;
    // A guest that is asked to restart by the power button switches itself
    // off; the supervisor starts it again.
    let mut restarts = machine.restarts();
    machine.set_restarting(true);
    let restarted = async {
        tokio::select! {
            biased;
            // The sender is in the machine: it cannot be dropped meanwhile.
            _ = restarts.changed() => true,
            () = press_power_button(&machine) => false,
        }
    };
    let ended = tokio::select! {
        biased;
        () = turn.cancelled.cancelled() => Err(overtaken()),
        restarted = timeout(grace, restarted) => match restarted {
            Ok(true) => Ok(GuestEnd::ByGuest),
            Ok(false) => Err(ended_meanwhile()),
            Err(_) => restart(&machine).await.map(|()| GuestEnd::Forced),
        },
    };
    machine.set_restarting(false);
    finish(&turn).await;
    ended
}

/// See [`vimana_driver::HostDriver::reset`].
pub async fn reset(turn: Turn) -> Result<(), Fault> {
    let machine = turn.machine()?;
    turn.still_wanted()?;
    begin(&turn).await?;
    let done = restart(&machine).await;
    finish(&turn).await;
    done
}

async fn restart(machine: &Machine) -> Result<(), Fault> {
    let motion = machine.motion().await;
    let done = machine::restart(machine).await;
    drop(motion);
    done.map_err(|error| {
        let message = format!("the machine was not reset: {error}");
        Fault::new(FaultKind::Hypervisor, message)
    })
}

/// Before the effect its record: a machine that stands still in between is
/// one that runs.
async fn begin(turn: &Turn) -> Result<(), Fault> {
    let (dir, run_epoch) = (turn.dir(), turn.epoch);
    blocking(move || {
        let written = record::write(&dir, &Restarting { run_epoch });
        written.map_err(|error| Fault::io("recording the restart", &error))
    })
    .await
}

async fn finish(turn: &Turn) {
    let dir: PathBuf = turn.dir();
    let erased = blocking(move || {
        let erased = record::erase::<Restarting>(&dir);
        erased.map_err(|error| Fault::io("recording the restart", &error))
    });
    if let Err(error) = erased.await {
        tracing::warn!(vm = %turn.vm.id, %error, "the end of a restart is not recorded");
    }
}

fn ended_meanwhile() -> Fault {
    let message = "the machine ended while it was asked to restart";
    Fault::new(FaultKind::Hypervisor, message)
}
