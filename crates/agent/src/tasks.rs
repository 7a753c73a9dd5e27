//! The agent's background tasks, which go when it goes.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinSet;

/// All tasks of an agent. Dropping it aborts them at once, wherever they are:
/// then an agent that is dropped leaves as little behind as one that is killed.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<JoinSet<()>>);

/// Starts tasks, as long as the agent is there.
#[derive(Clone, Debug)]
pub struct Spawner(Weak<Tasks>);

impl Tasks {
    #[must_use]
    pub fn spawner(self: &Arc<Self>) -> Spawner {
        Spawner(Arc::downgrade(self))
    }

    /// Waits until all have ended that were started so far.
    pub async fn join(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

impl Spawner {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(tasks) = self.0.upgrade() else {
            return;
        };
        let mut tasks = tasks.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended need no room.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
