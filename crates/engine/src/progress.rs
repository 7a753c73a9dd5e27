//! How far operations are, in memory alone: nothing is lost where it is
//! missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vimana_model::event::ProgressItem;
use vimana_model::operation::Progress;
use vimana_model::{HostId, OperationId, Result};
use vimana_protocol::agent::CommandRef;
use vimana_store::{operation, vm};

use crate::Engine;
use crate::event::Telemetry;
use crate::migration::is_about;

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

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Progress>> {
        self.by_operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
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
        self.inner.progress.set(found.id, progress);
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
