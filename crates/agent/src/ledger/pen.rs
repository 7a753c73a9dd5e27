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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Has room in its file, but none for another file.
    #[derive(Default)]
    struct Tight {
        lines: Mutex<Vec<String>>,
        can_replace: Mutex<bool>,
        can_append: Mutex<bool>,
    }

    fn full(can: &Mutex<bool>) -> io::Result<()> {
        let can = *can.lock().unwrap();
        can.then_some(())
            .ok_or_else(|| io::ErrorKind::StorageFull.into())
    }

    #[async_trait]
    impl Journal for Tight {
        async fn read(&self) -> io::Result<Vec<String>> {
            Ok(self.lines.lock().unwrap().clone())
        }

        async fn append(&self, records: &[String]) -> io::Result<()> {
            full(&self.can_append)?;
            self.lines.lock().unwrap().extend_from_slice(records);
            Ok(())
        }

        async fn replace(&self, records: &[String]) -> io::Result<()> {
            full(&self.can_replace)?;
            *self.lines.lock().unwrap() = records.to_vec();
            Ok(())
        }
    }

    async fn write(pen: &Pen, line: &str) -> Result<(), Fault> {
        let (written, _) = pen.take(Ok(line.to_owned()));
        tokio::select! {
            biased;
            () = pen.write(Vec::new, || {}) => unreachable!(),
            written = written => written.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_full_disk_puts_off_the_rewrite_and_not_the_record() {
        let journal = Arc::new(Tight::default());
        *journal.can_append.lock().unwrap() = true;
        let pen = Pen::new(journal.clone(), MIN_RECORDS_BEFORE_REWRITE);
        write(&pen, "a").await.unwrap();
        write(&pen, "b").await.unwrap();
        assert_eq!(*journal.lines.lock().unwrap(), ["a", "b"]);
    }

    #[tokio::test]
    async fn after_a_failure_nothing_is_added_to_what_nobody_knows() {
        let journal = Arc::new(Tight::default());
        let pen = Pen::new(journal.clone(), 0);
        write(&pen, "a").await.unwrap_err();
        *journal.can_append.lock().unwrap() = true;
        write(&pen, "b").await.unwrap_err();
        assert!(journal.lines.lock().unwrap().is_empty());
        *journal.can_replace.lock().unwrap() = true;
        // Written anew, from what is known: here that is nothing.
        write(&pen, "c").await.unwrap();
        assert!(journal.lines.lock().unwrap().is_empty());
        write(&pen, "d").await.unwrap();
        assert_eq!(*journal.lines.lock().unwrap(), ["d"]);
        assert_eq!(pen.settled(), 4);
    }
}
