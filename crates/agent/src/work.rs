//! Carries out commands: one lane per VM, one command at a time in each.

mod carry_out;
mod send;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use vimana_driver::{DiskPlan, Fault, FaultKind, HostDriver};
use vimana_model::{VmId, VolumeId};
use vimana_protocol::agent::{Command, Outcome, Work};

use crate::ledger::{Arrival, Ledger, Written};
use crate::limits::{MAX_BUSY_VMS, MAX_WAITING_PER_VM};
use crate::tasks::Spawner;
use crate::{Datastore, ImageSource};
use send::Sending;

/// All commands on this host.
pub struct Workshop {
    driver: Arc<dyn HostDriver>,
    images: Arc<dyn ImageSource>,
    datastore: Arc<dyn Datastore>,
    ledger: Arc<Ledger>,
    lanes: Mutex<BTreeMap<VmId, Lane>>,
    sending: Sending,
    tasks: Spawner,
    stop: CancellationToken,
}

/// The jobs for one VM. A lane exists as long as its task does.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    running: Option<Running>,
}

struct Job {
    run_epoch: u64,
    task: Task,
    /// It has no effect before its record is written.
    written: Written,
}

enum Task {
    Command(Command),
    /// A machine that is not recorded shall go. `known` is the highest run
    /// that the ledger has seen.
    Discard {
        known: u64,
        elsewhere: Option<DiskPlan>,
    },
}

struct Running {
    run_epoch: u64,
    overtakes: bool,
    cancel: CancellationToken,
}

impl Workshop {
    pub fn new(
        driver: Arc<dyn HostDriver>,
        images: Arc<dyn ImageSource>,
        datastore: Arc<dyn Datastore>,
        ledger: Arc<Ledger>,
        tasks: Spawner,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            driver,
            images,
            datastore,
            ledger,
            lanes: Mutex::default(),
            sending: Sending::default(),
            tasks,
            stop,
        })
    }

    /// Takes a command in; its outcome comes out of the ledger. A command that
    /// is already known is not run again.
    pub fn submit(self: &Arc<Self>, command: Command) {
        let lanes = self.lanes();
        let room = room(&lanes, command.vm_id);
        let arrival = self.ledger.arrive(&command, name(&command.work), room);
        let Arrival::New(written) = arrival else {
            return;
        };
        let job = Job {
            run_epoch: command.run_epoch,
            task: Task::Command(command.clone()),
            written,
        };
        self.enqueue(lanes, command.vm_id, job);
    }

    /// Stops and removes a machine that is not recorded, unless a later run
    /// than the one meant is here or on its way. `elsewhere`: another host has it.
    pub fn discard(self: &Arc<Self>, vm_id: VmId, run_epoch: u64, elsewhere: Option<DiskPlan>) {
        let lanes = self.lanes();
        let is_later = lanes.get(&vm_id).is_some_and(|l| l.has_later(run_epoch));
        if is_later || room(&lanes, vm_id).is_err() {
            tracing::warn!(%vm_id, run_epoch, "a machine is not discarded: there is work for it");
            return;
        }
        let (known, written) = self.ledger.discard(vm_id, run_epoch);
        let job = Job {
            run_epoch,
            task: Task::Discard { known, elsewhere },
            written,
        };
        self.enqueue(lanes, vm_id, job);
    }

    /// Removes a volume that is deleted. There is no record before: it is named
    /// again until it is told that it is gone, and no id ever comes back.
    pub fn remove_volume(self: &Arc<Self>, volume_id: VolumeId) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let removing = this.remove_deleted(volume_id);
            if this.stop.run_until_cancelled(removing).await == Some(true) {
                this.ledger.volume_removed(volume_id);
            }
        });
    }

    fn enqueue(
        self: &Arc<Self>,
        mut lanes: MutexGuard<'_, BTreeMap<VmId, Lane>>,
        vm_id: VmId,
        job: Job,
    ) {
        let is_new = !lanes.contains_key(&vm_id);
        let lane = lanes.entry(vm_id).or_default();
        let overtaken = if job.overtakes() {
            lane.clear_way()
        } else {
            Vec::new()
        };
        lane.waiting.push_back(job);
        drop(lanes);
        for job in overtaken {
            self.overtaken(vm_id, &job);
        }
        if is_new {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.walk(vm_id).await });
        }
    }

    /// A lane's task: its jobs in order, until none is left.
    async fn walk(&self, vm_id: VmId) {
        while let Some((mut job, cancel)) = self.next(vm_id) {
            match (&mut job.written).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => {
                    self.give_up(vm_id, &job, fault);
                    continue;
                }
                // The agent ends.
                Err(_) => return,
            }
            let done = self.carry_out(vm_id, &job.task, job.run_epoch);
            let done = cancel.run_until_cancelled(done).await;
            if self.stop.is_cancelled() {
                // Not ended but left: the server asks again.
                return;
            }
            if done.is_none() {
                self.overtaken(vm_id, &job);
            }
        }
    }

    fn next(&self, vm_id: VmId) -> Option<(Job, CancellationToken)> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(&vm_id)?;
        let Some(job) = lane.waiting.pop_front() else {
            lanes.remove(&vm_id);
            return None;
        };
        let cancel = self.stop.child_token();
        lane.running = Some(Running {
            run_epoch: job.run_epoch,
            overtakes: job.overtakes(),
            cancel: cancel.clone(),
        });
        Some((job, cancel))
    }

    /// A job ends before it ended by itself.
    fn overtaken(&self, vm_id: VmId, job: &Job) {
        match &job.task {
            Task::Command(command) => {
                let message = "a later command overtook this one";
                let fault = Fault::new(FaultKind::Cancelled, message);
                let outcome = Outcome::Fault { fault };
                self.ledger.end(vm_id, command.command, outcome, false);
            }
            Task::Discard { .. } => {}
        }
    }

    /// A job that could not be recorded.
    fn give_up(&self, vm_id: VmId, job: &Job, fault: Fault) {
        match &job.task {
            Task::Command(command) => self.ledger.give_up(vm_id, command.command, fault),
            Task::Discard { .. } => {
                tracing::error!(%vm_id, %fault, "a machine is not discarded");
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<VmId, Lane>> {
        // Nothing panics while the lanes are half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Cancels what stands in the way of a job that overtakes: everything that
    /// does not do so itself. Gives what had not begun. (Nothing here is of a
    /// later run than the job, or the ledger would have refused it.)
    fn clear_way(&mut self) -> Vec<Job> {
        if let Some(running) = &self.running
            && !running.overtakes
        {
            running.cancel.cancel();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (overtaken, kept): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|job| !job.overtakes());
        self.waiting = kept.into();
        overtaken
    }

    fn has_later(&self, run_epoch: u64) -> bool {
        let running = self.running.as_ref().map(|running| running.run_epoch);
        let waiting = self.waiting.iter().map(|job| job.run_epoch);
        running.into_iter().chain(waiting).any(|at| at > run_epoch)
    }
}

impl Job {
    fn overtakes(&self) -> bool {
        match &self.task {
            Task::Command(command) => command.command.undo || overtakes(&command.work),
            Task::Discard { .. } => true,
        }
    }
}

/// Whether one more job may come for the VM.
fn room(lanes: &BTreeMap<VmId, Lane>, vm_id: VmId) -> Result<(), Fault> {
    let waiting = lanes.get(&vm_id).map(|lane| lane.waiting.len());
    let message = match waiting {
        Some(n) if n >= MAX_WAITING_PER_VM => {
            format!("{MAX_WAITING_PER_VM} commands already wait for this VM")
        }
        None if lanes.len() >= MAX_BUSY_VMS => {
            format!("the host is already busy with {MAX_BUSY_VMS} VMs")
        }
        Some(_) | None => return Ok(()),
    };
    Err(Fault::new(FaultKind::Host, message))
}

fn overtakes(work: &Work) -> bool {
    match work {
        Work::Kill | Work::Clean | Work::Leave { .. } | Work::CallOff => true,
        Work::Prepare { .. }
        | Work::Boot { .. }
        | Work::Shutdown { .. }
        | Work::Save
        | Work::Load
        | Work::Upload { .. }
        | Work::Download { .. }
        | Work::Reboot { .. }
        | Work::Reset
        | Work::Resize { .. }
        | Work::Snapshot { .. }
        | Work::SnapshotVolume { .. }
        | Work::Revert { .. }
        | Work::RemoveSnapshot { .. }
        | Work::Backup { .. }
        | Work::DropBackup { .. }
        | Work::Attach { .. }
        | Work::Detach { .. }
        | Work::Grow { .. }
        | Work::Move { .. }
        | Work::Receive { .. }
        | Work::Send { .. }
        | Work::Switch
        | Work::Run
        | Work::Complete
        | Work::Unknown => false,
    }
}

fn name(work: &Work) -> &'static str {
    match work {
        Work::Prepare { .. } => "prepare",
        Work::Boot { .. } => "boot",
        Work::Shutdown { .. } => "shutdown",
        Work::Kill => "kill",
        Work::Clean => "clean",
        Work::Save => "save",
        Work::Load => "load",
        Work::Upload { .. } => "upload",
        Work::Download { .. } => "download",
        Work::Reboot { .. } => "reboot",
        Work::Reset => "reset",
        Work::Resize { .. } => "resize",
        Work::Snapshot { .. } | Work::SnapshotVolume { .. } => "snapshot",
        Work::Revert { .. } => "revert",
        Work::RemoveSnapshot { .. } => "remove_snapshot",
        Work::Backup { .. } => "backup",
        Work::DropBackup { .. } => "drop_backup",
        Work::Attach { .. } => "attach",
        Work::Detach { .. } => "detach",
        Work::Grow { .. } => "grow",
        Work::Move { .. } => "move",
        Work::Receive { .. } => "receive",
        Work::Send { .. } => "send",
        Work::CallOff => "call_off",
        Work::Switch => "switch",
        Work::Run => "run",
        Work::Complete => "complete",
        Work::Leave { .. } => "leave",
        Work::Unknown => "unknown",
    }
}
