//! How far operations are, in memory alone: nothing is lost where it is
//! missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vimana_model::event::ProgressItem;
use vimana_model::operation::Progress;
use vimana_model::{HostId, OperationId, Result};
use vimana_protocol::agent::CommandRef;
use vimana_store::operation::OperationRecord;
use vimana_store::{operation, vm};

use crate::Engine;
use crate::event::Telemetry;
use crate::migration::is_about;
use crate::saga::current;

/// The progress of every operation that tells one.
#[derive(Default)]
pub struct ProgressBoard {
    by_operation: Mutex<HashMap<OperationId, Progress>>,
}

impl ProgressBoard {
    pub fn of(&self, id: OperationId) -> Option<Progress> {
        self.lock().get(&id).copied()
    }

    pub fn forget(&self, id: OperationId) {
        self.lock().remove(&id);
    }

    /// Forgets all others.
    pub fn keep(&self, running: &HashSet<OperationId>) {
        self.lock().retain(|id, _| running.contains(id));
    }

    pub fn set(&self, id: OperationId, progress: Progress) {
        self.lock().insert(id, progress);
    }

    /// As a host says it. What it begins anew is shown once that is further
    /// than what was before.
    pub fn advance(&self, id: OperationId, progress: Progress) {
        let mut board = self.lock();
        let behind = |shown: &Progress| is_behind(progress, *shown);
        if !board.get(&id).is_some_and(behind) {
            board.insert(id, progress);
        }
    }

    /// A command ended. Where it will be tried again, what it copied is still
    /// shown: the next try may go on with that.
    pub fn ended(&self, command: CommandRef, operation: Option<&OperationRecord>) {
        let next = operation.and_then(current);
        let again =
            next.is_some_and(|next| (next.index, next.undo) == (command.step, command.undo));
        let mut board = self.lock();
        let of = command.operation_id;
        board.retain(|id, shown| *id != of || (again && shown.copy.is_none()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Progress>> {
        self.by_operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether less of a file has been copied; what a guest changes under a copy
/// comes and goes.
fn is_behind(progress: Progress, shown: Progress) -> bool {
    let share = |done: Progress, of: Progress| {
        u128::from(done.done_bytes).saturating_mul(u128::from(of.total_bytes))
    };
    progress.copy.is_none()
        && shown.copy.is_none()
        && share(progress, shown) < share(shown, progress)
}

impl Engine {
    /// An agent says how far a command is.
    pub(crate) async fn progressed(
        &self,
        host: HostId,
        command: CommandRef,
        progress: Progress,
    ) -> Result<()> {
        let read = self.store().read();
        let Some(found) = operation::find(&read, command.operation_id).await? else {
            return Ok(());
        };
        let Some(vm_id) = found.object.vm() else {
            return Ok(());
        };
        let Some(vm) = vm::find(&read, vm_id).await? else {
            return Ok(());
        };
        let goes_on = !found.state.is_over() && found.step == command.step;
        if !goes_on || !is_about(&read, &vm, host).await? {
            return Ok(());
        }
        self.inner.progress.advance(found.id, progress);
        let item = ProgressItem {
            operation: self.operation_view(found),
        };
        self.inner.hub.tell(Telemetry {
            tenant_id: Some(vm.tenant_id),
            item,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_copy_does_not_run_backwards() {
        let board = ProgressBoard::default();
        let id = OperationId::from_parts(1, [1; 10]);
        let at = |done_bytes, total_bytes| Progress {
            done_bytes,
            total_bytes,
            copy: None,
        };
        board.advance(id, at(40, 100));
        // Another try begins; what it has to copy may be less.
        for behind in [at(0, 100), at(0, 50), at(19, 50)] {
            board.advance(id, behind);
            assert_eq!(board.of(id), Some(at(40, 100)));
        }
        for further in [at(20, 50), at(45, 50), at(50, 50)] {
            board.advance(id, further);
            assert_eq!(board.of(id), Some(further));
        }
        board.forget(id);
        board.advance(id, at(0, 100));
        assert_eq!(board.of(id), Some(at(0, 100)));
    }
}
