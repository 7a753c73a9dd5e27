//! What time it is: by the wall clock, which people and other machines set,
//! and by the time that passes, which nobody can.
//!
//! What is recorded is recorded by the wall clock, since other servers and the
//! next process read it. A clock that is set back leaves records of the future,
//! which the sweep brings back to now; one that leaps forward must end nothing
//! early, and only the process that saw it leap can tell: [`World::now_to_end`].
//!
//! [`World::now_to_end`]: crate::World::now_to_end

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vimana_model::Timestamp;

use crate::limits::{CLOCK_LEAP_MS, MAX_CLOCK_LEAPS};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// What the wall clock shows.
    fn now(&self) -> Timestamp;

    /// How long it is since a moment that stays the same for this process,
    /// however the wall clock is set.
    fn passed(&self) -> Duration;
}

/// The machine's own clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        Timestamp::from_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Since the machine's start, its sleep included.
    fn passed(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }
}

/// How the wall clock leapt forward, as far as this process has seen it.
#[derive(Default)]
pub struct Leaps {
    /// Both clocks at the last look.
    seen: Option<(Timestamp, Duration)>,
    /// The latest last.
    leaps: Vec<Leap>,
}

struct Leap {
    at: Duration,
    ms: i64,
}

impl Leaps {
    /// A look at both clocks.
    pub fn look(&mut self, now: Timestamp, passed: Duration) {
        let Some((before, then)) = self.seen.replace((now, passed)) else {
            return;
        };
        let ms = now
            .since_ms(before)
            .saturating_sub(ms(passed.saturating_sub(then)));
        if ms > CLOCK_LEAP_MS {
            tracing::warn!(ms, "the clock was set forward");
            if self.leaps.len() >= MAX_CLOCK_LEAPS {
                self.leaps.remove(0);
            }
            self.leaps.push(Leap { at: passed, ms });
        } else if ms < -CLOCK_LEAP_MS {
            tracing::warn!(ms, "the clock was set back");
            self.take_back(ms.saturating_neg());
        }
    }

    /// A clock that goes back undoes what it leapt before.
    fn take_back(&mut self, mut ms: i64) {
        while ms > 0
            && let Some(leap) = self.leaps.last_mut()
        {
            let taken = leap.ms.min(ms);
            leap.ms -= taken;
            ms -= taken;
            if leap.ms == 0 {
                self.leaps.pop();
            }
        }
    }

    /// How far the clock leapt within the `life` that ends at `passed`. What
    /// began before such a leap has ended by itself when the leap is as old,
    /// and what began after it was not moved.
    pub fn within(&self, life: Duration, passed: Duration) -> i64 {
        let young = |leap: &&Leap| passed.saturating_sub(leap.at) < life;
        let leaps = self.leaps.iter().filter(young);
        leaps.fold(0, |sum, leap| leap.ms.saturating_add(sum))
    }
}

/// In milliseconds, as times of the wall clock are counted.
pub fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const LIFE: Duration = Duration::from_secs(12 * 3600);

    /// Two clocks that are moved by hand.
    #[derive(Default)]
    struct Clocks {
        leaps: Leaps,
        wall_ms: i64,
        passed_ms: i64,
    }

    impl Clocks {
        fn look(&mut self) {
            let passed = self.passed();
            self.leaps.look(Timestamp::from_ms(self.wall_ms), passed);
        }

        fn passed(&self) -> Duration {
            Duration::from_millis(u64::try_from(self.passed_ms).unwrap())
        }

        fn pass(&mut self, hours: i64) {
            self.wall_ms += hours * HOUR_MS;
            self.passed_ms += hours * HOUR_MS;
            self.look();
        }

        fn step(&mut self, hours: i64) {
            self.wall_ms += hours * HOUR_MS;
            self.look();
        }

        fn within(&self) -> i64 {
            self.leaps.within(LIFE, self.passed()) / HOUR_MS
        }

        /// Whether what began at `began` by the wall clock has ended.
        fn has_ended(&self, began: i64) -> bool {
            let now = self.wall_ms - self.leaps.within(LIFE, self.passed());
            began + 12 * HOUR_MS <= now
        }
    }

    #[test]
    fn time_that_passes_is_no_leap() {
        let mut clocks = Clocks::default();
        clocks.look();
        for _ in 0..100 {
            clocks.pass(5);
            clocks.wall_ms += CLOCK_LEAP_MS;
            clocks.look();
        }
        assert_eq!(clocks.within(), 0);
    }

    #[test]
    fn what_began_before_a_leap_lives_as_long_as_it_would_have() {
        for leap in [1, 30 * 24, 10 * 365 * 24] {
            let mut clocks = Clocks::default();
            clocks.look();
            let before = clocks.wall_ms;
            clocks.pass(5);
            clocks.step(leap);
            let after = clocks.wall_ms;
            assert!(!clocks.has_ended(before) && !clocks.has_ended(after));
            clocks.pass(6);
            assert!(!clocks.has_ended(before), "{leap}");
            clocks.pass(1);
            assert!(clocks.has_ended(before), "{leap}");
            clocks.pass(4);
            assert!(!clocks.has_ended(after), "{leap}");
            clocks.pass(1);
            assert!(clocks.has_ended(after), "{leap}");
            assert_eq!(clocks.within(), 0);
        }
    }

    #[test]
    fn a_clock_that_comes_back_has_not_leapt() {
        let mut clocks = Clocks::default();
        clocks.look();
        clocks.step(1);
        clocks.step(30);
        clocks.step(-20);
        assert_eq!(clocks.within(), 11);
        clocks.step(-20);
        assert_eq!(clocks.within(), 0);
        clocks.step(9);
        assert_eq!(clocks.within(), 9);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut clocks = Clocks::default();
        clocks.look();
        for _ in 0..10_000 {
            clocks.step(1);
        }
        assert_eq!(clocks.leaps.leaps.len(), MAX_CLOCK_LEAPS);
    }
}
