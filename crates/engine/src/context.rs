//! Who asks, what time it is, and where randomness comes from: handed in,
//! never taken from the air.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use vimana_authz::Subject;
use vimana_model::Timestamp;

use crate::clock::{Clock, Leaps, SystemClock};
use crate::idempotency::IdempotencyKey;

/// Who asks.
#[derive(Clone, Debug)]
pub struct OpContext {
    pub subject: Arc<Subject>,
    /// Makes a repeated call have one effect.
    pub idempotency: Option<IdempotencyKey>,
}

impl OpContext {
    #[must_use]
    pub fn new(subject: Subject) -> Self {
        Self {
            subject: Arc::new(subject),
            idempotency: None,
        }
    }

    #[must_use]
    pub fn with_idempotency(mut self, key: IdempotencyKey) -> Self {
        self.idempotency = Some(key);
        self
    }
}

/// Clock and randomness of one engine.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    leaps: Arc<Mutex<Leaps>>,
    random: Arc<Mutex<StdRng>>,
}

impl World {
    /// The machine's clock and the system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            leaps: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::from_os_rng())),
        }
    }

    /// A repeatable world for tests and simulation.
    #[must_use]
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self {
            clock,
            leaps: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.look(|_, now, _| now)
    }

    /// The time by which something recorded that lives for `life` has ended:
    /// what the wall clock shows, but for what it leapt forward meanwhile.
    #[must_use]
    pub fn now_to_end(&self, life: Duration) -> Timestamp {
        self.look(|leaps, now, passed| {
            let leapt = leaps.within(life, passed);
            now.plus_ms(leapt.saturating_neg())
        })
    }

    /// Since a moment that stays the same for this process, for what is only in
    /// its memory.
    #[must_use]
    pub fn passed(&self) -> Duration {
        self.clock.passed()
    }

    fn look<T>(&self, at: impl FnOnce(&Leaps, Timestamp, Duration) -> T) -> T {
        let mut leaps = self.leaps.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: no look may come before an earlier one.
        let (now, passed) = (self.clock.now(), self.clock.passed());
        leaps.look(now, passed);
        at(&leaps, now, passed)
    }

    /// Bytes fit for secrets.
    #[must_use]
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut bytes);
        bytes
    }

    /// The parts of a fresh id: `VmId::from_parts(ms, random)`.
    pub(crate) fn id_parts(&self) -> (u64, [u8; 10]) {
        (
            u64::try_from(self.now().as_ms()).unwrap_or(0),
            self.random_bytes(),
        )
    }
}

/// A fresh id of the wanted kind: `new_id!(world, VmId)`.
macro_rules! new_id {
    ($world:expr, $id:ident) => {{
        let (ms, random) = $world.id_parts();
        vimana_model::$id::from_parts(ms, random)
    }};
}
pub(crate) use new_id;
