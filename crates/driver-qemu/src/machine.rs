//! A machine that runs, as calls see it: its process, its QMP, its serial line.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use vimana_driver::{Fault, FaultKind, SerialHub};

use crate::guest;
use crate::host::{Host, Vm};
use crate::limits::{
    FINALIZE_POLL, KILL_TIMEOUT, MIGRATION_CANCEL_TIMEOUT, MIGRATION_POLL, QMP_TIMEOUT,
    QUIT_TIMEOUT,
};
use crate::process::Process;
use crate::qmp::{Migration, Qmp, QmpError, RunState};
use crate::supervisor::{self, Supervisor};

pub struct Machine {
    qmp: Mutex<Qmp>,
    pub process: Process,
    pub serial: Arc<SerialHub>,
    intent: Mutex<Intent>,
    /// Held by whoever stops, resets or continues the guest.
    motion: tokio::sync::Mutex<()>,
    /// Held by whoever talks to the guest's agent.
    pub guest: Arc<tokio::sync::Mutex<()>>,
    /// The supervisor is to look at the machine.
    pub look: Notify,
    /// Held while the end is recorded, and while a saved memory is: whichever
    /// comes first decides what the end is.
    pub ending: tokio::sync::Mutex<()>,
    /// A guest that switches itself off is started again.
    restarting: AtomicBool,
    /// How often that happened.
    restarts: watch::Sender<u32>,
    gone: watch::Sender<bool>,
}

/// What the end of the process will mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// We did not ask for it: the guest's doing, or a crash.
    None,
    /// We stopped it.
    Stop,
    /// Its memory is saved.
    Saved,
}

/// What a new supervisor takes over.
pub struct Parts {
    pub qmp: Qmp,
    pub events: broadcast::Receiver<String>,
    pub process: Process,
    /// Where we started it ourselves.
    pub child: Option<Child>,
    /// Absent where the socket could not be reached any more.
    pub serial: Option<UnixStream>,
    /// A restart was under way when its agent died: until then the guest may
    /// switch itself off for it.
    pub restart_until: Option<Instant>,
}

/// The right to stop, reset and continue the guest.
pub struct Motion<'a> {
    machine: &'a Machine,
    _motion: tokio::sync::MutexGuard<'a, ()>,
}

impl Machine {
    /// Marks the VM as running and watches over it from now on.
    pub fn supervise(host: &Arc<Host>, vm: &Arc<Vm>, parts: Parts) {
        let (serial, keys) = SerialHub::new();
        let machine = Arc::new(Self {
            qmp: Mutex::new(parts.qmp),
            process: parts.process,
            serial: Arc::clone(&serial),
            intent: Mutex::new(Intent::None),
            motion: tokio::sync::Mutex::default(),
            guest: Arc::default(),
            look: Notify::new(),
            ending: tokio::sync::Mutex::default(),
            restarting: AtomicBool::new(false),
            restarts: watch::Sender::new(0),
            gone: watch::Sender::new(false),
        });
        vm.change(host, |held| {
            held.power = held.living();
            held.saved = None;
            held.machine = Some(Arc::clone(&machine));
            held.serial = Some(Arc::clone(&serial));
        });
        let pump = parts.serial.map(|line| {
            let pump = supervisor::pump(line, serial, keys);
            AbortOnDropHandle::new(tokio::spawn(pump))
        });
        let dir = host.layout.vm(vm.id);
        guest::go_on(&machine, &dir);
        let supervisor = Supervisor {
            host: Arc::clone(host),
            vm: Arc::clone(vm),
            dir,
            machine,
            child: parts.child,
            end: None,
            retry_at: None,
            restart_until: parts.restart_until,
        };
        tokio::spawn(supervisor.run(parts.events, pump));
    }

    /// The connection as it is now.
    #[must_use]
    pub fn qmp(&self) -> Qmp {
        lock(&self.qmp).clone()
    }

    pub fn set_qmp(&self, qmp: Qmp) {
        *lock(&self.qmp) = qmp;
    }

    /// Waits for the right to move the guest. The supervisor looks at the
    /// machine when it is given back.
    pub async fn motion(&self) -> Motion<'_> {
        Motion {
            machine: self,
            _motion: self.motion.lock().await,
        }
    }

    /// The right to move the guest, unless someone has it, or nobody may
    /// because its memory is saved.
    #[must_use]
    pub fn try_motion(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let motion = self.motion.try_lock().ok();
        motion.filter(|_| self.intent() != Intent::Saved)
    }

    #[must_use]
    pub fn intent(&self) -> Intent {
        *lock(&self.intent)
    }

    /// What was said first stands: a saved memory is not unsaved by a kill.
    pub fn intend(&self, intent: Intent) {
        let mut place = lock(&self.intent);
        if *place == Intent::None {
            *place = intent;
        }
    }

    /// Ends the machine for good: asks QEMU, then kills the process.
    ///
    /// # Errors
    /// Where the process does not end even so.
    pub async fn stop(&self, intent: Intent) -> Result<(), Fault> {
        self.intend(intent);
        self.end_process().await;
        if timeout(KILL_TIMEOUT, self.gone()).await.is_err() {
            let message = "the QEMU process cannot be ended";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        Ok(())
    }

    /// Returns when the end is on record.
    pub async fn gone(&self) {
        // The sender is in `self`: it cannot be dropped meanwhile.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// The end is on record.
    pub fn set_gone(&self) {
        self.gone.send_replace(true);
    }

    pub async fn end_process(&self) {
        let quit = async {
            if self.qmp().quit().await.is_ok() {
                self.process.ended().await;
                return true;
            }
            false
        };
        if !matches!(timeout(QUIT_TIMEOUT, quit).await, Ok(true)) {
            self.process.kill();
        }
    }

    /// Whether a guest that switches itself off is to be started again.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::SeqCst)
    }

    pub fn set_restarting(&self, restarting: bool) {
        self.restarting.store(restarting, Ordering::SeqCst);
    }

    /// Sees restarts from now on.
    #[must_use]
    pub fn restarts(&self) -> watch::Receiver<u32> {
        let mut restarts = self.restarts.subscribe();
        restarts.mark_unchanged();
        restarts
    }
}

impl Drop for Motion<'_> {
    fn drop(&mut self) {
        self.machine.look.notify_one();
    }
}

/// Starts the guest anew, whether it runs, stands still or has switched
/// itself off. The caller has the right to move it.
pub async fn restart(machine: &Machine) -> Result<(), QmpError> {
    let qmp = machine.qmp();
    let mut events = qmp.events().ok_or(QmpError::Closed)?;
    qmp.system_reset().await?;
    // The answer comes before the effect; the event comes after it.
    let _ = timeout(QMP_TIMEOUT, heard(&mut events, "RESET")).await;
    if qmp.query_status().await? != RunState::Running {
        qmp.cont().await?;
    }
    machine.restarts.send_modify(|count| *count += 1);
    Ok(())
}

/// Lets a guest run on whose memory was being written out, or was written
/// out. The caller has the right to move it.
pub async fn run_on(qmp: &Qmp) -> Result<(), QmpError> {
    if let Some(mut events) = qmp.events() {
        qmp.migrate_cancel().await?;
        let ends = moved(qmp, &mut events);
        // Run on in any case: that is what matters.
        let _ = timeout(MIGRATION_CANCEL_TIMEOUT, ends).await;
        let _ = timeout(MIGRATION_CANCEL_TIMEOUT, finalized(qmp)).await;
    }
    qmp.cont().await
}

/// A move of memory that is over has a last step after its last event; until
/// that is through, QEMU refuses to continue the guest.
async fn finalized(qmp: &Qmp) -> Result<(), QmpError> {
    while qmp.query_status().await? == RunState::FinishMigrate {
        sleep(FINALIZE_POLL).await;
    }
    Ok(())
}

/// Waits for the end of a move of memory; `events` were listened to before it
/// began.
pub async fn moved(
    qmp: &Qmp,
    events: &mut broadcast::Receiver<String>,
) -> Result<Migration, QmpError> {
    loop {
        match qmp.query_migrate().await? {
            Migration::Setup | Migration::Underway | Migration::Waiting | Migration::PostCopy => {}
            end @ (Migration::None
            | Migration::Completed
            | Migration::Cancelled
            | Migration::Failed { .. }) => return Ok(end),
        }
        let _ = timeout(MIGRATION_POLL, heard(events, "MIGRATION")).await;
    }
}

/// Returns at an event, or when one may have been missed.
pub async fn heard(events: &mut broadcast::Receiver<String>, wanted: &str) {
    while matches!(events.recv().await, Ok(event) if event != wanted) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
