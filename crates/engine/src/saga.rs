//! How an operation moves on: forward from step to step, and back again when
//! a step fails or someone cancels.
//!
//! A step is recorded before its command goes out, and what takes it back is
//! known from then on (`OperationKind::undo`): going back begins with the step
//! under way, whatever of it has happened, and every step is idempotent, so no
//! answer is needed to know where to begin. Sagas after Garcia-Molina and
//! Salem, "Sagas" (1987), backward recovery.

use vimana_driver::{Fault, FaultKind};
use vimana_model::backup::DiskId;
use vimana_model::event::EventKind;
use vimana_model::operation::{
    Object, OperationKind, OperationState, Piece, Situation, StepKind, StepState,
};
use vimana_model::state::VmState;
use vimana_model::{OperationId, Timestamp};
use vimana_store::operation::{OperationRecord, Size, StepRecord, Undo};
use vimana_store::{TxError, claim};

use crate::change::{Change, Holding, Kept};
use crate::context::World;
use crate::limits::{MAX_ATTEMPTS, RETRY_CAP_MS, RETRY_FIRST_MS};
use crate::operation::begun;

/// What is being done right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Index of the step.
    pub index: u32,
    /// The step, or what takes it back.
    pub kind: StepKind,
    pub undo: bool,
    pub attempt: u32,
    /// It waits for another try.
    pub waits: bool,
}

/// What an operation does right now; `None` when it is over.
pub fn current(operation: &OperationRecord) -> Option<Current> {
    let step = operation.steps.get(usize::try_from(operation.step).ok()?)?;
    let (kind, undo) = match operation.state {
        OperationState::Running => (step.kind, false),
        OperationState::Undoing => (undo_of(operation, step.kind)?, true),
        OperationState::Succeeded | OperationState::Failed | OperationState::Cancelled => {
            return None;
        }
    };
    Some(Current {
        index: operation.step,
        kind,
        undo,
        attempt: step.attempt,
        waits: step.retry_at.is_some(),
    })
}

fn undo_of(operation: &OperationRecord, step: StepKind) -> Option<StepKind> {
    let kinds: Vec<StepKind> = operation.steps.iter().map(|step| step.kind).collect();
    operation.kind.undo(step, &kinds)
}

/// Whether it failed, and so did what was to take it back.
pub fn is_stuck(operation: &OperationRecord) -> bool {
    let index = usize::try_from(operation.step).unwrap_or(usize::MAX);
    operation.state == OperationState::Failed
        && operation.undo.is_some()
        && operation
            .steps
            .get(index)
            .is_some_and(|step| step.state == StepState::Failed)
}

impl Change<'_> {
    pub fn current(&self) -> Option<Current> {
        self.operation.as_ref().and_then(current)
    }

    pub fn situation(&self, force: bool) -> Situation {
        // A copy that was begun counts: it is registered before its effect.
        let uploading = self.operation.as_ref().is_some_and(|operation| {
            operation.steps.iter().any(|step| {
                step.kind == StepKind::Upload
                    && !matches!(step.state, StepState::Waiting | StepState::Skipped)
            })
        });
        Situation {
            on_host: self.vm.host.is_some(),
            in_datastore: self.vm.saved.is_some() || uploading,
            runs: self.vm.state == VmState::Running,
            force,
            post_copy: false,
        }
    }

    /// Begins an operation and enters its first step; one in flight is
    /// overtaken by it.
    pub async fn begin(
        &mut self,
        kind: OperationKind,
        steps: &[StepKind],
        by: &str,
    ) -> Result<(), TxError> {
        self.add_operation(kind, steps, by);
        if steps.is_empty() {
            return self.complete().await;
        }
        self.enter_step()
    }

    /// Records an operation whose work is done in this very transaction.
    pub fn begin_and_end(&mut self, kind: OperationKind, by: &str) {
        self.add_operation(kind, &[], by);
        self.retire(OperationState::Succeeded, None);
    }

    fn add_operation(&mut self, kind: OperationKind, steps: &[StepKind], by: &str) {
        // A removal that has begun is not called back by what overtakes it.
        if let Some((OperationKind::Resume | OperationKind::Migrate, StepKind::Discard)) =
            self.forward()
        {
            self.vm.saved = None;
        }
        self.retire(OperationState::Cancelled, None);
        let id = later_id(self.world, self.vm.operation_id);
        let record = begun(id, Object::Vm(self.vm.id), kind, steps, by, self.now);
        self.add_event(EventKind::Requested { operation: kind });
        self.vm.operation_id = Some(id);
        self.begun = Some(id);
        self.accepts = true;
        self.operation = Some(record);
    }

    /// What the step under way is to make of the machine.
    pub fn set_target(&mut self, target: Size) {
        if let Some(step) = self.step_mut() {
            step.target = Some(target);
        }
    }

    /// The piece of the machine that the step under way is about.
    pub fn set_piece(&mut self, piece: Piece) {
        if let Some(step) = self.step_mut() {
            step.piece = Some(piece);
        }
    }

    /// As [`Change::set_piece`], of a step that is still to come.
    pub fn set_piece_of(&mut self, kind: StepKind, piece: Piece) {
        let steps = self.operation.iter_mut().flat_map(|op| &mut op.steps);
        for step in steps.filter(|step| step.kind == kind) {
            step.piece = Some(piece.clone());
        }
    }

    fn step_mut(&mut self) -> Option<&mut StepRecord> {
        let operation = self.operation.as_mut()?;
        let index = usize::try_from(operation.step).ok()?;
        operation.steps.get_mut(index)
    }

    /// The step or its undoing begins anew with attempt 1.
    fn mark_begun(&mut self, state: StepState) {
        let now = self.now;
        if let Some(step) = self.step_mut() {
            step.state = state;
            step.attempt = 1;
            step.retry_at = None;
            if state == StepState::Running {
                step.started_at = Some(now);
            }
        }
        self.set_due(None);
    }

    /// The step or its undoing has ended so.
    pub(crate) fn mark_over(&mut self, state: StepState) {
        let now = self.now;
        if let Some(step) = self.step_mut() {
            step.state = state;
            step.retry_at = None;
            step.ended_at = Some(now);
        }
    }

    fn set_due(&mut self, due_at: Option<Timestamp>) {
        if let Some(operation) = self.operation.as_mut() {
            operation.due_at = due_at;
        }
        self.touch();
    }

    /// Begins the step under way: the state and the ids that belong to it.
    pub fn enter_step(&mut self) -> Result<(), TxError> {
        let Some((kind, step)) = self.forward() else {
            return Ok(());
        };
        self.mark_begun(StepState::Running);
        // That of a VM whose host is silent is another one's turn: it has its state
        // when its own is back.
        if (kind, self.vm.state) != (OperationKind::Migrate, VmState::Unknown) {
            self.enter_state(kind, step)?;
        }
        let new_run = match (kind, step) {
            (OperationKind::Start, StepKind::Boot | StepKind::Load) => true,
            // A placed VM got its epoch with its host.
            (OperationKind::Resume, StepKind::Load) => self.vm.saved.is_none(),
            // It takes over what another host holds of an earlier run.
            (OperationKind::Migrate, StepKind::Arrive) => true,
            _ => false,
        };
        if new_run {
            self.vm.run_epoch = self.vm.run_epoch.saturating_add(1);
        }
        Ok(())
    }

    fn forward(&self) -> Option<(OperationKind, StepKind)> {
        let operation = self.operation.as_ref()?;
        let current = current(operation).filter(|current| !current.undo)?;
        Some((operation.kind, current.kind))
    }

    /// The state that belongs to the step under way, also after silence.
    pub async fn reenter_state(&mut self) -> Result<(), TxError> {
        let kind = self.operation.as_ref().map(|operation| operation.kind);
        if self.vm.state == VmState::Unknown && kind.is_some_and(OperationKind::is_of_disks) {
            // Such a VM runs or is off; what it claims tells which.
            let claim = claim::find(self.tx, self.vm.id).await?;
            let off = claim.is_some_and(|claim| claim.resources.vcpus == 0);
            return self.turn(if off {
                VmState::PoweredOff
            } else {
                VmState::Running
            });
        }
        match self.forward() {
            Some((kind, step)) => self.enter_state(kind, step),
            None if self.vm.state == VmState::Unknown => self.reenter_undo(),
            None => Ok(()),
        }
    }

    /// Going back has no states of its own: the VM stays in the one it was in.
    fn reenter_undo(&mut self) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_ref() else {
            return Ok(());
        };
        let saves = operation
            .steps
            .get(usize::try_from(operation.step).unwrap_or(usize::MAX))
            .is_some_and(|step| step.kind == StepKind::Save);
        let rests = self.rests_as();
        self.turn(match operation.kind {
            OperationKind::Migrate => rests.unwrap_or(VmState::Migrate),
            OperationKind::Create | OperationKind::Resume => VmState::Prolog,
            OperationKind::Start => VmState::Boot,
            OperationKind::Stop if !saves => VmState::Suspended,
            OperationKind::Suspend
            | OperationKind::Stop
            | OperationKind::PowerOff
            | OperationKind::Reboot
            | OperationKind::Reset
            | OperationKind::Resize
            | OperationKind::Shutdown
            | OperationKind::Delete
            | OperationKind::Snapshot
            | OperationKind::Revert
            | OperationKind::RemoveSnapshot
            | OperationKind::Backup
            | OperationKind::Attach
            | OperationKind::Detach
            | OperationKind::Grow
            | OperationKind::Move
            | OperationKind::Import
            | OperationKind::Refresh => VmState::Running,
        })
    }

    fn enter_state(&mut self, kind: OperationKind, step: StepKind) -> Result<(), TxError> {
        use OperationKind as O;
        use StepKind as S;
        let silent = self.vm.state == VmState::Unknown;
        match (kind, step) {
            // A new VM waits in Pending already, or in Hold.
            (O::Create, S::Place) if self.vm.state == VmState::Hold => Ok(()),
            (O::Create | O::Resume, S::Place) => self.turn(VmState::Pending),
            (O::Create, S::Prepare) | (O::Resume, S::Download) => self.turn(VmState::Prolog),
            (O::Create | O::Start, S::Boot) | (O::Start, S::Load) => self.turn(VmState::Boot),
            (O::Resume, S::Load) if self.vm.saved.is_some() => self.turn(VmState::Boot),
            (O::Resume, S::Load) | (O::Stop, S::Upload | S::Clean) => self.turn(VmState::Suspended),
            (O::Shutdown | O::PowerOff, S::Shutdown) => self.turn(VmState::Shutdown),
            (O::Shutdown | O::Delete, S::Kill | S::Clean | S::Discard | S::Leave) => {
                self.turn(VmState::Epilog)
            }
            (O::Migrate, S::Receive | S::Send | S::Switch | S::Run) => self.turn(VmState::Migrate),
            (O::Migrate, _) if silent => self.turn(self.rests_as().unwrap_or(VmState::Running)),
            (O::Start, S::Kill) if silent => self.turn(VmState::Boot),
            _ if silent => self.turn(VmState::Running),
            _ => Ok(()),
        }
    }

    /// Ends what is under way and goes on: forward, or further back.
    pub async fn end_step(&mut self) -> Result<(), TxError> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        if current.undo {
            return self.end_undo_step().await;
        }
        if current.kind != StepKind::Place {
            self.add_event(EventKind::Step { step: current.kind });
        }
        self.mark_over(StepState::Done);
        self.leave_step(current.kind).await?;
        self.go_on().await
    }

    /// The step under way is over: the next begins, or the operation is.
    async fn go_on(&mut self) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        operation.step = operation.step.saturating_add(1);
        let more = usize::try_from(operation.step).is_ok_and(|n| n < operation.steps.len());
        if !more {
            return self.complete().await;
        }
        self.enter_step()?;
        // Its silence was told before anything was asked of it.
        if self.forward() == Some((OperationKind::Migrate, StepKind::Leave))
            && self.peer_is_away().await?
        {
            self.leave_behind("the host is away");
        }
        Ok(())
    }

    /// What holds as soon as a step is through, before its operation is.
    async fn leave_step(&mut self, step: StepKind) -> Result<(), TxError> {
        let Some(kind) = self.operation.as_ref().map(|operation| operation.kind) else {
            return Ok(());
        };
        match (kind, step) {
            (OperationKind::Resume | OperationKind::Start, StepKind::Load) => {
                self.hold(Holding::Full).await?;
                self.turn(VmState::Running)
            }
            // Nothing is left there; it is made anew, wherever there is room.
            (OperationKind::Create | OperationKind::Resume, StepKind::Clean) => {
                self.leave_host().await
            }
            (_, StepKind::Discard) => {
                self.vm.saved = None;
                Ok(())
            }
            (OperationKind::Migrate, StepKind::Send | StepKind::Arrive) => {
                self.commit_migration().await
            }
            (OperationKind::Migrate, StepKind::Run) => self.arrived(),
            (_, StepKind::Leave) => self.leave_peer().await,
            (OperationKind::Move, StepKind::Move) => match self.piece_under_way() {
                Some(Piece::Volume { id, .. }) => self.volume_moved(id).await,
                Some(Piece::Snapshot { .. } | Piece::Backup { .. }) => Ok(()),
                None => self.disk_moved().await,
            },
            // By itself, or in a retry.
            (_, StepKind::Revert) => match self.piece() {
                Some(Piece::Snapshot { id, .. }) => self.reverted(id).await,
                Some(Piece::Volume { .. } | Piece::Backup { .. }) | None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// All steps are done.
    async fn complete(&mut self) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_ref() else {
            return Ok(());
        };
        let kind = operation.kind;
        let last = operation.steps.last();
        let target = last.and_then(|step| step.target.clone());
        let piece = last.and_then(|step| step.piece.clone());
        // Something that it was for did not come about.
        match operation.error.clone() {
            Some(error) => self.retire(OperationState::Failed, Some(&error)),
            None => self.retire(OperationState::Succeeded, None),
        }
        match kind {
            OperationKind::Create | OperationKind::Start | OperationKind::Resume => {
                self.turn(VmState::Running)
            }
            OperationKind::Suspend => {
                self.hold(Holding::Saved).await?;
                self.turn(VmState::Suspended)
            }
            OperationKind::Stop => {
                self.leave_host().await?;
                self.turn(VmState::Stopped)
            }
            OperationKind::PowerOff => {
                self.hold(Holding::Disk).await?;
                self.turn(VmState::PoweredOff)
            }
            OperationKind::Resize => {
                if let Some(target) = target {
                    let to = target.resources;
                    let from = std::mem::replace(&mut self.vm.resources, to);
                    self.vm.flavor_name = target.flavor_name;
                    self.hold(Holding::Full).await?;
                    self.add_event(EventKind::Resized { from, to });
                }
                Ok(())
            }
            OperationKind::Snapshot
            | OperationKind::RemoveSnapshot
            | OperationKind::Backup
            | OperationKind::Attach
            | OperationKind::Detach
            | OperationKind::Grow => self.complete_of_disks(kind, piece).await,
            OperationKind::Reboot
            | OperationKind::Move
            | OperationKind::Reset
            | OperationKind::Revert
            | OperationKind::Migrate
            | OperationKind::Import
            | OperationKind::Refresh => Ok(()),
            OperationKind::Shutdown | OperationKind::Delete => self.finish().await,
        }
    }

    /// A step, or its undoing, failed on the host.
    pub async fn step_failed(&mut self, fault: &Fault) -> Result<(), TxError> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        let gone = fault.kind == FaultKind::NoSuchVm;
        let removes = match current.kind {
            StepKind::Shutdown
            | StepKind::Kill
            | StepKind::Clean
            | StepKind::Discard
            | StepKind::Dismiss
            | StepKind::Leave => true,
            StepKind::Place
            | StepKind::Prepare
            | StepKind::Boot
            | StepKind::Save
            | StepKind::Load
            | StepKind::Upload
            | StepKind::Download
            | StepKind::GiveBack
            | StepKind::Reboot
            | StepKind::Reset
            | StepKind::Resize
            | StepKind::Snapshot
            | StepKind::Revert
            | StepKind::Backup
            | StepKind::Attach
            | StepKind::Grow
            | StepKind::Move
            | StepKind::MoveBack
            | StepKind::Receive
            | StepKind::Arrive
            | StepKind::Send
            | StepKind::Switch
            | StepKind::Run
            | StepKind::Complete
            | StepKind::Fetch
            | StepKind::Enter => false,
            StepKind::RemoveSnapshot
            | StepKind::DropBackup
            | StepKind::Detach
            | StepKind::CallOff => current.undo,
        };
        // An agent that knows nothing of post-copy has copied all of it before.
        let copied = matches!(current.kind, StepKind::Switch | StepKind::Complete)
            && fault.kind == FaultKind::Unsupported;
        if copied || (gone && removes) {
            // A host that no longer has the machine has nothing to remove.
            return self.end_step().await;
        }
        let reason = self.whose(current.kind, fault);
        // Overtaken by nothing that is recorded: what was overtaken is asked again.
        let may_pass = fault.kind.may_pass() || fault.kind == FaultKind::Cancelled;
        if may_pass && current.attempt < MAX_ATTEMPTS {
            self.retry_later(current, &reason);
            return Ok(());
        }
        let nothing_done = matches!(
            fault.kind,
            FaultKind::NoSuchSnapshot | FaultKind::Conflict | FaultKind::Unsupported
        );
        if (current.kind, nothing_done) == (StepKind::Revert, false) && !gone {
            self.retire(OperationState::Failed, Some(&reason));
            return self.break_down(&reason, Kept::Everything).await;
        }
        self.give_up(&reason, gone).await
    }

    fn retry_later(&mut self, current: Current, reason: &str) {
        let at = self.now.plus_ms(backoff_ms(current.attempt));
        if let Some(step) = self.step_mut() {
            step.retry_at = Some(at);
        }
        self.set_due(Some(at));
        self.add_event(EventKind::StepRetried {
            step: current.kind,
            reason: reason.to_owned(),
        });
    }

    /// Another try of what is under way begins now.
    pub fn try_again(&mut self) {
        if let Some(step) = self.step_mut() {
            step.attempt = step.attempt.saturating_add(1);
            step.retry_at = None;
        }
        self.set_due(None);
    }

    /// Nothing more is tried: goes back, or fails where there is no way back.
    pub async fn give_up(&mut self, reason: &str, machine_is_gone: bool) -> Result<(), TxError> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        if current.undo {
            return self.undo_failed(reason).await;
        }
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        let kind = operation.kind;
        let piece = piece_of(operation);
        if let (OperationKind::Resume | OperationKind::Migrate, StepKind::Discard) =
            (kind, current.kind)
        {
            return self.leave_copy(reason).await;
        }
        match (kind, current.kind) {
            (OperationKind::Migrate, StepKind::Switch | StepKind::Run | StepKind::Complete) => {
                return self.arrived_broken(reason).await;
            }
            (OperationKind::Migrate, StepKind::Leave) => {
                self.leave_behind(reason);
                return Ok(());
            }
            _ => {}
        }
        // Of a machine that is placed anew, or goes elsewhere, the host that lost
        // it is not the only one concerned.
        let placed = operation
            .steps
            .iter()
            .any(|step| matches!(step.kind, StepKind::Place | StepKind::Receive));
        let lost = machine_is_gone && !placed && !current.kind.is_at_peer();
        let way_back = operation
            .steps
            .iter()
            .take(
                usize::try_from(current.index)
                    .unwrap_or(0)
                    .saturating_add(1),
            )
            .any(|step| undo_of(operation, step.kind).is_some());
        if way_back && !lost && !kind.is_past_return(current.kind) {
            let operation = self.operation.as_mut();
            if let Some(operation) = operation {
                operation.state = OperationState::Undoing;
                operation.undo = Some(Undo::Failed);
                operation.error = Some(reason.to_owned());
            }
            let now = self.now;
            if let Some(step) = self.step_mut() {
                step.ended_at = Some(now);
            }
            self.add_event(EventKind::Undoing {
                operation: kind,
                reason: reason.to_owned(),
            });
            return self.enter_undo().await;
        }
        self.retire(OperationState::Failed, Some(reason));
        if lost {
            return self.break_down(reason, Kept::Nothing).await;
        }
        self.fail_of_disks(kind, piece).await?;
        self.fail_in_place(kind, current.kind, reason).await
    }

    /// The machine is where it was to be, and only its copy in the datastore cannot
    /// be removed: no record points to that any more, so the sweep removes it.
    async fn leave_copy(&mut self, reason: &str) -> Result<(), TxError> {
        self.mark_over(StepState::Failed);
        self.add_event(EventKind::Note {
            text: format!("{reason}; it is removed later"),
        });
        self.vm.saved = None;
        self.go_on().await
    }

    /// An operation failed that has no way back: what is the VM now?
    async fn fail_in_place(
        &mut self,
        kind: OperationKind,
        step: StepKind,
        reason: &str,
    ) -> Result<(), TxError> {
        use OperationKind as O;
        match (kind, step) {
            // Half removed, or nobody knows.
            (O::Delete, _)
            | (O::Shutdown, StepKind::Clean | StepKind::Leave)
            | (O::Stop, _)
            | (O::Start, StepKind::Load) => {
                return self.break_down(reason, Kept::Everything).await;
            }
            (O::PowerOff | O::Shutdown, _) => self.turn(VmState::Running)?,
            (O::Resize, _) => self.hold(Holding::Full).await?,
            // It still has its saved memory.
            (O::Resume, StepKind::Load) => self.hold(Holding::Saved).await?,
            (
                O::Resume
                | O::Reboot
                | O::Reset
                | O::Create
                | O::Start
                | O::Suspend
                | O::Snapshot
                | O::Revert
                | O::RemoveSnapshot
                | O::Backup
                | O::Attach
                | O::Detach
                | O::Grow
                | O::Move
                | O::Migrate
                | O::Import
                | O::Refresh,
                _,
            ) => {}
        }
        self.add_event(EventKind::OperationFailed {
            operation: kind,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Someone wants the operation in flight taken back.
    pub async fn cancel(&mut self, by: &str) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        operation.state = OperationState::Undoing;
        operation.undo = Some(Undo::Cancelled { by: by.to_owned() });
        let kind = operation.kind;
        self.add_event(EventKind::Cancelling { operation: kind });
        self.enter_undo().await
    }

    /// Begins to take the step under way back, or the nearest before it that
    /// has a way back.
    async fn enter_undo(&mut self) -> Result<(), TxError> {
        loop {
            let Some(operation) = self.operation.as_mut() else {
                return Ok(());
            };
            let Some(current) = current(operation) else {
                // This step has nothing to take back.
                if operation.step == 0 {
                    return self.end_undo().await;
                }
                let failed = operation.error.is_some();
                skip(operation, failed);
                operation.step -= 1;
                continue;
            };
            self.mark_begun(StepState::Undoing);
            if current.kind == StepKind::GiveBack {
                // Needs nobody but us.
                self.leave_host().await?;
                self.mark_over(StepState::Undone);
                return self.end_undo().await;
            }
            if current.kind == StepKind::Dismiss && self.peer_is_away().await? {
                // The machine is where it was: it waits for nobody. What the other
                // host holds is removed when it is back.
                self.mark_over(StepState::Undone);
                let operation = self.operation.as_mut();
                let Some(operation) = operation.filter(|operation| operation.step > 0) else {
                    return self.end_undo().await;
                };
                operation.step -= 1;
                continue;
            }
            if current.kind == StepKind::Load {
                self.vm.run_epoch = self.vm.run_epoch.saturating_add(1);
            }
            return Ok(());
        }
    }

    async fn end_undo_step(&mut self) -> Result<(), TxError> {
        self.mark_over(StepState::Undone);
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        let taken_back = operation
            .steps
            .get(usize::try_from(operation.step).unwrap_or(usize::MAX))
            .map(|step| step.kind);
        if taken_back == Some(StepKind::Upload) {
            self.vm.saved = None;
        }
        if let Some(StepKind::Receive | StepKind::Arrive) = taken_back {
            self.leave_peer().await?;
        }
        self.go_further_back().await
    }

    /// A step is taken back: the one before it follows, or all is as it was.
    async fn go_further_back(&mut self) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_mut() else {
            return Ok(());
        };
        if operation.step == 0 {
            return self.end_undo().await;
        }
        operation.step -= 1;
        self.enter_undo().await
    }

    /// Everything is taken back: the VM is what it was before.
    async fn end_undo(&mut self) -> Result<(), TxError> {
        let Some(operation) = self.operation.as_ref() else {
            return Ok(());
        };
        let kind = operation.kind;
        let piece = piece_of(operation);
        let moving = moving(&operation.steps);
        let peer_knows_nothing = operation
            .steps
            .iter()
            .any(|step| step.kind == StepKind::Arrive && step.attempt == 0);
        let error = operation.error.clone();
        let cancelled = operation.undo != Some(Undo::Failed);
        let was_saved = operation
            .steps
            .iter()
            .all(|step| step.kind != StepKind::Save);
        let retried = operation
            .steps
            .first()
            .is_some_and(|step| step.kind == StepKind::Kill);
        let state = if cancelled {
            OperationState::Cancelled
        } else {
            OperationState::Failed
        };
        self.retire(state, error.as_deref());
        let reason = error.unwrap_or_default();
        match kind {
            OperationKind::Create if cancelled => self.turn(VmState::Hold)?,
            OperationKind::Create => return self.break_down(&reason, Kept::Nothing).await,
            OperationKind::Start if retried => {
                let reason = if cancelled {
                    "the retry was cancelled"
                } else {
                    reason.as_str()
                };
                return self.break_down(reason, Kept::Disk).await;
            }
            OperationKind::Start => {
                self.hold(Holding::Disk).await?;
                self.turn(VmState::PoweredOff)?;
            }
            OperationKind::Stop if was_saved => self.hold(Holding::Saved).await?,
            OperationKind::Suspend | OperationKind::Stop => {
                self.hold(Holding::Full).await?;
                self.turn(VmState::Running)?;
            }
            OperationKind::Resume => self.turn(VmState::Stopped)?,
            OperationKind::Migrate if peer_knows_nothing => self.leave_peer().await?,
            // Of one whose host is silent, nobody knows whether it runs.
            OperationKind::Migrate if self.vm.state == VmState::Migrate => {
                self.turn(VmState::Running)?;
            }
            OperationKind::Migrate => {}
            OperationKind::Snapshot => {
                if let Some(Piece::Snapshot { id, .. }) = piece {
                    self.drop_snapshot(id).await?;
                }
            }
            OperationKind::Attach => {
                if let Some(Piece::Volume { id, .. }) = piece {
                    self.volume_detached(id).await?;
                }
            }
            // One that had arrived stays where it is.
            OperationKind::Move => self.move_back(&moving).await?,
            // These have no way back.
            OperationKind::PowerOff
            | OperationKind::Reboot
            | OperationKind::Reset
            | OperationKind::Resize
            | OperationKind::Shutdown
            | OperationKind::Delete
            | OperationKind::Revert
            | OperationKind::RemoveSnapshot
            // What it kept is given back by whoever ends it, however that is.
            | OperationKind::Backup
            | OperationKind::Detach
            | OperationKind::Grow
            | OperationKind::Import
            | OperationKind::Refresh => {}
        }
        self.add_event(if cancelled {
            EventKind::Cancelled { operation: kind }
        } else {
            EventKind::OperationFailed {
                operation: kind,
                reason,
            }
        });
        Ok(())
    }

    /// What was done could not be taken back either.
    async fn undo_failed(&mut self, reason: &str) -> Result<(), TxError> {
        let first = self.operation.as_ref().and_then(|op| op.error.clone());
        let reason = match first {
            Some(first) => format!("{first}; and it could not be taken back: {reason}"),
            None => format!("it could not be taken back: {reason}"),
        };
        let under_way = self.operation.as_ref();
        let under_way = under_way.map(|operation| (operation.kind, piece_of(operation)));
        if self
            .current()
            .is_some_and(|current| current.kind == StepKind::Dismiss)
        {
            // The machine is where it was. What the other host holds stays recorded
            // until it says that nothing is left.
            self.mark_over(StepState::Undone);
            return self.go_further_back().await;
        }
        if let (Some((OperationKind::Migrate, _)), Some(StepKind::Discard)) =
            (&under_way, self.current().map(|current| current.kind))
        {
            // No record points to the copy any more: the sweep removes it.
            return self.end_undo_step().await;
        }
        if let Some((OperationKind::Backup, _)) = under_way {
            // The machine is as it was; what is left of the copies is removed by
            // the next backup, or goes with the machine.
            self.mark_over(StepState::Undone);
            return self.end_undo().await;
        }
        let not_begun = self.operation.as_ref().map(not_begun).unwrap_or_default();
        self.retire(OperationState::Failed, Some(&reason));
        self.move_back(&not_begun).await?;
        if let Some((kind, piece)) = under_way {
            self.fail_of_disks(kind, piece).await?;
        }
        self.break_down(&reason, Kept::Everything).await
    }

    pub fn piece(&self) -> Option<Piece> {
        self.operation.as_ref().and_then(piece_of)
    }

    /// That of the step under way.
    fn piece_under_way(&mut self) -> Option<Piece> {
        self.step_mut().and_then(|step| step.piece.clone())
    }

    async fn move_back(&mut self, disks: &[DiskId]) -> Result<(), TxError> {
        for disk in disks {
            match disk {
                DiskId::Root => self.give_second_place_back().await?,
                DiskId::Volume(id) => self.volume_moved_back(*id).await?,
            }
        }
        Ok(())
    }

    /// What was done with a snapshot, a backup or a volume is done.
    async fn complete_of_disks(
        &mut self,
        kind: OperationKind,
        piece: Option<Piece>,
    ) -> Result<(), TxError> {
        use OperationKind as O;
        match (kind, piece) {
            (O::Snapshot, Some(Piece::Snapshot { id, .. })) => self.snapshot_taken(id).await,
            (O::RemoveSnapshot, Some(Piece::Snapshot { id, .. })) => {
                self.snapshot_removed(id).await
            }
            (O::Attach, Some(Piece::Volume { id, .. })) => self.volume_attached(id).await,
            (O::Detach, Some(Piece::Volume { id, .. })) => self.volume_detached(id).await,
            (O::Grow, Some(Piece::Volume { id, .. })) => self.volume_grown(id).await,
            _ => Ok(()),
        }
    }

    /// It was not done, or nobody knows: what can be asked for from here on.
    async fn fail_of_disks(
        &mut self,
        kind: OperationKind,
        piece: Option<Piece>,
    ) -> Result<(), TxError> {
        use OperationKind as O;
        match (kind, piece) {
            (O::Snapshot | O::RemoveSnapshot, Some(Piece::Snapshot { id, .. })) => {
                self.leave_snapshot(id).await
            }
            (O::Attach | O::Detach, Some(Piece::Volume { id, .. })) => self.volume_stays(id).await,
            _ => Ok(()),
        }
    }
}

/// What it is about; nothing where that is several things.
pub fn piece_of(operation: &OperationRecord) -> Option<Piece> {
    if moving(&operation.steps).len() > 1 {
        return None;
    }
    operation.steps.iter().find_map(|step| step.piece.clone())
}

/// Those whose move was not begun.
fn not_begun(operation: &OperationRecord) -> Vec<DiskId> {
    let later = usize::try_from(operation.step).unwrap_or(usize::MAX);
    moving(
        operation
            .steps
            .get(later.saturating_add(1)..)
            .unwrap_or_default(),
    )
}

/// The disks that those steps move.
fn moving(steps: &[StepRecord]) -> Vec<DiskId> {
    let moves = steps.iter().filter(|step| step.kind == StepKind::Move);
    let disks = moves.filter_map(|step| match step.piece {
        Some(Piece::Volume { id, .. }) => Some(DiskId::Volume(id)),
        Some(Piece::Snapshot { .. } | Piece::Backup { .. }) => None,
        None => Some(DiskId::Root),
    });
    disks.collect()
}

/// An id that sorts behind that of the VM's operation before, whatever the
/// clock was set to meanwhile: a retry goes by what was last.
fn later_id(world: &World, before: Option<OperationId>) -> OperationId {
    let (now, random) = world.id_parts();
    let after = before.map_or(0, |id| id.unix_ms().saturating_add(1));
    OperationId::from_parts(now.max(after), random)
}

/// A step without a way back is passed on the way back.
fn skip(operation: &mut OperationRecord, failed: bool) {
    let index = usize::try_from(operation.step).unwrap_or(usize::MAX);
    if let Some(step) = operation.steps.get_mut(index)
        && step.state == StepState::Running
    {
        step.state = if failed {
            StepState::Failed
        } else {
            StepState::Skipped
        };
        step.retry_at = None;
    }
}

/// Doubles with every try.
fn backoff_ms(attempt: u32) -> i64 {
    let doubled = RETRY_FIRST_MS.saturating_mul(1_i64 << attempt.saturating_sub(1).min(30));
    doubled.min(RETRY_CAP_MS)
}
