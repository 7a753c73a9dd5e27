//! What was commanded, how it ended, and what the server has not been told
//! yet.
//!
//! Every command is in the [`Journal`] before it has an effect, and its
//! outcome before the server is told, but for one that is found out again
//! ([`holds_by_itself`]). So a command that comes again, be it
//! after the agent was killed, is answered and not carried out; and one that
//! is older than what was already commanded for its VM is refused.

mod books;
mod pen;
mod reports;
mod vm_book;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vimana_driver::{Fault, FaultKind, Observed};
use vimana_model::operation::Progress;
use vimana_model::{VmId, VolumeId};
use vimana_protocol::agent::{Command, CommandRef, FromAgent, Outcome, VolumeOrder};

pub use pen::Written;

use crate::journal::Journal;
use books::{Books, Record};
use pen::Pen;
use reports::Reports;

/// What to do about a command that arrived.
pub enum Arrival {
    /// Run it once its record is written.
    New(Written),
    /// Under way or answered: nothing to do.
    Known,
}

/// Shared between the session and the work.
pub struct Ledger {
    inner: Mutex<Inner>,
    pen: Pen,
    reports: Reports,
}

struct Inner {
    books: Books,
    /// Of the last session that is on disk; the books may be ahead of it.
    session_number: u64,
    /// Commands under way, with the claim under which each came last.
    active: BTreeMap<CommandRef, u64>,
}

impl Ledger {
    /// Reads what earlier agents of this host recorded.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub async fn open(journal: Arc<dyn Journal>) -> io::Result<Self> {
        let records = journal.read().await?;
        let books = read(&records);
        Ok(Self {
            inner: Mutex::new(Inner {
                session_number: books.session_number,
                books,
                active: BTreeMap::new(),
            }),
            pen: Pen::new(journal, records.len()),
            reports: Reports::default(),
        })
    }

    /// Writes records down, for as long as it is polled; nothing becomes
    /// durable without it.
    pub async fn keep(&self) {
        self.pen
            .write(|| self.inner().books.records(), || self.reports.wake())
            .await;
    }

    /// Waits until all that was recorded so far is written or has failed.
    pub async fn flush(&self) {
        self.pen.flush().await;
    }

    /// What the host holds, at the agent's start: of other VMs nothing is
    /// left, and no run is later than the one that is here.
    pub fn compare(&self, inventory: &[Observed]) {
        let mut inner = self.inner();
        for observed in inventory {
            inner.books.apply(Record::Run {
                vm_id: observed.vm_id,
                run_epoch: observed.run_epoch,
            });
        }
        let gone: Vec<VmId> = inner
            .books
            .held()
            .filter(|vm_id| inventory.iter().all(|observed| observed.vm_id != *vm_id))
            .collect();
        for vm_id in gone {
            inner.books.apply(Record::Gone { vm_id });
        }
    }

    /// The number of the last session that is on disk; 0 before the first.
    #[must_use]
    pub fn session_number(&self) -> u64 {
        self.inner().session_number
    }

    /// Ends once the number of the session to come is durable.
    ///
    /// # Errors
    /// It cannot be written: no session may begin, and the number before is
    /// still the one to name.
    pub async fn begin_session(&self, session_number: u64) -> Result<(), Fault> {
        let (written, _) = self.record(&mut self.inner(), Record::Session { session_number });
        // Gone where the agent ends; then so does this.
        written.await.unwrap_or(Ok(()))?;
        self.inner().session_number = session_number;
        Ok(())
    }

    /// Takes a command in. One that is known is answered with what it ended
    /// with, or will be when it ends; one that is out of date is refused.
    /// Where there is no `room` for it, a new one is sent back.
    pub fn arrive(&self, command: &Command, work: &str, room: Result<(), Fault>) -> Arrival {
        let mut inner = self.inner();
        let refuse = |fault| {
            let outcome = Outcome::Fault { fault };
            self.answer(command.command, command.claim_epoch, outcome, 0);
            Arrival::Known
        };
        let mut claims_more = true;
        if let Some(vm) = inner.books.vm(command.vm_id) {
            if let Err(why) = vm.judge(command) {
                return refuse(Fault::new(FaultKind::Superseded, why));
            }
            let claimed = vm.claim_epoch(command.command.operation_id);
            claims_more = claimed < Some(command.claim_epoch) || command.run_epoch > vm.run_epoch;
            if let Some(outcome) = vm.outcome(command.command).cloned() {
                let after = self.claim(&mut inner, command, claims_more);
                self.answer(command.command, command.claim_epoch, outcome, after);
                return Arrival::Known;
            }
        }
        if inner.active.contains_key(&command.command) {
            self.claim(&mut inner, command, claims_more);
            inner.active.insert(command.command, command.claim_epoch);
            return Arrival::Known;
        }
        if let Err(fault) = room {
            return refuse(fault);
        }
        inner.active.insert(command.command, command.claim_epoch);
        let begun = Record::Begun {
            vm_id: command.vm_id,
            run_epoch: command.run_epoch,
            claim_epoch: command.claim_epoch,
            command: command.command,
            work: work.to_owned(),
        };
        Arrival::New(self.record(&mut inner, begun).0)
    }

    /// A command ended; `cleaned` where nothing of its VM is left.
    pub fn end(&self, vm_id: VmId, command: CommandRef, outcome: Outcome, cleaned: bool) {
        let mut inner = self.inner();
        let claim_epoch = inner.active.remove(&command).unwrap_or_default();
        let ended = Record::Ended {
            vm_id,
            command,
            outcome: outcome.clone(),
            cleaned,
        };
        let (_, after) = self.record(&mut inner, ended);
        let told_after = if holds_by_itself(&outcome) { 0 } else { after };
        self.answer(command, claim_epoch, outcome, told_after);
    }

    /// A command that could not be recorded ends without an effect.
    pub fn give_up(&self, vm_id: VmId, command: CommandRef, fault: Fault) {
        let mut inner = self.inner();
        let claim_epoch = inner.active.remove(&command).unwrap_or_default();
        inner.books.strike(vm_id, command);
        self.answer(command, claim_epoch, Outcome::Fault { fault }, 0);
    }

    /// Answers a command that is not to be remembered.
    pub fn refuse(&self, command: CommandRef, claim_epoch: u64, fault: Fault) {
        self.answer(command, claim_epoch, Outcome::Fault { fault }, 0);
    }

    /// A machine that is not recorded shall go; gives the highest run that is
    /// known of it.
    pub fn discard(&self, vm_id: VmId, run_epoch: u64) -> (u64, Written) {
        let mut inner = self.inner();
        let (written, _) = self.record(&mut inner, Record::Run { vm_id, run_epoch });
        let known = inner.books.vm(vm_id).map(|vm| vm.run_epoch);
        (known.unwrap_or(run_epoch), written)
    }

    /// Nothing is left of a volume that was deleted.
    pub fn volume_removed(&self, volume_id: VolumeId) {
        self.reports
            .queue(FromAgent::VolumeRemoved { volume_id }, 0);
    }

    /// A volume's content does not come.
    pub fn volume_not_sent(&self, order: VolumeOrder, fault: Fault) {
        self.reports
            .queue(FromAgent::VolumeNotSent { order, fault }, 0);
    }

    /// Nothing is left of a machine that was to go.
    pub fn discarded(&self, vm_id: VmId) {
        let (_, after) = self.record(&mut self.inner(), Record::Gone { vm_id });
        self.reports.queue(FromAgent::Discarded { vm_id }, after);
    }

    /// How far a command is; the server need not learn of every step.
    pub fn progress(&self, command: CommandRef, progress: Progress) {
        if self.inner().active.contains_key(&command) {
            self.reports.progress(command, progress);
        }
    }

    /// The next report to send; waits for one. Dropping the future loses nothing.
    pub async fn report(&self) -> FromAgent {
        self.reports.next(|| self.pen.settled()).await
    }

    /// Puts a report back that could not be sent.
    pub fn put_back(&self, report: FromAgent) {
        self.reports.put_back(report);
    }

    /// Records that the server claims more than before, if it does; gives the
    /// record that must be written before anything is said under the claim.
    fn claim(&self, inner: &mut Inner, command: &Command, claims_more: bool) -> u64 {
        if !claims_more {
            return 0;
        }
        let claimed = Record::Claimed {
            vm_id: command.vm_id,
            run_epoch: command.run_epoch,
            claim_epoch: command.claim_epoch,
            operation_id: command.command.operation_id,
        };
        self.record(inner, claimed).1
    }

    fn record(&self, inner: &mut Inner, record: Record) -> (Written, u64) {
        // Records are plain: writing them as JSON cannot fail. If it did,
        // nothing may be done upon them.
        let line = serde_json::to_string(&record).map_err(io::Error::other);
        inner.books.apply(record);
        self.pen.take(line)
    }

    fn answer(&self, command: CommandRef, claim_epoch: u64, outcome: Outcome, after: u64) {
        self.reports.forget_progress(command);
        let done = FromAgent::Done {
            command,
            claim_epoch,
            outcome,
        };
        self.reports.queue(done, after);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change above leaves the books whole, also when it panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an outcome is found out again, should it be told and then not be recorded:
/// that a machine has left, as long as its process lives, or that a volume is where it
/// was to go. A guest stands still until the server knows of the first.
const fn holds_by_itself(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ok { sent: Some(_), .. })
}

/// The number of the last session of the host whose journal it is; 0 before
/// the first.
///
/// # Errors
/// Where it cannot be read.
pub async fn session_number(journal: &dyn Journal) -> io::Result<u64> {
    Ok(read(&journal.read().await?).session_number)
}

fn read(records: &[String]) -> Books {
    let mut books = Books::default();
    for record in records {
        match serde_json::from_str(record) {
            Ok(record) => books.apply(record),
            Err(error) => tracing::warn!(%error, "a record of the ledger makes no sense"),
        }
    }
    books
}
