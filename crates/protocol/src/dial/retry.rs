//! When to dial again, and the randomness that keeps peers out of step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::limits::{RETRY_CAP, RETRY_FIRST};

/// Where a peer takes its randomness from; clones draw from the same.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// Unpredictable.
    #[must_use]
    pub fn from_system() -> Self {
        Self::from_rng(StdRng::from_os_rng())
    }

    /// The same every time.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::from_rng(StdRng::seed_from_u64(seed))
    }

    /// Evenly anywhere from nothing up to `most`.
    #[must_use]
    pub fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.with(|rng| rng.random_range(0.0..=1.0)))
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.with(|rng| rng.random())
    }

    fn from_rng(rng: StdRng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long to wait between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub first: Duration,
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: RETRY_FIRST,
            cap: RETRY_CAP,
        }
    }
}

/// Waits whose upper bound doubles up to the cap. Each is drawn from nothing
/// up to its bound, so that the thousand peers of a restarted server come back
/// evenly spread and not in one instant.
#[derive(Debug)]
pub struct Backoff {
    retry: Retry,
    next: Duration,
    random: Random,
}

impl Backoff {
    /// With the system's randomness.
    #[must_use]
    pub fn new(retry: Retry) -> Self {
        Self::with(retry, Random::from_system())
    }

    #[must_use]
    pub fn with(retry: Retry, random: Random) -> Self {
        Self {
            retry,
            next: retry.first,
            random,
        }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let bound = self.next.min(self.retry.cap);
        self.next = bound.saturating_mul(2);
        self.random.up_to(bound)
    }

    /// A session ended that had lasted `lasted`. Only one that outlived the
    /// cap proves that the server is well.
    pub fn session_ended(&mut self, lasted: Duration) {
        if lasted >= self.retry.cap {
            self.next = self.retry.first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many waits, each the first after `before` others.
    fn longest(before: u32) -> Duration {
        let random = Random::from_seed(7);
        let mut waits = Vec::new();
        for _ in 0..200 {
            let mut backoff = Backoff::with(Retry::default(), random.clone());
            for _ in 0..before {
                backoff.wait();
            }
            waits.push(backoff.wait());
        }
        waits.into_iter().max().unwrap()
    }

    #[test]
    fn the_bound_of_waits_doubles_up_to_the_cap() {
        for (before, bound_ms) in [
            (0, 200),
            (1, 400),
            (2, 800),
            (4, 3200),
            (5, 5000),
            (9, 5000),
        ] {
            let bound = Duration::from_millis(bound_ms);
            let longest = longest(before);
            assert!(
                longest <= bound && longest > bound.mul_f64(0.9),
                "{longest:?} of {bound:?}"
            );
        }
    }

    #[test]
    fn only_a_good_session_makes_waits_short_again() {
        let mut backoff = Backoff::with(Retry::default(), Random::from_seed(1));
        for _ in 0..10 {
            backoff.wait();
        }
        backoff.session_ended(Duration::from_secs(1));
        assert_eq!(backoff.next, RETRY_CAP.saturating_mul(2));
        backoff.session_ended(Duration::from_secs(60));
        assert!(backoff.wait() <= RETRY_FIRST);
    }

    #[test]
    fn a_thousand_peers_come_back_spread_over_the_whole_wait() {
        let random = Random::from_seed(3);
        let first_half = (0..1000)
            .map(|_| Backoff::with(Retry::default(), random.clone()).wait())
            .filter(|wait| *wait < RETRY_FIRST / 2)
            .count();
        assert!((400..600).contains(&first_half), "{first_half}");
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        let waits = |seed| {
            let mut backoff = Backoff::with(Retry::default(), Random::from_seed(seed));
            (0..5).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
