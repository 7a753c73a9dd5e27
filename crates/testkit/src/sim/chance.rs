//! Chance that repeats itself: all of a run's draws come from its seed.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Clones draw from the same row of numbers.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A row of its own, so that one part's draws do not shift another's.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::from_seed(self.number())
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.with(|rng| rng.random())
    }

    /// Evenly from 0 up to, not including, `n`; 0 where there is nothing.
    #[must_use]
    pub fn below(&self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        self.with(|rng| rng.random_range(0..n))
    }

    /// Once in `n` times; never for 0.
    #[must_use]
    pub fn one_in(&self, n: u32) -> bool {
        n > 0 && self.with(|rng| rng.random_range(0..n)) == 0
    }

    /// So many milliseconds.
    #[must_use]
    pub fn ms(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.with(|rng| rng.random_range(range)))
    }

    #[must_use]
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
