//! How long connected hosts may take for what they were asked: on the
//! monotonic clock, in memory. A step of the wall clock changes nothing here,
//! and a new server is patient anew.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vimana_model::{HostId, OperationId, VmId};
use vimana_protocol::agent::CommandRef;

/// The deadlines of the commands under way.
#[derive(Default)]
pub struct Deadlines {
    by_operation: Mutex<HashMap<OperationId, Deadline>>,
}

struct Deadline {
    vm_id: VmId,
    command: CommandRef,
    at: Instant,
}

impl Deadlines {
    /// The command has gone out; the clock runs from now.
    pub fn set(&self, vm_id: VmId, command: CommandRef, patience: Duration) {
        let deadline = Deadline {
            vm_id,
            command,
            at: Instant::now() + patience,
        };
        self.lock().insert(command.operation_id, deadline);
    }

    pub fn forget(&self, id: OperationId) {
        self.lock().remove(&id);
    }

    /// Takes out what is overdue, in the order of time.
    pub fn take_overdue(&self) -> Vec<(VmId, CommandRef)> {
        let now = Instant::now();
        let mut deadlines = self.lock();
        let mut overdue: Vec<Deadline> = deadlines
            .extract_if(|_, deadline| deadline.at <= now)
            .map(|(_, deadline)| deadline)
            .collect();
        drop(deadlines);
        overdue.sort_by_key(|deadline| (deadline.at, deadline.command));
        overdue
            .into_iter()
            .map(|deadline| (deadline.vm_id, deadline.command))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Deadline>> {
        self.by_operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when hosts have been away, as this server has seen it.
#[derive(Default)]
pub struct Absences {
    since: Mutex<HashMap<HostId, Instant>>,
}

impl Absences {
    /// How long the host has been away, told with every look at it.
    pub fn seen_away(&self, id: HostId) -> Duration {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.entry(id).or_insert_with(Instant::now).elapsed()
    }

    /// Forgets all others.
    pub fn keep(&self, away: &HashSet<HostId>) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|id, _| away.contains(id));
    }
}
