//! Operations as people see them.

use vimana_authz::Permission;
use vimana_model::operation::{OperationKind, OperationState, OperationView, StepState, StepView};
use vimana_model::{Error, OperationId, Result, Timestamp, VmId};
use vimana_store::operation::{self, OperationRecord, StepRecord};
use vimana_store::vm;

use crate::Engine;
use crate::authorize::authorized;
use crate::context::OpContext;

/// A new operation whose first step is under way.
pub fn begun(
    id: OperationId,
    vm_id: VmId,
    kind: OperationKind,
    requested_by: &str,
    now: Timestamp,
) -> OperationRecord {
    let mut steps: Vec<StepRecord> = kind
        .steps()
        .iter()
        .map(|kind| StepRecord {
            kind: *kind,
            state: StepState::Waiting,
            started_at: None,
            ended_at: None,
        })
        .collect();
    if let Some(first) = steps.first_mut() {
        first.state = StepState::Running;
        first.started_at = Some(now);
    }
    OperationRecord {
        id,
        vm_id,
        kind,
        state: OperationState::Running,
        step: 0,
        steps,
        requested_by: requested_by.to_owned(),
        error: None,
        created_at: now,
        ended_at: None,
    }
}

pub fn view(record: OperationRecord) -> OperationView {
    let OperationRecord {
        id,
        vm_id,
        kind,
        state,
        step: _,
        steps,
        requested_by,
        error,
        created_at,
        ended_at,
    } = record;
    let steps = steps
        .into_iter()
        .map(
            |StepRecord {
                 kind,
                 state,
                 started_at,
                 ended_at,
             }| StepView {
                kind,
                state,
                started_at,
                ended_at,
            },
        )
        .collect();
    OperationView {
        id,
        vm_id,
        kind,
        state,
        steps,
        requested_by,
        error,
        created_at,
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
        let owner = vm::find(&read, found.vm_id).await?;
        authorized(cx, Permission::ViewVm, what, owner)?;
        Ok(view(found))
    }

    /// All operations of a VM, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn vm_operations(&self, cx: &OpContext, id: VmId) -> Result<Vec<OperationView>> {
        self.viewable_vm(cx, id).await?;
        let found = operation::for_vm(&self.store().read(), id).await?;
        Ok(found.into_iter().map(view).collect())
    }
}
