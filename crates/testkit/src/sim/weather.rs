//! How bad things are at the moment: what goes wrong by itself, without the
//! nemesis doing anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::{Call, Course, Mishap};

use super::chance::Chance;

/// Shared by all parts of a world.
#[derive(Clone, Debug, Default)]
pub struct Weather(Arc<Mutex<Sky>>);

#[derive(Clone, Copy, Debug, Default)]
pub struct Sky {
    /// Driver calls take time.
    pub slow: bool,
    /// One driver call in so many goes wrong; 0 for none.
    pub mishaps: u32,
    /// One frame in so many is late.
    pub late_frames: u32,
    /// One frame in so many brings an old one with it.
    pub replays: u32,
    /// One answer in so many never arrives.
    pub lost_answers: u32,
    /// One transfer in so many breaks off.
    pub broken_transfers: u32,
    /// One call of the datastore's in so many fails.
    pub bad_datastore: u32,
    /// Until then the server's disk takes nothing more.
    pub disk_full_until: Option<Instant>,
}

impl Sky {
    /// As bad as it gets.
    #[must_use]
    pub fn storm(chance: &Chance) -> Self {
        let rate = |usual: u32| [0, usual, usual * 3].get(chance.below(3)).copied();
        Self {
            slow: true,
            mishaps: rate(12).unwrap_or_default(),
            late_frames: rate(25).unwrap_or_default(),
            replays: rate(20).unwrap_or_default(),
            lost_answers: rate(8).unwrap_or_default(),
            broken_transfers: rate(5).unwrap_or_default(),
            bad_datastore: rate(6).unwrap_or_default(),
            disk_full_until: None,
        }
    }
}

impl Weather {
    #[must_use]
    pub fn now(&self) -> Sky {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, sky: Sky) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sky;
    }

    pub fn fill_disk(&self, until: Instant) {
        let mut sky = self.now();
        sky.disk_full_until = Some(until);
        self.set(sky);
    }

    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let until = self.now().disk_full_until;
        until.is_some_and(|until| Instant::now() < until)
    }

    /// How a driver call goes.
    #[must_use]
    pub fn course(&self, chance: &Chance, call: Call) -> Course {
        let sky = self.now();
        if !sky.slow && sky.mishaps == 0 {
            return Course::default();
        }
        let long = chance.one_in(20);
        let mut course = Course {
            before: chance.ms(0..=if long { 6000 } else { 40 }),
            mishap: None,
            after: chance.ms(0..=if long { 2000 } else { 20 }),
        };
        if call != Call::Inventory && chance.one_in(sky.mishaps) {
            course.mishap = mishap(chance);
        }
        course
    }
}

fn mishap(chance: &Chance) -> Option<Mishap> {
    let kinds = [
        FaultKind::Host,
        FaultKind::Unavailable,
        FaultKind::Hypervisor,
        FaultKind::NoSpace,
        FaultKind::BadImage,
    ];
    let fault = |kind| Fault::new(kind, "the simulated host has a bad moment");
    Some(match chance.below(10) {
        0..=4 => Mishap::Fail(fault(*chance.pick(&kinds)?)),
        // Who says that it was in vain for good, has no effect.
        5..=7 => Mishap::FailAfter(fault(FaultKind::Host)),
        8 => Mishap::Panic,
        _ => Mishap::PanicAfter,
    })
}

/// A little while.
#[must_use]
pub fn hop(chance: &Chance) -> Duration {
    chance.ms(0..=8)
}
