//! When to dial again.

use std::time::Duration;

use crate::limits::{RETRY_CAP, RETRY_FIRST};

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

/// Waits that double up to the cap. Each is drawn from its upper half, so that
/// a thousand peers of a restarted server do not come back in one instant.
#[derive(Debug)]
pub struct Backoff {
    retry: Retry,
    next: Duration,
}

impl Backoff {
    #[must_use]
    pub fn new(retry: Retry) -> Self {
        Self {
            retry,
            next: retry.first,
        }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let full = self.next.min(self.retry.cap);
        self.next = full.saturating_mul(2);
        jittered(full)
    }

    /// A session ended that had lasted `lasted`. Only one that outlived the
    /// cap proves that the server is well.
    pub fn session_ended(&mut self, lasted: Duration) {
        if lasted >= self.retry.cap {
            self.next = self.retry.first;
        }
    }
}

fn jittered(full: Duration) -> Duration {
    full.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_again_after_a_good_session() {
        let mut backoff = Backoff::new(Retry::default());
        for full_ms in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.wait();
            let full = Duration::from_millis(full_ms);
            assert!(wait <= full && wait >= full / 2, "{wait:?} of {full:?}");
        }
        backoff.session_ended(Duration::from_secs(1));
        assert!(backoff.wait() > Duration::from_secs(2));
        backoff.session_ended(Duration::from_secs(60));
        assert!(backoff.wait() <= RETRY_FIRST);
    }
}
