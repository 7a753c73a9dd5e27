//! Operations as people see them.

use std::fmt::Display;

use vimana_authz::Permission;
use vimana_model::action::VmAction;
use vimana_model::event::Actor;
use vimana_model::migration::{MigrationMode, MigrationResult, MigrationView};
use vimana_model::operation::{
    Object, OperationKind, OperationState, OperationView, Progress, StepKind, StepState, StepView,
};
use vimana_model::{Error, OperationId, Result, Timestamp, VmId};
use vimana_store::operation::{self, OperationRecord, StepRecord, Undo};
use vimana_store::{image, vm, write_tx};

use crate::Engine;
use crate::authorize::{authorized, current, permit};
use crate::change::Change;
use crate::context::OpContext;
use crate::idempotency::{recall, remember};

/// A new operation with nothing begun.
pub fn begun(
    id: OperationId,
    object: Object,
    kind: OperationKind,
    steps: &[StepKind],
    requested_by: &str,
    now: Timestamp,
) -> OperationRecord {
    let steps = steps
        .iter()
        .map(|kind| StepRecord {
            kind: *kind,
            state: StepState::Waiting,
            attempt: 0,
            retry_at: None,
            target: None,
            piece: None,
            migration: None,
            started_at: None,
            ended_at: None,
        })
        .collect();
    OperationRecord {
        id,
        object,
        kind,
        state: OperationState::Running,
        step: 0,
        steps,
        requested_by: requested_by.to_owned(),
        error: None,
        claim_epoch: 1,
        undo: None,
        due_at: None,
        created_at: now,
        ended_at: None,
    }
}

/// The step begins, for the first time.
pub fn begin_step(step: &mut StepRecord, now: Timestamp) {
    step.state = StepState::Running;
    step.attempt = 1;
    step.retry_at = None;
    step.started_at = Some(now);
}

/// The operation is over.
pub fn end(
    operation: &mut OperationRecord,
    state: OperationState,
    error: Option<&str>,
    now: Timestamp,
) {
    for step in &mut operation.steps {
        step.retry_at = None;
        step.state = match (step.state, state) {
            (StepState::Running | StepState::Undoing, OperationState::Failed) => StepState::Failed,
            (StepState::Running | StepState::Waiting, _) => StepState::Skipped,
            // Overtaken on its way back: what is left of it goes with the rest.
            (StepState::Undoing, _) => StepState::Done,
            (
                ended @ (StepState::Done
                | StepState::Failed
                | StepState::Skipped
                | StepState::Undone),
                _,
            ) => ended,
        };
        if step.state == StepState::Failed && step.ended_at.is_none() {
            step.ended_at = Some(now);
        }
    }
    operation.state = state;
    operation.error = error.map(str::to_owned);
    operation.due_at = None;
    operation.ended_at = Some(now);
}

pub fn view(record: OperationRecord, progress: Option<Progress>) -> OperationView {
    let OperationRecord {
        id,
        object,
        kind,
        state,
        step: _,
        steps,
        requested_by,
        error,
        claim_epoch: _,
        undo,
        due_at: _,
        created_at,
        ended_at,
    } = record;
    let piece = steps.iter().find_map(|step| step.piece.clone());
    let progress = progress.filter(|_| !state.is_over());
    let migration = migration_view(&steps, created_at, progress.as_ref());
    let cancelled_by = match undo {
        Some(Undo::Cancelled { by }) => Some(by),
        Some(Undo::Failed) | None => None,
    };
    OperationView {
        id,
        object,
        kind,
        piece,
        state,
        steps: steps.into_iter().map(step_view).collect(),
        requested_by,
        cancelled_by,
        error,
        waits_for: None,
        migration,
        progress,
        created_at,
        ended_at,
    }
}

fn migration_view(
    steps: &[StepRecord],
    created_at: Timestamp,
    progress: Option<&Progress>,
) -> Option<MigrationView> {
    let plan = steps.iter().find_map(|step| step.migration.clone())?;
    let done = |kind: StepKind| {
        let step = steps.iter().find(|step| step.kind == kind)?;
        step.ended_at.filter(|_| step.state == StepState::Done)
    };
    let between = |from: Timestamp, to: Timestamp| {
        u64::try_from(to.as_ms().saturating_sub(from.as_ms())).unwrap_or(0)
    };
    // Of several volumes that move one after the other, all together.
    let all = steps.iter().map(|step| step.migration.as_ref());
    let moved = all.filter_map(|plan| plan.filter(|plan| plan.mode == MigrationMode::Storage));
    let sent = match plan.mode {
        MigrationMode::Live | MigrationMode::Cold => plan.sent,
        MigrationMode::Storage => moved.map(|plan| plan.sent).sum(),
    };
    let result = sent.and_then(|sent| {
        let result = |end: Timestamp| MigrationResult {
            total_ms: between(created_at, end),
            transferred_bytes: sent.transferred_bytes,
            downtime_ms: None,
            blackout_ms: None,
        };
        match plan.mode {
            MigrationMode::Live => {
                let (arrived, ran) = (done(StepKind::Send)?, done(StepKind::Run)?);
                let paused_ms = sent.paused_ms.saturating_add(between(arrived, ran));
                // By post-copy the rest of its memory comes later.
                let completes = steps.iter().any(|step| step.kind == StepKind::Complete);
                let ended = if completes {
                    done(StepKind::Complete)?
                } else {
                    ran
                };
                Some(MigrationResult {
                    downtime_ms: Some(sent.downtime_ms),
                    blackout_ms: Some(paused_ms),
                    ..result(ended)
                })
            }
            MigrationMode::Cold => Some(result(done(StepKind::Arrive)?)),
            MigrationMode::Storage => {
                let ended = steps.last()?;
                Some(MigrationResult {
                    downtime_ms: Some(sent.downtime_ms),
                    blackout_ms: Some(sent.paused_ms),
                    ..result(ended.ended_at.filter(|_| ended.state == StepState::Done)?)
                })
            }
        }
    });
    Some(MigrationView {
        mode: plan.mode,
        from: plan.from,
        to: plan.to,
        datastore: plan.datastore,
        copy: progress.and_then(|progress| progress.copy),
        result,
    })
}

fn step_view(record: StepRecord) -> StepView {
    let StepRecord {
        kind,
        state,
        attempt,
        retry_at,
        target: _,
        piece: _,
        migration: _,
        started_at,
        ended_at,
    } = record;
    StepView {
        kind,
        state,
        attempts: attempt,
        retry_at,
        started_at,
        ended_at,
    }
}

impl Engine {
    /// One operation.
    ///
    /// # Errors
    /// `NotFound`, also for an operation on a VM the caller may not see.
    pub async fn operation(&self, cx: &OpContext, id: OperationId) -> Result<OperationView> {
        let read = self.store().read();
        let what = format!("operation `{id}`");
        let Some(found) = operation::find(&read, id).await? else {
            return Err(Error::not_found(what));
        };
        self.seen_operation(cx, what, found.object).await?;
        Ok(self.operation_view(found))
    }

    /// All operations of a VM, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn vm_operations(&self, cx: &OpContext, id: VmId) -> Result<Vec<OperationView>> {
        self.viewable_vm(cx, id).await?;
        let found = operation::for_vm(&self.store().read(), id).await?;
        Ok(found
            .into_iter()
            .map(|operation| self.operation_view(operation))
            .collect())
    }

    /// Takes back what an operation has done so far.
    ///
    /// # Errors
    /// `Conflict` where it is past that, `NotFound`, `Forbidden`.
    pub async fn cancel_operation(&self, cx: &OpContext, id: OperationId) -> Result<OperationView> {
        let actor = Actor::User(cx.subject.user_name.clone());
        let what = format!("operation `{id}`");
        let read = self.store().read();
        let Some(found) = operation::find(&read, id).await? else {
            return Err(Error::not_found(what));
        };
        // What is another's is found out as quickly as what never was.
        self.seen_operation(cx, &what, found.object).await?;
        let vm_id = match found.object {
            Object::Vm(id) => id,
            Object::Image(image) => return self.cancel_import(cx, image, id).await,
        };
        let (answer, changed) = write_tx!(self.store(), |tx| {
            let cx = &current(tx, cx).await?;
            if let Some(answer) = recall(tx, cx).await? {
                return Ok((answer, None));
            }
            let lock = Change::lock(tx, self.world(), actor.clone(), vm_id).await?;
            let permission = Permission::CancelOperation;
            let mut change = authorized(cx, permission, &what, lock)?.into_inner();
            let current = change.operation.clone().filter(|current| current.id == id);
            let Some(current) = current else {
                let ended = operation::find(tx, id).await?;
                let ended = ended.ok_or_else(|| Error::not_found(&what))?;
                let refusal = format!("the {} is over", ended.kind);
                return Err(Error::conflict(refusal).into());
            };
            view(current, None)
                .judge_cancel()
                .map_err(|refusal| Error::conflict(format!("the {} {refusal}", found.kind)))?;
            if found.kind == OperationKind::Migrate {
                // Who does not move VMs does not keep a host from being emptied.
                let migrate = Permission::ActOnVm(VmAction::Migrate);
                permit(cx, migrate, Some(change.vm.tenant_id))?;
            }
            change.cancel(cx.subject.user_name.as_str()).await?;
            self.settle_seen(&mut change).await?;
            let changed = change.save().await?;
            let after = operation::find(tx, id).await?;
            let after = after.ok_or_else(|| Error::not_found(&what))?;
            let answer = view(after, None);
            remember(tx, cx, self.world().now(), &answer).await?;
            Ok((answer, Some(changed)))
        })?;
        self.inner.hub.wake();
        if let Some((vm, operation)) = changed {
            self.dispatch(&vm, operation.as_ref()).await;
        }
        Ok(answer)
    }

    /// # Errors
    /// `NotFound` where the caller may not see what it works on.
    async fn seen_operation(
        &self,
        cx: &OpContext,
        what: impl Display,
        object: Object,
    ) -> Result<()> {
        let read = self.store().read();
        match object {
            Object::Vm(id) => {
                let owner = vm::find(&read, id).await?;
                authorized(cx, Permission::ViewVm, what, owner).map(|_seen| ())
            }
            Object::Image(id) => {
                let owner = image::find(&read, id).await?;
                authorized(cx, Permission::ViewCatalogue, what, owner).map(|_seen| ())
            }
        }
    }

    pub(crate) fn operation_view(&self, record: OperationRecord) -> OperationView {
        let progress = self.inner.progress.of(record.id);
        let waits_for = match record.object {
            Object::Image(id) if !record.state.is_over() => self.import_waits_for(id),
            Object::Image(_) | Object::Vm(_) => None,
        };
        OperationView {
            waits_for,
            ..view(record, progress)
        }
    }
}
