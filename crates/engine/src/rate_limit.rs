//! Token buckets, one per key, with a bound on how many are remembered.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

struct Bucket {
    /// Tries left, counted down; refilled with time.
    left: f64,
    at: Instant,
}

/// Lets `burst` tries through at once and one more every `refill`.
pub struct RateLimit<K> {
    burst: f64,
    refill: Duration,
    most: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> RateLimit<K> {
    pub fn new(burst: u32, refill: Duration, most: usize) -> Self {
        Self {
            burst: f64::from(burst),
            refill,
            most,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one try; false when none is left.
    pub fn take(&self, key: K) -> bool {
        self.take_at(key, Instant::now())
    }

    /// Puts one try back, after it turned out to be rightful.
    pub fn give_back(&self, key: &K) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.left = (bucket.left + 1.0).min(self.burst);
        }
    }

    fn take_at(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= self.most {
            // Full buckets say nothing; only when all are in use may a
            // stranger push out the rest.
            let (burst, refill) = (self.burst, self.refill);
            buckets.retain(|_, bucket| refilled(bucket, now, burst, refill) < burst);
            if buckets.len() >= self.most {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            left: self.burst,
            at: now,
        });
        bucket.left = refilled(bucket, now, self.burst, self.refill);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

fn refilled(bucket: &Bucket, now: Instant, burst: f64, refill: Duration) -> f64 {
    let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
    (bucket.left + passed / refill.as_secs_f64()).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_let_through_and_then_one_per_refill() {
        let limit = RateLimit::new(2, Duration::from_secs(10), 100);
        let start = Instant::now();
        assert!(limit.take_at("a", start));
        assert!(limit.take_at("a", start));
        assert!(!limit.take_at("a", start));
        assert!(limit.take_at("b", start), "another key has its own bucket");
        let later = start + Duration::from_secs(11);
        assert!(limit.take_at("a", later));
        assert!(!limit.take_at("a", later));
    }

    #[test]
    fn memory_is_bounded() {
        let limit = RateLimit::new(2, Duration::from_secs(10), 100);
        let start = Instant::now();
        for key in 0..10_000 {
            limit.take_at(key, start);
        }
        assert!(limit.buckets.lock().unwrap().len() <= 100);
    }
}
