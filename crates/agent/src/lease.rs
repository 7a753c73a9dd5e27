//! How long the host may run its machines without hearing from the server.

use std::time::Duration;

use async_trait::async_trait;

use crate::Watchdog;
use crate::watchdog::{BootTime, Fenced};

/// Keeps the leases that the server grants.
#[async_trait]
pub trait Lease: Send + Sync + 'static {
    /// The time on the clock that leases run on.
    fn now(&self) -> BootTime;

    /// The server granted a lease in answer to what the agent sent at `from`;
    /// None where the host may run its machines for ever.
    fn grant(&self, from: BootTime, lease: Option<Duration>);

    /// The last lease is over: the machines are stopped, and nothing that was
    /// commanded under it may be carried out any more.
    fn is_over(&self) -> bool;

    /// That machines were stopped, where the server does not know yet.
    fn fenced(&self) -> Option<Fenced>;

    /// The server knows.
    fn told(&self, fenced: &Fenced);

    /// The agent ends in an orderly way: the machines run on.
    async fn disarm(&self);
}

#[async_trait]
impl Lease for Watchdog {
    fn now(&self) -> BootTime {
        BootTime::now()
    }

    fn grant(&self, from: BootTime, lease: Option<Duration>) {
        match lease {
            // Whether it guards is known when it was granted the first time.
            Some(lease) => {
                self.lease(from, lease);
            }
            None => self.no_lease(),
        }
    }

    fn is_over(&self) -> bool {
        self.lease_is_over()
    }

    fn fenced(&self) -> Option<Fenced> {
        Self::fenced(self)
    }

    fn told(&self, fenced: &Fenced) {
        self.forget(fenced);
    }

    async fn disarm(&self) {
        Self::disarm(self).await;
    }
}
