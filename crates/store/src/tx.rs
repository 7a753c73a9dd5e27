//! One transaction, tried until it passes.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::time::Duration;

use vimana_model::Error;

use crate::limits::{MAX_TRIES, PAUSE_MS};
#[cfg(feature = "simulation")]
use crate::simulation::SimDisk;
use crate::{Store, StoreError, WriteTx};

/// Why the body of a [`write_tx!`](crate::write_tx) gave up.
///
/// Keeps the store's error apart from the engine's, so that the macro knows
/// what to try again.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] Error),
}

impl TxError {
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Engine(_) => false,
        }
    }
}

impl TxError {
    /// Follows from what the body read, rather than from a mishap.
    const fn is_finding(&self) -> bool {
        match self {
            Self::Engine(_)
            | Self::Store(
                StoreError::Conflict | StoreError::Duplicate { .. } | StoreError::Corrupt { .. },
            ) => true,
            Self::Store(
                StoreError::Busy
                | StoreError::Full
                | StoreError::Away
                | StoreError::InUse { .. }
                | StoreError::Schema { .. }
                | StoreError::Database(_),
            ) => false,
        }
    }
}

impl From<TxError> for Error {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Store(error) => error.into(),
            TxError::Engine(error) => error,
        }
    }
}

/// Runs an async body in a transaction: `write_tx!(store, |tx| { … })`.
///
/// `tx` is a [`&WriteTx`](crate::WriteTx). The body ends in
/// `Result<T, TxError>`, so `?` takes both a [`StoreError`] and a
/// [`vimana_model::Error`]; `return` leaves the body, not the function around
/// it. The whole is a `Result<T, vimana_model::Error>`.
///
/// `Ok` commits, `Err` rolls back. A retryable [`StoreError`], from the body
/// or from the commit, runs the body again after a short pause, at most ten
/// times in all; so the body reads what it decides on through `tx`, and has no
/// effect outside of it.
#[macro_export]
macro_rules! write_tx {
    ($store:expr, |$tx:ident| $body:expr) => {{
        let store: &$crate::Store = &$store;
        let mut tries = $crate::tx::Tries::new(store);
        loop {
            let outcome = match store.begin().await {
                ::std::result::Result::Ok(write) => {
                    let $tx: &$crate::WriteTx = &write;
                    let outcome: ::std::result::Result<_, $crate::TxError> = async { $body }.await;
                    $crate::tx::end(write, outcome).await
                }
                ::std::result::Result::Err(error) => {
                    ::std::result::Result::Err($crate::TxError::Store(error))
                }
            };
            match tries.judge(outcome).await {
                ::std::ops::ControlFlow::Break(result) => break result,
                ::std::ops::ControlFlow::Continue(()) => {}
            }
        }
    }};
}

/// Commits or rolls back, as the body ended. For [`write_tx!`](crate::write_tx).
///
/// # Errors
/// The body's, or the commit's.
#[doc(hidden)]
pub async fn end<T>(tx: WriteTx, outcome: Result<T, TxError>) -> Result<T, TxError> {
    match outcome {
        Ok(value) => {
            tx.commit().await?;
            Ok(value)
        }
        Err(error) => {
            match tx.rollback().await {
                Ok(()) => Err(error),
                // Refused because of something that is no longer so.
                Err(gone) if gone.is_retryable() && error.is_finding() => Err(gone.into()),
                // The body's error is the one worth telling; a connection that
                // cannot even roll back is thrown away.
                Err(rollback) => {
                    tracing::debug!(error = %rollback, "rollback failed");
                    Err(error)
                }
            }
        }
    }
}

/// Counts the tries of one [`write_tx!`](crate::write_tx).
#[doc(hidden)]
#[derive(Debug)]
pub struct Tries<'a> {
    store: &'a Store,
    count: u32,
}

impl<'a> Tries<'a> {
    #[must_use]
    pub const fn new(store: &'a Store) -> Self {
        Self { store, count: 0 }
    }

    /// Either the final result, or a pause and another try.
    pub async fn judge<T>(
        &mut self,
        outcome: Result<T, TxError>,
    ) -> ControlFlow<Result<T, Error>, ()> {
        self.count = self.count.saturating_add(1);
        match outcome {
            Err(error) if error.is_retryable() && self.count < MAX_TRIES => {
                tracing::debug!(%error, tries = self.count, "transaction is tried again");
                tokio::time::sleep(self.store.jitter().pause(self.count)).await;
                ControlFlow::Continue(())
            }
            outcome => ControlFlow::Break(outcome.map_err(Error::from)),
        }
    }
}

/// Where the differences between writers come from.
#[derive(Clone, Debug)]
pub(crate) enum Jitter {
    Random,
    #[cfg(feature = "simulation")]
    Simulated(SimDisk),
}

impl Jitter {
    /// A pause that grows with the number of tries and differs between writers,
    /// so that those who met once do not meet again.
    pub(crate) fn pause(&self, tries: u32) -> Duration {
        let longest = PAUSE_MS.saturating_mul(u64::from(tries)).saturating_add(1);
        let chance = match self {
            Self::Random => RandomState::new().hash_one(tries),
            // Far from its neighbours, as the golden ratio has it.
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => disk.next_try().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32,
        };
        Duration::from_millis(chance.checked_rem(longest).unwrap_or(0))
    }
}
