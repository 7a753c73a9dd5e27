//! What the parts of the driver share: the host, its VMs, and whose turn it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedMutexGuard, broadcast, watch};
use tokio_util::sync::CancellationToken;
use vimana_driver::{Capabilities, Fault, FaultKind, Observed, Power, SerialHub};
use vimana_model::VmId;

use crate::config::QemuConfig;
use crate::machine::{Intent, Machine};
use crate::migration::Journey;
use crate::record::{Layout, Prepared, Saved};
use crate::snapshot::Snapshots;
use crate::volume::Volumes;

/// One host's state directory and what runs in it.
pub struct Host {
    pub config: QemuConfig,
    pub layout: Layout,
    /// The QEMU binary, found.
    pub qemu: PathBuf,
    /// Its major and minor number.
    pub version: (u32, u32),
    pub capabilities: Capabilities,
    pub changes: broadcast::Sender<Observed>,
    /// The driver is being dropped; machines live on.
    pub closing: CancellationToken,
    /// Includes VMs that were cleaned: their epochs are not forgotten.
    pub vms: Mutex<BTreeMap<VmId, Arc<Vm>>>,
    pub volumes: Volumes,
    pub snapshots: Snapshots,
    /// Which of the ports that machines come by is tried first.
    pub next_port: AtomicUsize,
    /// Held until everything that uses the directory has ended.
    pub _lock: File,
}

/// A VM this host holds or held.
pub struct Vm {
    pub id: VmId,
    cell: Mutex<Cell>,
    /// One call at a time.
    line: Line,
    /// Cancels the calls that wait or run when a kill or clean overtakes them.
    calls: Mutex<CancellationToken>,
}

struct Cell {
    highest_epoch: u64,
    held: Option<Held>,
}

/// An Incarnation on this host.
#[derive(Clone)]
pub struct Held {
    pub record: Arc<Prepared>,
    pub power: Power,
    /// Ended by us: this run does not start again.
    pub stopped: bool,
    /// There is one while the memory is saved.
    pub saved: Option<Saved>,
    /// It comes from another host, or goes there.
    pub journey: Option<Journey>,
    /// There is one while a process lives.
    pub machine: Option<Arc<Machine>>,
    /// Outlives the machine, for its last words.
    pub serial: Option<Arc<SerialHub>>,
}

/// Who works on something: one at a time, in the order in which they came.
#[derive(Default)]
pub struct Line {
    work: Arc<tokio::sync::Mutex<()>>,
    waiting: watch::Sender<usize>,
}

/// The right to work on it, until dropped.
pub type Place = OwnedMutexGuard<()>;

impl Line {
    pub async fn wait(&self) -> Place {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _counted = Counted(&self.waiting);
        self.wait_politely().await
    }

    /// The same for work that makes way for all other: it is to end when
    /// [`Line::is_wanted`] returns.
    pub async fn wait_politely(&self) -> Place {
        Arc::clone(&self.work).lock_owned().await
    }

    /// Returns when somebody waits who is not polite.
    pub async fn is_wanted(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender is ours: it is not gone before we are.
        let _ = waiting.wait_for(|waiting| *waiting > 0).await;
    }
}

struct Counted<'a>(&'a watch::Sender<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0
            .send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

/// How a call gets its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Waits for what runs; cancelled when its caller gives up.
    Queue,
    /// Waits like that, after it has cancelled what waits and runs for a
    /// lower epoch.
    TakeBack,
    /// Cancels what waits and runs; goes to its end even without its caller.
    Overtake,
}

/// A call whose turn it is: no other works on the VM.
pub struct Turn {
    pub host: Arc<Host>,
    pub vm: Arc<Vm>,
    pub epoch: u64,
    pub cancelled: CancellationToken,
}

impl Host {
    /// The VM, known or not.
    pub fn vm(&self, id: VmId) -> Arc<Vm> {
        let mut vms = lock(&self.vms);
        let vm = vms
            .entry(id)
            .or_insert_with(|| Arc::new(Vm::new(id, &self.closing)));
        Arc::clone(vm)
    }

    /// The VM, where a call named it before.
    pub fn known(&self, id: VmId) -> Option<Arc<Vm>> {
        lock(&self.vms).get(&id).map(Arc::clone)
    }

    pub fn all(&self) -> Vec<Arc<Vm>> {
        lock(&self.vms).values().map(Arc::clone).collect()
    }

    /// Does `work` when it is this call's turn, in a task of its own: a caller
    /// that goes away leaves nothing half done.
    pub async fn in_turn<T, F>(
        self: &Arc<Self>,
        id: VmId,
        epoch: u64,
        manner: Manner,
        work: impl FnOnce(Turn) -> F + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let vm = self.vm(id);
        let before = vm.admit(epoch)?;
        if manner == Manner::Overtake || (manner == Manner::TakeBack && before < epoch) {
            let fresh = self.closing.child_token();
            std::mem::replace(&mut *lock(&vm.calls), fresh).cancel();
        }
        let cancelled = match manner {
            Manner::Queue | Manner::TakeBack => lock(&vm.calls).child_token(),
            Manner::Overtake => CancellationToken::new(),
        };
        let _gives_up = (manner != Manner::Overtake).then(|| cancelled.clone().drop_guard());
        let turn = Turn {
            host: Arc::clone(self),
            vm: Arc::clone(&vm),
            epoch,
            cancelled: cancelled.clone(),
        };
        let task = tokio::spawn(async move {
            let turn_came = cancelled.run_until_cancelled(vm.line.wait()).await;
            let _working = turn_came.ok_or_else(overtaken)?;
            // A later epoch may have come by while this call waited.
            vm.admit(epoch)?;
            work(turn).await
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a call of the QEMU driver broke");
            Err(Fault::new(
                FaultKind::Host,
                "the driver met an internal error",
            ))
        })
    }

    /// Tells subscribers; nobody listening is fine.
    fn tell(&self, observed: Observed) {
        let _ = self.changes.send(observed);
    }
}

impl Vm {
    fn new(id: VmId, closing: &CancellationToken) -> Self {
        Self {
            id,
            cell: Mutex::new(Cell {
                highest_epoch: 0,
                held: None,
            }),
            line: Line::default(),
            calls: Mutex::new(closing.child_token()),
        }
    }

    /// Refuses what is out of date, and remembers the highest epoch; says
    /// which one was that before.
    fn admit(&self, epoch: u64) -> Result<u64, Fault> {
        let mut cell = lock(&self.cell);
        if epoch < cell.highest_epoch {
            let message = "a later run of the machine is known";
            return Err(Fault::new(FaultKind::Superseded, message));
        }
        Ok(std::mem::replace(&mut cell.highest_epoch, epoch))
    }

    /// Waits until no call works on it.
    pub async fn at_rest(&self) -> Place {
        self.line.wait().await
    }

    /// Whose turn it is.
    pub const fn line(&self) -> &Line {
        &self.line
    }

    pub fn held(&self) -> Option<Held> {
        lock(&self.cell).held.clone()
    }

    pub fn observed(&self) -> Option<Observed> {
        let cell = lock(&self.cell);
        Some(observed(self.id, cell.held.as_ref()?))
    }

    /// Puts a state in the place of the last one and tells if power changed.
    pub fn hold(&self, host: &Host, held: Held) {
        self.put(host, |place| *place = Some(held));
    }

    /// Changes the state, where there is one, and tells if power changed.
    pub fn change(&self, host: &Host, change: impl FnOnce(&mut Held)) {
        self.put(host, |place| {
            if let Some(held) = place {
                change(held);
            }
        });
    }

    fn put(&self, host: &Host, put: impl FnOnce(&mut Option<Held>)) {
        let mut cell = lock(&self.cell);
        let before = cell.held.as_ref().map(|held| observed(self.id, held));
        put(&mut cell.held);
        let now = cell.held.as_ref().map(|held| observed(self.id, held));
        if let Some(now) = now
            && before.as_ref() != Some(&now)
        {
            cell.highest_epoch = cell.highest_epoch.max(now.run_epoch);
            // Told under the lock: in the order in which it happened.
            host.tell(now);
        }
    }

    /// Nothing of it is left on this host.
    pub fn forget(&self) {
        lock(&self.cell).held = None;
    }
}

impl Held {
    /// Freshly prepared.
    #[must_use]
    pub fn prepared(record: Arc<Prepared>) -> Self {
        Self {
            record,
            power: Power::Prepared,
            stopped: false,
            saved: None,
            journey: None,
            machine: None,
            serial: None,
        }
    }

    /// It was to come from another host, and never ran here.
    #[must_use]
    pub const fn is_arriving(&self) -> bool {
        matches!(self.journey, Some(Journey::Arriving(_)))
    }

    fn stays(&self) -> Result<(), Fault> {
        if self.journey.is_none() {
            return Ok(());
        }
        let message = "the machine is on its way from one host to another";
        Err(Fault::new(FaultKind::Conflict, message))
    }

    /// How a machine is whose process lives.
    #[must_use]
    pub const fn living(&self) -> Power {
        match &self.journey {
            Some(Journey::Arriving(_)) => Power::Arriving,
            Some(Journey::Leaving(leaving)) if leaving.is_gone() => Power::Left,
            Some(Journey::Leaving(_)) | None => Power::Running,
        }
    }
}

impl Turn {
    /// The Incarnation this call is about.
    pub fn held(&self) -> Result<Held, Fault> {
        let held = self.vm.held();
        held.filter(|held| held.record.spec.run_epoch == self.epoch)
            .ok_or_else(no_such_vm)
    }

    /// The Incarnation whose disks this call is about: also one of an earlier
    /// run that has ended, where a later one was to begin and never did.
    pub fn disks(&self) -> Result<Held, Fault> {
        let held = self.vm.held();
        let ours = |held: &Held| {
            let run = held.record.spec.run_epoch;
            run == self.epoch || (run < self.epoch && held.machine.is_none())
        };
        let held = held.filter(ours).ok_or_else(no_such_vm)?;
        held.stays()?;
        Ok(held)
    }

    /// An error where it is between two hosts: nothing but its journey's end is
    /// to be done about it.
    pub fn stays(&self) -> Result<(), Fault> {
        self.vm.held().map_or(Ok(()), |held| held.stays())
    }

    /// Its machine, where it runs. One whose memory is saved only waits for
    /// its end.
    pub fn machine(&self) -> Result<Arc<Machine>, Fault> {
        let held = self.held()?;
        held.stays()?;
        let machine = held
            .machine
            .filter(|machine| machine.intent() != Intent::Saved);
        machine.ok_or_else(not_running)
    }

    /// The VM's directory.
    pub fn dir(&self) -> PathBuf {
        self.host.layout.vm(self.vm.id)
    }

    /// An error where a later call has overtaken this one.
    pub fn still_wanted(&self) -> Result<(), Fault> {
        if self.cancelled.is_cancelled() {
            return Err(overtaken());
        }
        Ok(())
    }
}

#[must_use]
pub fn overtaken() -> Fault {
    Fault::new(FaultKind::Cancelled, "a later call overtook this one")
}

#[must_use]
pub fn not_running() -> Fault {
    Fault::new(FaultKind::Hypervisor, "the machine does not run")
}

#[must_use]
pub fn no_such_vm() -> Fault {
    let message = "the host does not hold this run of the machine";
    Fault::new(FaultKind::NoSuchVm, message)
}

/// Runs something that blocks off the async threads. It goes to its end.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let broke = |_| Fault::new(FaultKind::Host, "the driver met an internal error");
    tokio::task::spawn_blocking(work).await.map_err(broke)?
}

fn observed(vm_id: VmId, held: &Held) -> Observed {
    Observed {
        vm_id,
        run_epoch: held.record.spec.run_epoch,
        power: held.power.clone(),
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
