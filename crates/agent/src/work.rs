//! Carries out commands: one lane per VM, one command at a time in each.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vimana_driver::{Fault, FaultKind, HostDriver, IncarnationSpec, ShutdownEnd};
use vimana_model::VmId;
use vimana_protocol::agent::{Command, Outcome, Work};

use crate::images::Images;
use crate::ledger::{Arrival, Ledger};
use crate::limits::MAX_WAITING_PER_VM;

/// All commands on this host.
pub struct Workshop {
    driver: Arc<dyn HostDriver>,
    images: Images,
    ledger: Ledger,
    lanes: Mutex<HashMap<VmId, Lane>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The commands for one VM. A lane exists as long as its task does.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Command>,
    running: Option<Running>,
}

struct Running {
    run_epoch: u64,
    overtakes: bool,
    cancel: CancellationToken,
}

impl Workshop {
    pub fn new(
        driver: Arc<dyn HostDriver>,
        images: Images,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            driver,
            images,
            ledger: Ledger::default(),
            lanes: Mutex::default(),
            tasks,
            stop,
        })
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a command in; its outcome comes out of the ledger. A command that
    /// is already known is not run again.
    pub fn submit(self: &Arc<Self>, command: Command) {
        if self.ledger.arrive(command.command) == Arrival::Known {
            return;
        }
        let vm_id = command.vm_id;
        let mut ended = Vec::new();
        let mut lanes = self.lanes();
        let is_new = !lanes.contains_key(&vm_id);
        let lane = lanes.entry(vm_id).or_default();
        if overtakes(&command.work) {
            ended.extend(
                lane.clear_way(command.run_epoch)
                    .map(|old| (old, overtaken())),
            );
        }
        if lane.waiting.len() < MAX_WAITING_PER_VM {
            lane.waiting.push_back(command);
        } else {
            ended.push((command, crowded()));
        }
        drop(lanes);
        for (command, fault) in ended {
            self.ledger.end(command.command, Outcome::Fault { fault });
        }
        if is_new {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.walk(vm_id).await });
        }
    }

    /// A lane's task: its commands in order, until none is left.
    async fn walk(&self, vm_id: VmId) {
        while let Some((command, cancel)) = self.next(vm_id) {
            let outcome = cancel.run_until_cancelled(self.perform(&command)).await;
            if self.stop.is_cancelled() {
                // Not ended but left: the server asks again.
                return;
            }
            let outcome = outcome.unwrap_or_else(|| Outcome::Fault { fault: overtaken() });
            self.ledger.end(command.command, outcome);
        }
    }

    fn next(&self, vm_id: VmId) -> Option<(Command, CancellationToken)> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(&vm_id)?;
        let Some(command) = lane.waiting.pop_front() else {
            lanes.remove(&vm_id);
            return None;
        };
        let cancel = self.stop.child_token();
        lane.running = Some(Running {
            run_epoch: command.run_epoch,
            overtakes: overtakes(&command.work),
            cancel: cancel.clone(),
        });
        Some((command, cancel))
    }

    async fn perform(&self, command: &Command) -> Outcome {
        let started = Instant::now();
        // A driver that panics must not take its VM's lane with it.
        let done = AssertUnwindSafe(self.execute(command)).catch_unwind().await;
        let done = done.unwrap_or_else(|_| {
            Err(Fault::new(
                FaultKind::Host,
                "the agent stumbled over a fault of its own",
            ))
        });
        let (vm_id, epoch, work) = (command.vm_id, command.run_epoch, name(&command.work));
        let ms = started.elapsed().as_millis();
        match done {
            Ok(note) => {
                tracing::info!(%vm_id, epoch, work, ms, note, "a command is done");
                Outcome::Ok { note }
            }
            Err(fault) => {
                tracing::warn!(%vm_id, epoch, work, ms, kind = ?fault.kind, %fault, "a command failed");
                Outcome::Fault { fault }
            }
        }
    }

    async fn execute(&self, command: &Command) -> Result<Option<String>, Fault> {
        let (vm, epoch) = (command.vm_id, command.run_epoch);
        match &command.work {
            Work::Prepare { spec } => self.prepare(vm, epoch, spec).await.map(|()| None),
            Work::Boot => self.driver.boot(vm, epoch).await.map(|()| None),
            Work::Shutdown { grace_ms } => {
                let grace = Duration::from_millis(*grace_ms);
                Ok(match self.driver.shutdown(vm, epoch, grace).await? {
                    ShutdownEnd::ByGuest => None,
                    ShutdownEnd::Forced => {
                        Some("the guest did not react; it was switched off".to_owned())
                    }
                })
            }
            Work::Kill => self.driver.kill(vm, epoch).await.map(|()| None),
            Work::Clean => self.driver.clean(vm, epoch).await.map(|()| None),
        }
    }

    async fn prepare(&self, vm: VmId, epoch: u64, spec: &IncarnationSpec) -> Result<(), Fault> {
        if (spec.vm_id, spec.run_epoch) != (vm, epoch) {
            let message = "the command and its specification name different machines";
            return Err(Fault::new(FaultKind::Host, message));
        }
        let image = self.images.get(&spec.image).await?;
        self.driver.prepare(spec, &image).await
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<VmId, Lane>> {
        // Nothing panics while the lanes are half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Cancels what stands in the way of a kill or clean of `run_epoch`: work
    /// of that run or an earlier one, except kills and cleans. Gives what had
    /// not begun.
    fn clear_way(&mut self, run_epoch: u64) -> impl Iterator<Item = Command> {
        if let Some(running) = &self.running
            && !running.overtakes
            && running.run_epoch <= run_epoch
        {
            running.cancel.cancel();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (overtaken, kept) = waiting
            .into_iter()
            .partition::<VecDeque<_>, _>(|w| !overtakes(&w.work) && w.run_epoch <= run_epoch);
        self.waiting = kept;
        overtaken.into_iter()
    }
}

fn overtakes(work: &Work) -> bool {
    match work {
        Work::Kill | Work::Clean => true,
        Work::Prepare { .. } | Work::Boot | Work::Shutdown { .. } => false,
    }
}

fn name(work: &Work) -> &'static str {
    match work {
        Work::Prepare { .. } => "prepare",
        Work::Boot => "boot",
        Work::Shutdown { .. } => "shutdown",
        Work::Kill => "kill",
        Work::Clean => "clean",
    }
}

fn overtaken() -> Fault {
    Fault::new(FaultKind::Cancelled, "a later command overtook this one")
}

fn crowded() -> Fault {
    let message = format!("{MAX_WAITING_PER_VM} commands already wait for this VM");
    Fault::new(FaultKind::Host, message)
}
