//! The server's wall clock: virtual time, and steps that people make.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use vimana_engine::Clock;
use vimana_model::Timestamp;

/// When every run begins: the first of January 2026.
const BEGIN_MS: i64 = 1_767_225_600_000;

/// Goes with tokio's time, but for the steps.
#[derive(Debug)]
pub struct SimClock {
    started: Instant,
    offset_ms: AtomicI64,
}

impl SimClock {
    #[must_use]
    pub fn begin() -> Self {
        Self {
            started: Instant::now(),
            offset_ms: AtomicI64::new(0),
        }
    }

    /// Somebody sets the clock.
    pub fn step(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Since the run began, whatever the clock shows.
    #[must_use]
    pub fn passed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.passed_ms()).unwrap_or(i64::MAX);
        let shown = passed.saturating_add(self.offset_ms.load(Ordering::Relaxed));
        Timestamp::from_ms(BEGIN_MS.saturating_add(shown))
    }

    fn passed(&self) -> Duration {
        self.started.elapsed()
    }
}
