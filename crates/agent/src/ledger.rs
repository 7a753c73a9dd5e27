//! Which commands run, how the last ones ended, and what the server has not
//! been told yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vimana_protocol::agent::{CommandRef, Outcome};

use crate::limits::{MAX_REMEMBERED_OUTCOMES, MAX_UNSENT_OUTCOMES};

/// What to do about a command that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Never seen: run it.
    New,
    /// Under way or answered: nothing to do.
    Known,
}

/// Shared between the session and the work.
#[derive(Debug, Default)]
pub struct Ledger {
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Books {
    /// None while it runs.
    commands: HashMap<CommandRef, Option<Outcome>>,
    /// Ended commands, oldest first.
    ended: VecDeque<CommandRef>,
    unsent: VecDeque<(CommandRef, Outcome)>,
}

impl Ledger {
    /// Registers a command. One that already ended is answered again with
    /// what it ended with.
    pub fn arrive(&self, command: CommandRef) -> Arrival {
        let mut books = self.books();
        match books.commands.get(&command) {
            None => {
                books.commands.insert(command, None);
                Arrival::New
            }
            Some(None) => Arrival::Known,
            Some(Some(outcome)) => {
                let outcome = outcome.clone();
                books.queue(command, outcome);
                drop(books);
                self.changed.notify_one();
                Arrival::Known
            }
        }
    }

    /// A command ended.
    pub fn end(&self, command: CommandRef, outcome: Outcome) {
        let mut books = self.books();
        books.commands.insert(command, Some(outcome.clone()));
        books.ended.push_back(command);
        if books.ended.len() > MAX_REMEMBERED_OUTCOMES
            && let Some(oldest) = books.ended.pop_front()
        {
            books.commands.remove(&oldest);
        }
        books.queue(command, outcome);
        drop(books);
        self.changed.notify_one();
    }

    /// The next outcome to send; waits for one. Dropping the future loses nothing.
    pub async fn unsent(&self) -> (CommandRef, Outcome) {
        loop {
            // Bound first: the lock must not live across the wait.
            let next = self.books().unsent.pop_front();
            match next {
                Some(entry) => return entry,
                None => self.changed.notified().await,
            }
        }
    }

    /// Puts an outcome back that could not be sent.
    pub fn put_back(&self, command: CommandRef, outcome: Outcome) {
        self.books().unsent.push_front((command, outcome));
        self.changed.notify_one();
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change above leaves the books whole, also when it panics.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn queue(&mut self, command: CommandRef, outcome: Outcome) {
        if self.unsent.len() >= MAX_UNSENT_OUTCOMES {
            self.unsent.pop_front();
        }
        self.unsent.push_back((command, outcome));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use vimana_model::OperationId;

    use super::*;

    fn command(n: u64) -> CommandRef {
        CommandRef {
            operation_id: OperationId::from_parts(n, [0; 10]),
            step: 0,
        }
    }

    fn ok() -> Outcome {
        Outcome::Ok { note: None }
    }

    #[test]
    fn a_command_runs_once_and_its_outcome_is_repeated() {
        let ledger = Ledger::default();
        assert_eq!(ledger.arrive(command(1)), Arrival::New);
        assert_eq!(ledger.arrive(command(1)), Arrival::Known);
        assert_eq!(ledger.unsent().now_or_never(), None);
        ledger.end(command(1), ok());
        assert_eq!(ledger.unsent().now_or_never(), Some((command(1), ok())));
        assert_eq!(ledger.arrive(command(1)), Arrival::Known);
        assert_eq!(ledger.unsent().now_or_never(), Some((command(1), ok())));
        assert_eq!(ledger.unsent().now_or_never(), None);
    }

    #[test]
    fn the_books_stay_bounded_and_keep_the_newest() {
        let ledger = Ledger::default();
        let total = MAX_REMEMBERED_OUTCOMES as u64 + 10;
        for n in 0..total {
            ledger.arrive(command(n));
            ledger.end(command(n), ok());
        }
        let books = ledger.books();
        assert_eq!(books.commands.len(), MAX_REMEMBERED_OUTCOMES);
        assert_eq!(books.unsent.len(), MAX_UNSENT_OUTCOMES);
        assert!(books.commands.contains_key(&command(total - 1)));
        assert!(!books.commands.contains_key(&command(0)));
    }
}
