//! How far a transfer is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use vimana_model::operation::Progress;
use vimana_protocol::agent::CommandRef;

use crate::ledger::Ledger;
use crate::limits::PROGRESS_EVERY;

/// Counts the bytes a command moves, for the server to show. Clones count
/// together.
#[derive(Clone, Default)]
pub struct Meter(Option<Arc<Gauge>>);

struct Gauge {
    command: CommandRef,
    ledger: Arc<Ledger>,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    moved: u64,
    expected: u64,
    /// The most that was told: what is shown does not run backwards.
    told: u64,
    told_at: Option<Instant>,
}

impl Meter {
    /// Nobody looks at it.
    #[must_use]
    pub fn silent() -> Self {
        Self(None)
    }

    pub(crate) fn of(command: CommandRef, ledger: Arc<Ledger>) -> Self {
        Self(Some(Arc::new(Gauge {
            command,
            ledger,
            count: Mutex::default(),
        })))
    }

    /// So many more bytes are to be moved.
    pub fn expect(&self, bytes: u64) {
        self.change(|count| count.expected = count.expected.saturating_add(bytes));
    }

    pub fn moved(&self, bytes: u64) {
        self.change(|count| count.moved = count.moved.saturating_add(bytes));
    }

    /// So many bytes have to be moved once more.
    pub fn moved_in_vain(&self, bytes: u64) {
        self.change(|count| count.moved = count.moved.saturating_sub(bytes));
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        let Some(gauge) = &self.0 else { return };
        let mut count = gauge.count.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut count);
        let is_due = count
            .told_at
            .is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if !is_due || count.expected == 0 {
            return;
        }
        count.told_at = Some(Instant::now());
        let progress = Progress {
            done_bytes: count.show(),
            total_bytes: count.expected,
            copy: None,
        };
        gauge.ledger.progress(gauge.command, progress);
    }
}

impl Count {
    /// What is told: what has to be moved once more takes nothing back.
    fn show(&mut self) -> u64 {
        self.told = self.told.max(self.moved.min(self.expected));
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_does_not_run_backwards() {
        let mut count = Count {
            expected: 100,
            ..Count::default()
        };
        for (moved, shown) in [(40, 40), (0, 40), (25, 40), (41, 41), (120, 100)] {
            count.moved = moved;
            assert_eq!(count.show(), shown);
        }
    }
}
