//! Who asks, what time it is, and where randomness comes from: handed in,
//! never taken from the air.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use vimana_authz::Subject;
use vimana_model::Timestamp;

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

/// Tells the wall-clock time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        Timestamp::from_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Clock and randomness of one engine.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    random: Arc<Mutex<StdRng>>,
}

impl World {
    /// The machine's clock and the system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(Mutex::new(StdRng::from_os_rng())),
        }
    }

    /// A repeatable world for tests and simulation.
    #[must_use]
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self {
            clock,
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
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
