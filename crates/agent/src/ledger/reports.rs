//! What the server is to be told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vimana_model::operation::Progress;
use vimana_protocol::agent::{CommandRef, FromAgent};

use crate::limits::MAX_UNSENT_REPORTS;

#[derive(Default)]
pub struct Reports {
    queues: Mutex<Queues>,
    changed: Notify,
}

#[derive(Default)]
struct Queues {
    /// Each with the record that has to be written first.
    frames: VecDeque<(FromAgent, u64)>,
    /// Only the newest of each command is worth telling.
    progress: BTreeMap<CommandRef, Progress>,
}

impl Reports {
    pub fn queue(&self, frame: FromAgent, after: u64) {
        let mut queues = self.queues();
        if queues.frames.len() >= MAX_UNSENT_REPORTS {
            // The server repeats what it has no answer to.
            queues.frames.pop_front();
        }
        queues.frames.push_back((frame, after));
        drop(queues);
        self.wake();
    }

    /// Puts a report back that could not be sent.
    pub fn put_back(&self, frame: FromAgent) {
        match frame {
            FromAgent::Progress { command, progress } => {
                self.queues().progress.entry(command).or_insert(progress);
            }
            frame @ (FromAgent::Hello(_)
            | FromAgent::Ready { .. }
            | FromAgent::Done { .. }
            | FromAgent::Observed(_)
            | FromAgent::Inventory { .. }
            | FromAgent::Discarded { .. }
            | FromAgent::VolumeRemoved { .. }
            | FromAgent::VolumeNotSent { .. }
            | FromAgent::Heartbeat
            | FromAgent::Unknown) => self.queues().frames.push_front((frame, 0)),
        }
        self.wake();
    }

    pub fn progress(&self, command: CommandRef, progress: Progress) {
        self.queues().progress.insert(command, progress);
        self.wake();
    }

    pub fn forget_progress(&self, command: CommandRef) {
        self.queues().progress.remove(&command);
    }

    /// What holds a report back may be gone.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// The next report; waits for one. `settled` says up to which record all
    /// are written.
    pub async fn next(&self, settled: impl Fn() -> u64) -> FromAgent {
        loop {
            // Bound first: the lock must not live across the wait.
            let next = self.queues().pop(settled());
            match next {
                Some(frame) => return frame,
                None => self.changed.notified().await,
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        // Nothing panics while a queue is half changed.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn pop(&mut self, settled: u64) -> Option<FromAgent> {
        if self
            .frames
            .front()
            .is_some_and(|(_, after)| *after <= settled)
        {
            return self.frames.pop_front().map(|(frame, _)| frame);
        }
        let (command, progress) = self.progress.pop_first()?;
        Some(FromAgent::Progress { command, progress })
    }
}
