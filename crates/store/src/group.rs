//! The turn to write on SQLite, and one wait for the disk for many writers.
//!
//! A clerk, a task of its own, lends out the one connection that writes. It
//! opens a transaction for the first who asks, gives him a savepoint in it, and
//! when he is done lends the connection on, within the same transaction, for
//! as long as others wait. Then it commits, and only then it tells all of them
//! that theirs is durable. Whoever fails or goes away is undone alone.
//!
//! What a writer found may be what one before him wrote and what is not yet
//! durable; so a refusal, too, is told only when its grounds are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::limits::{MAX_GROUP, MAX_GROUP_AGE, TURN};
use crate::line::Line;
use crate::lock::FileLock;
#[cfg(feature = "simulation")]
use crate::simulation::DiskCall;
use crate::{Result, StoreError};

type Asker = oneshot::Sender<Result<Turn>>;
type Told = oneshot::Sender<Result<()>>;

enum Ask {
    Turn(Asker),
    /// Ends the clerk after all who asked before.
    Close(Told),
}

/// The way to the clerk. It goes home when the last is dropped.
pub struct Group {
    asks: mpsc::UnboundedSender<Ask>,
}

impl Group {
    /// # Errors
    /// There is no tokio runtime here.
    pub fn start(line: Arc<Line>, lock: Option<FileLock>) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| StoreError::Database(error.into()))?;
        // Whoever asks waits for the answer: there are no more asks than tasks.
        let (asks, asked) = mpsc::unbounded_channel();
        runtime.spawn(Clerk { line, asked, lock }.serve());
        Ok(Self { asks })
    }

    /// # Errors
    /// `Busy` when no turn came in time, or the store is closed; or the
    /// database's.
    pub async fn turn(&self) -> Result<Turn> {
        let (asker, answer) = oneshot::channel();
        self.asks
            .send(Ask::Turn(asker))
            .map_err(|_| StoreError::Busy)?;
        timeout(TURN, answer)
            .await
            .map_err(|_| StoreError::Busy)?
            .map_err(|_| StoreError::Busy)?
    }

    pub async fn close(&self) -> Result<()> {
        let (told, answer) = oneshot::channel();
        if self.asks.send(Ask::Close(told)).is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}

/// The connection, for one writer. Dropping it undoes what he did.
pub struct Turn {
    line: Arc<Line>,
    /// A statement failed, or nobody waited for its end. SQLite may have given
    /// up the whole transaction with it, and whatever comes next would be on
    /// its own: nothing may.
    spoiled: AtomicBool,
    back: oneshot::Sender<Back>,
}

struct Back {
    keep: bool,
    told: Told,
}

impl Turn {
    /// Ends once everything is durable, or nothing.
    pub async fn commit(self) -> Result<()> {
        let spoiled = self.spoiled.load(Ordering::Acquire);
        self.end(!spoiled).await?;
        if spoiled {
            return Err(StoreError::Database(SPOILED.into()));
        }
        Ok(())
    }

    /// Ends once what was found here is durable, too. `Busy` when it never will
    /// be.
    pub async fn rollback(self) -> Result<()> {
        self.end(false).await
    }

    async fn end(self, keep: bool) -> Result<()> {
        let (told, answer) = oneshot::channel();
        self.back
            .send(Back { keep, told })
            .map_err(|_| StoreError::Busy)?;
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) if keep => Err(StoreError::Database(
                "stopped before it was known to be durable".into(),
            )),
            Err(_) => Err(StoreError::Busy),
        }
    }

    fn statement(&self) -> Result<Watch<'_>, DbErr> {
        if self.spoiled.load(Ordering::Acquire) {
            return Err(DbErr::Custom(SPOILED.to_owned()));
        }
        Ok(Watch(Some(&self.spoiled)))
    }
}

const SPOILED: &str = "an earlier statement of the transaction failed";

/// A statement under way; dropped before its end, it has failed.
struct Watch<'a>(Option<&'a AtomicBool>);

impl Watch<'_> {
    fn end<T>(mut self, outcome: Result<T, DbErr>) -> Result<T, DbErr> {
        if outcome.is_ok() {
            self.0 = None;
        }
        outcome
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(spoiled) = self.0 {
            spoiled.store(true, Ordering::Release);
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Turn {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Sqlite
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let watch = self.statement()?;
        watch.end(self.line.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let watch = self.statement()?;
        watch.end(self.line.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let watch = self.statement()?;
        watch.end(self.line.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let watch = self.statement()?;
        watch.end(self.line.query_all_raw(statement).await)
    }
}

struct Clerk {
    line: Arc<Line>,
    asked: mpsc::UnboundedReceiver<Ask>,
    /// Held until the last commit is done, however the store ended.
    lock: Option<FileLock>,
}

/// Those who wait for one commit.
#[derive(Default)]
struct Members {
    /// How many of them wrote something.
    kept: usize,
    waiting: Vec<Back>,
}

impl Clerk {
    async fn serve(mut self) {
        while let Some(ask) = self.asked.recv().await {
            let closer = match ask {
                Ask::Turn(asker) => self.group(asker).await,
                Ask::Close(told) => Some(told),
            };
            if let Some(told) = closer {
                // Before the last is closed: who asks from now on is refused.
                self.asked.close();
                let closed = self.line.close().await;
                drop(self.lock.take());
                told.send(closed).ok();
                return;
            }
        }
        if let Err(error) = self.line.close().await {
            tracing::debug!(%error, "closing the database failed");
        }
    }

    /// One transaction, from its begin to its end. Says who wants it closed.
    async fn group(&mut self, mut asker: Asker) -> Option<Told> {
        if let Err(error) = self.open().await {
            asker.send(Err(error)).ok();
            return None;
        }
        let mut members = Members::default();
        let start = Instant::now();
        loop {
            let back = self.lend(asker).await;
            let kept = matches!(back, Some(Back { keep: true, .. }));
            let left = match back {
                Some(Back { keep: true, .. }) => Ok(()),
                Some(Back { keep: false, .. }) | None => self.line.run("ROLLBACK TO member").await,
            };
            members.add(back);
            if let Err(error) = left {
                // SQLite gave up the whole transaction, for want of room or
                // memory. Those who wait did nothing wrong.
                tracing::warn!(%error, "a transaction took its group down");
                self.undo().await;
                members.tell(&Err(StoreError::Busy));
                return None;
            }
            let full = members.waiting.len() >= MAX_GROUP || start.elapsed() >= MAX_GROUP_AGE;
            let (next, closer) = if full { (None, None) } else { self.next() };
            let Some(next) = next else {
                let outcome = self.end(members.kept).await;
                members.tell(&outcome);
                return closer;
            };
            if kept && let Err(error) = self.line.run("RELEASE member; SAVEPOINT member").await {
                self.undo().await;
                members.tell(&Err(error.into()));
                next.send(Err(StoreError::Busy)).ok();
                return closer;
            }
            asker = next;
        }
    }

    /// Whoever waits for a turn by now and still wants it; or to close.
    fn next(&mut self) -> (Option<Asker>, Option<Told>) {
        loop {
            match self.asked.try_recv() {
                Ok(Ask::Turn(asker)) if asker.is_closed() => {}
                Ok(Ask::Turn(asker)) => return (Some(asker), None),
                Ok(Ask::Close(told)) => return (None, Some(told)),
                Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => {
                    return (None, None);
                }
            }
        }
    }

    /// Ends when the turn came back: `None` when nobody waits for its end.
    async fn lend(&self, asker: Asker) -> Option<Back> {
        let (back, returned) = oneshot::channel();
        let turn = Turn {
            line: Arc::clone(&self.line),
            spoiled: AtomicBool::new(false),
            back,
        };
        asker.send(Ok(turn)).ok()?;
        returned.await.ok()
    }

    async fn open(&self) -> Result<()> {
        #[cfg(feature = "simulation")]
        self.line.pause(DiskCall::Begin).await?;
        // Not SQLite's default, a deferred one: that fails unretryably when it
        // turns from reading to writing.
        let begun = self.line.run("BEGIN IMMEDIATE; SAVEPOINT member").await;
        let Err(error) = begun.map_err(StoreError::from) else {
            return Ok(());
        };
        self.undo().await;
        match error {
            StoreError::Busy | StoreError::Full => {}
            StoreError::Conflict
            | StoreError::Away
            | StoreError::Duplicate { .. }
            | StoreError::Corrupt { .. }
            | StoreError::InUse { .. }
            | StoreError::Schema { .. }
            | StoreError::Database(_) => self.line.renew().await,
        }
        Err(error)
    }

    async fn end(&self, kept: usize) -> Result<()> {
        if kept == 0 {
            self.undo().await;
            return Ok(());
        }
        let committed = self.commit().await;
        if committed.is_err() {
            self.undo().await;
        }
        committed?;
        #[cfg(feature = "simulation")]
        if let Err(error) = self.line.pause(DiskCall::Committed).await {
            // Nobody may try again what is durable.
            return Err(StoreError::Database(error.to_string().into()));
        }
        Ok(())
    }

    async fn commit(&self) -> Result<()> {
        #[cfg(feature = "simulation")]
        self.line.pause(DiskCall::Commit).await?;
        Ok(self.line.run("COMMIT").await?)
    }

    async fn undo(&self) {
        if let Err(error) = self.line.run("ROLLBACK").await {
            // As a rule because SQLite has done so already.
            tracing::debug!(%error, "rollback failed");
        }
    }
}

impl Members {
    fn add(&mut self, back: Option<Back>) {
        let Some(back) = back else {
            return;
        };
        if back.keep {
            self.kept = self.kept.saturating_add(1);
        }
        if self.kept == 0 {
            // He saw nothing but what is durable.
            back.told.send(Ok(())).ok();
        } else {
            self.waiting.push(back);
        }
    }

    fn tell(self, outcome: &Result<()>) {
        for Back { keep, told } in self.waiting {
            let outcome = match outcome {
                Ok(()) => Ok(()),
                Err(error) if keep => Err(error.again()),
                // What he found is gone: he has to look again.
                Err(_) => Err(StoreError::Busy),
            };
            told.send(outcome).ok();
        }
    }
}
