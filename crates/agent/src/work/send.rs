//! Volumes whose content leaves the host.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::sleep;
use vimana_driver::{Fault, FaultKind};
use vimana_protocol::agent::VolumeOrder;

use super::Workshop;
use super::carry_out::caught;
use crate::limits::{COPY_PAUSE, MAX_COPY_TRIES};

/// What is being sent. There is no record: the server says it again until it
/// has what it wants.
#[derive(Default)]
pub struct Sending {
    orders: Mutex<BTreeSet<VolumeOrder>>,
    /// One copy at a time takes room on the host.
    turn: tokio::sync::Mutex<()>,
}

impl Sending {
    fn orders(&self) -> MutexGuard<'_, BTreeSet<VolumeOrder>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workshop {
    /// Sends a copy of a volume to the server. What is under way is not begun
    /// again.
    pub fn send_volume(self: &Arc<Self>, order: VolumeOrder) {
        if !self.sending.orders().insert(order) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let sent = this.stop.run_until_cancelled(this.copy_and_send(&order));
            match sent.await {
                Some(Ok(())) => tracing::info!(?order, "a volume's content is sent"),
                Some(Err(fault)) => {
                    tracing::warn!(?order, %fault, "a volume's content is not sent");
                    this.ledger.volume_not_sent(order, fault);
                }
                // The server asks the next agent.
                None => {}
            }
            this.sending.orders().remove(&order);
        });
    }

    async fn copy_and_send(&self, order: &VolumeOrder) -> Result<(), Fault> {
        let _turn = self.sending.turn.lock().await;
        let mut tries = 0;
        let copy = loop {
            tries += 1;
            match caught(self.driver.copy_volume(order.volume_id)).await {
                // Something else was to be done with it.
                Err(fault) if fault.kind == FaultKind::Cancelled && tries < MAX_COPY_TRIES => {
                    tracing::debug!(?order, "a copy made way, and is begun anew");
                    sleep(COPY_PAUSE).await;
                }
                copied => break copied?,
            }
        };
        let sent = self.datastore.send_volume(order, &copy).await;
        if let Err(fault) = caught(self.driver.remove_copy(order.volume_id)).await {
            // The next start removes it.
            tracing::error!(?order, %fault, "a copy of a volume is left");
        }
        sent
    }
}
