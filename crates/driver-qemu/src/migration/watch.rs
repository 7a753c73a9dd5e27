//! How far a copy is, for whoever watches it; and whether it goes on at all.

use tokio::time::Instant;
use vimana_driver::{CopyWatcher, Fault};
use vimana_model::migration::{CopyPhase, CopyProgress};

use super::send::{failed, ms};
use crate::limits::{STALL_TIMEOUT, WATCH_EVERY};

/// How fast it goes, and who is told.
pub struct Watch {
    watcher: CopyWatcher,
    told: Option<(Instant, CopyPhase, u64)>,
    /// The last moment in which anything had moved, and how much had by then.
    moved: (Instant, CopyPhase, u64),
}

impl Watch {
    pub fn new(watcher: CopyWatcher) -> Self {
        Self {
            watcher,
            told: None,
            moved: (Instant::now(), CopyPhase::Disks, 0),
        }
    }

    /// Says how far it is, if that is due. `dirty` is how fast the guest changes
    /// it, and how often it was gone through.
    pub fn tell(&mut self, phase: CopyPhase, left: u64, moved: u64, dirty: (u64, u64)) {
        let now = Instant::now();
        if (self.moved.1, self.moved.2) != (phase, moved) {
            self.moved = (now, phase, moved);
        }
        let rate = match self.told {
            Some((at, _, _)) if now.duration_since(at) < WATCH_EVERY => return,
            Some((at, before, then)) if before == phase => {
                let bytes = moved.saturating_sub(then).saturating_mul(1000);
                bytes
                    .checked_div(ms(now.duration_since(at)))
                    .unwrap_or_default()
            }
            Some(_) | None => 0,
        };
        self.told = Some((now, phase, moved));
        (self.watcher)(CopyProgress {
            phase,
            remaining_bytes: left,
            dirty_bytes_per_s: dirty.0,
            bytes_per_s: rate,
            rounds: dirty.1,
        });
    }

    /// An error where nothing has moved for too long: a network that is cut says
    /// nothing, and a guest that writes would wait for it.
    pub fn goes_on(&self) -> Result<(), Fault> {
        if self.moved.0.elapsed() < STALL_TIMEOUT {
            return Ok(());
        }
        Err(failed("the other host takes nothing any more"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn watcher_is_told_at_once_and_then_twice_a_second_at_most() {
        let seen: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
        let told = Arc::clone(&seen);
        let mut watch = Watch::new(Arc::new(move |p| told.lock().unwrap().push(p)));
        for step in 0..11 {
            watch.tell(CopyPhase::Memory, 100 - step, step * 100, (7, 1));
            advance(Duration::from_millis(100)).await;
        }
        let seen = seen.lock().unwrap();
        let rates: Vec<u64> = seen.iter().map(|p| p.bytes_per_s).collect();
        assert_eq!(rates, [0, 1000, 1000]);
        assert_eq!(seen[2].remaining_bytes, 90);
    }

    #[tokio::test(start_paused = true)]
    async fn copy_of_which_nothing_moves_is_given_up() {
        let mut watch = Watch::new(Arc::new(|_| {}));
        watch.tell(CopyPhase::Disks, 5, 5, (0, 0));
        advance(STALL_TIMEOUT / 2).await;
        watch.tell(CopyPhase::Disks, 4, 6, (0, 0));
        advance(STALL_TIMEOUT / 2).await;
        watch.tell(CopyPhase::Disks, 4, 6, (0, 0));
        assert!(watch.goes_on().is_ok());
        advance(STALL_TIMEOUT / 2).await;
        assert!(watch.goes_on().is_err());
        watch.tell(CopyPhase::Memory, 9, 6, (0, 0));
        assert!(watch.goes_on().is_ok(), "another phase has begun");
    }
}
