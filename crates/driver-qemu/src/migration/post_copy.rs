//! What comes of a memory when its machine has gone over to its new host: there the
//! guest runs, and waits for every page that it needs and that is still here.
//!
//! Whether the guest stands still at the source for good is no question any more. It
//! was stopped before QEMU began with the end, so QEMU leaves it so, whatever fails;
//! and [`call_off`](super::send::call_off) is refused by the epoch.

use tokio::time::{Instant, timeout, timeout_at};
use vimana_driver::{Fault, FaultKind, Power};
use vimana_model::migration::Sent;

use super::send::now_ms;
use super::{Journey, Leaving, hypervisor, mirror, on_disk};
use crate::host::{Turn, no_such_vm, not_running, overtaken};
use crate::limits::{KILL_TIMEOUT, MIGRATION_POLL, REST_TIMEOUT, SWITCHOVER_TIMEOUT};
use crate::machine::{self, Machine};
use crate::qmp::{Migration, Moving, Qmp, QmpError};
use crate::record;

/// See [`vimana_driver::HostDriver::switch`].
pub async fn switch(turn: Turn) -> Result<Sent, Fault> {
    let held = turn.vm.held().ok_or_else(no_such_vm)?;
    let leaving = match held.journey {
        Some(Journey::Leaving(leaving)) if turn.epoch > held.record.spec.run_epoch => leaving,
        Some(_) | None => return Err(lost("it has not left")),
    };
    let machine = held.machine.ok_or_else(not_running)?;
    if let Some(switched) = leaving.switched {
        return Ok(switched);
    }
    let Some(sent) = leaving.sent else {
        return Err(lost("its hypervisor has given it up"));
    };
    if !leaving.endpoint.post_copy {
        return Ok(sent);
    }
    let _motion = machine.motion().await;
    let qmp = machine.qmp();
    let handing = turn.cancelled.run_until_cancelled(hand_over(&qmp));
    let moving = handing.await.unwrap_or_else(|| Err(overtaken()))?;
    let disks = mirror::copied(&qmp).await.unwrap_or_default();
    let sent = took(&leaving, sent, &moving, disks);
    let leaving = Leaving {
        switched: Some(sent),
        ..leaving
    };
    turn.vm.change(&turn.host, |held| {
        held.journey = Some(Journey::Leaving(leaving));
    });
    let dir = turn.dir();
    // The guest waits for it, and all that is lost with it are the figures.
    let what = "recording that the machine has gone over";
    on_disk(what, move || record::write_for_now(&dir, &leaving)).await?;
    Ok(sent)
}

/// Returns when the guest may be let run at its target.
async fn hand_over(qmp: &Qmp) -> Result<Moving, Fault> {
    let unswitched = |error: QmpError| hypervisor("the machine was not handed over", &error);
    let deadline = Instant::now() + SWITCHOVER_TIMEOUT;
    let mut events = qmp.events().ok_or_else(|| unswitched(QmpError::Closed))?;
    let (mut begun, mut continued) = (false, false);
    loop {
        let moving = qmp.query_moving().await.map_err(unswitched)?;
        match &moving.state {
            Migration::Completed | Migration::PostCopy => return Ok(moving),
            Migration::Underway if !begun => {
                begun = true;
                qmp.migrate_start_postcopy().await.map_err(unswitched)?;
            }
            // The mirror has ended, or it would not have left.
            Migration::Waiting if !continued => {
                continued = true;
                qmp.migrate_continue().await.map_err(unswitched)?;
            }
            Migration::Setup | Migration::Underway | Migration::Waiting => {
                let heard = machine::heard(&mut events, "MIGRATION");
                let _ = timeout(MIGRATION_POLL, heard).await;
            }
            Migration::Failed { reason } => return Err(lost(reason)),
            Migration::None | Migration::Cancelled => return Err(lost("QEMU cancelled it")),
        }
        if Instant::now() > deadline {
            return Err(lost("the other host takes too long"));
        }
    }
}

/// All of it: what is left to be copied goes once, since the guest changes none of
/// it here.
fn took(leaving: &Leaving, sent: Sent, moving: &Moving, disk_bytes: u64) -> Sent {
    let memory = &moving.memory;
    let all = memory.transferred.saturating_add(memory.remaining);
    let total_ms = now_ms().saturating_sub(leaving.began_ms);
    let since = total_ms.saturating_sub(sent.total_ms);
    Sent {
        transferred_bytes: all.saturating_add(disk_bytes),
        total_ms,
        // QEMU counts from when it was asked, and the guest stood still before.
        downtime_ms: sent.paused_ms.saturating_add(since).max(moving.downtime_ms),
        paused_ms: sent.paused_ms,
    }
}

/// See [`vimana_driver::HostDriver::complete`].
pub async fn complete(turn: Turn) -> Result<(), Fault> {
    let held = turn.held()?;
    let machine = match (held.power, held.machine) {
        (Power::Running, Some(machine)) => machine,
        // It needs no memory any more.
        (Power::Off, _) => return Ok(()),
        (Power::Crashed { reason }, _) => return Err(lost(&reason)),
        _ => return Err(not_running()),
    };
    let coming = async {
        tokio::select! {
            come = rest(&machine) => come,
            () = machine.gone() => Ok(()),
        }
    };
    let come = turn.cancelled.run_until_cancelled(coming).await;
    let come = come.ok_or_else(overtaken)?;
    if machine.is_gone() {
        return match turn.held()?.power {
            Power::Off => Ok(()),
            Power::Crashed { reason } => Err(lost(&reason)),
            Power::Prepared
            | Power::Running
            | Power::Saved
            | Power::Arriving
            | Power::Left
            | Power::Unknown => Err(not_running()),
        };
    }
    if come.is_err() {
        // It stands still for ever, or soon does, and answers nobody.
        machine.process.kill();
        if timeout(KILL_TIMEOUT, machine.gone()).await.is_err() {
            tracing::error!(vm = %turn.vm.id, "a machine without its memory cannot be ended");
        }
    }
    come
}

/// Returns when all of the memory is here, or never comes.
async fn rest(machine: &Machine) -> Result<(), Fault> {
    let mut answered = Instant::now();
    loop {
        let qmp = machine.qmp();
        // A new connection may have taken its place meanwhile.
        let until = Instant::now() + MIGRATION_POLL;
        match qmp.query_migrate().await {
            Ok(Migration::Completed | Migration::None) => return Ok(()),
            Ok(Migration::Failed { reason }) => return Err(lost(&reason)),
            Ok(Migration::Cancelled) => return Err(lost("QEMU cancelled it")),
            Ok(
                Migration::PostCopy | Migration::Setup | Migration::Underway | Migration::Waiting,
            ) => answered = Instant::now(),
            Err(_) if answered.elapsed() > REST_TIMEOUT => {
                return Err(lost("it waits for what does not come"));
            }
            Err(_) => {}
        }
        if let Some(mut events) = qmp.events() {
            let heard = machine::heard(&mut events, "MIGRATION");
            let _ = timeout_at(until, heard).await;
        } else {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn lost(reason: &str) -> Fault {
    let message = format!("the rest of the machine's memory is lost: {reason}");
    Fault::new(FaultKind::Hypervisor, message)
}
