//! Writes records down: whatever came while the disk was busy goes with the
//! next write.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use vimana_driver::Fault;

use super::books::Record;
use crate::journal::Journal;
use crate::limits::MIN_RECORDS_BEFORE_REWRITE;

/// Says when a record is durable, or that it could not be made so.
pub type Written = oneshot::Receiver<Result<(), Fault>>;

pub struct Pen {
    journal: Arc<dyn Journal>,
    desk: Mutex<Desk>,
    to_write: Notify,
    /// All records up to this one are written, or have failed.
    settled: watch::Sender<u64>,
}

struct Desk {
    /// Number of the last record taken.
    taken: u64,
    waiting: Vec<(String, oneshot::Sender<Result<(), Fault>>)>,
    /// Records in the journal since the last rewrite, and how many there are
    /// to be at the next.
    lines: usize,
    rewrite_at: usize,
    /// What is in the journal after a failure, nobody knows.
    broken: bool,
}

/// What goes to the journal in one write.
struct Batch {
    lines: Vec<String>,
    waiters: Vec<oneshot::Sender<Result<(), Fault>>>,
    last: u64,
    rewrite: bool,
    broken: bool,
}

impl Pen {
    pub fn new(journal: Arc<dyn Journal>, lines: usize) -> Self {
        Self {
            journal,
            desk: Mutex::new(Desk {
                taken: 0,
                waiting: Vec::new(),
                lines,
                rewrite_at: MIN_RECORDS_BEFORE_REWRITE,
                broken: false,
            }),
            to_write: Notify::new(),
            settled: watch::Sender::new(0),
        }
    }

    /// Takes a record; gives its number, too.
    pub fn take(&self, line: io::Result<String>) -> (Written, u64) {
        let (sender, written) = oneshot::channel();
        let mut desk = self.desk();
        match line {
            Ok(line) => {
                desk.taken += 1;
                desk.waiting.push((line, sender));
            }
            // Nobody waits any more: fine.
            Err(error) => drop(sender.send(Err(fault(&error)))),
        }
        let number = desk.taken;
        drop(desk);
        self.to_write.notify_one();
        (written, number)
    }

    pub fn settled(&self) -> u64 {
        *self.settled.borrow()
    }

    pub async fn flush(&self) {
        let taken = self.desk().taken;
        let mut settled = self.settled.subscribe();
        // The sender lives as long as this does.
        let _ = settled.wait_for(|settled| *settled >= taken).await;
    }

    /// Writes for ever. `all` are the records that stand for everything taken
    /// so far; `told` is called after each write.
    pub async fn write(&self, all: impl Fn() -> Vec<Record>, told: impl Fn()) {
        loop {
            let Some(batch) = self.next() else {
                self.to_write.notified().await;
                continue;
            };
            let result = if batch.rewrite {
                self.rewrite(&batch, &all).await
            } else {
                self.journal.append(&batch.lines).await
            };
            if let Err(error) = &result {
                tracing::error!(%error, "the ledger cannot be written");
                self.desk().broken = true;
            }
            if !batch.rewrite {
                self.desk().lines += batch.lines.len();
            }
            for waiter in batch.waiters {
                // Nobody waits any more: fine.
                let _ = waiter.send(result.as_ref().map_err(fault).copied());
            }
            self.settled.send_replace(batch.last);
            told();
        }
    }

    async fn rewrite(&self, batch: &Batch, all: &impl Fn() -> Vec<Record>) -> io::Result<()> {
        let lines = all()
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<Vec<_>, _>>()?;
        match self.journal.replace(&lines).await {
            Ok(()) => {
                let mut desk = self.desk();
                desk.broken = false;
                desk.lines = lines.len();
                desk.rewrite_at = lines.len() * 2 + MIN_RECORDS_BEFORE_REWRITE;
                Ok(())
            }
            // There may be no room for another file, but some in this one.
            Err(error) if !batch.broken => {
                tracing::warn!(%error, "the ledger cannot be rewritten yet");
                self.journal.append(&batch.lines).await?;
                let mut desk = self.desk();
                desk.lines += batch.lines.len();
                desk.rewrite_at = desk.lines + MIN_RECORDS_BEFORE_REWRITE;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn next(&self) -> Option<Batch> {
        let mut desk = self.desk();
        if desk.waiting.is_empty() {
            return None;
        }
        let (lines, waiters) = std::mem::take(&mut desk.waiting).into_iter().unzip();
        Some(Batch {
            lines,
            waiters,
            last: desk.taken,
            rewrite: desk.broken || desk.lines >= desk.rewrite_at,
            broken: desk.broken,
        })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while the desk is half changed.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault(error: &io::Error) -> Fault {
    Fault::io("writing the ledger", error)
}
