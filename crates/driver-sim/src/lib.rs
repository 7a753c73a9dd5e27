//! A hypervisor that runs nothing: machines are entries in memory.
//!
//! What a host "holds" lives in a [`SimHost`]; a [`SimDriver`] is the agent's
//! view of it. Dropping the driver and making another one on the same host is
//! an agent's restart. Time is tokio's, so that paused time is virtual time.
//! No file is read or written.

mod host;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use vimana_driver::{
    Capabilities, Fault, FaultKind, HostDriver, IncarnationSpec, Observed, Power, SerialStream,
    ShutdownEnd,
};
use vimana_model::VmId;
use vimana_model::host::Accelerator;

pub use host::{Call, Effects, SimHost};

/// The driver of one [`SimHost`].
pub struct SimDriver {
    host: Arc<SimHost>,
    capabilities: Capabilities,
}

impl SimDriver {
    #[must_use]
    pub fn new(host: Arc<SimHost>) -> Self {
        let capabilities = Capabilities {
            hypervisor: format!("simulation {}", env!("CARGO_PKG_VERSION")),
            accelerator: Accelerator::Simulated,
            accelerator_note: "machines are simulated; no guest code runs".to_owned(),
        };
        Self { host, capabilities }
    }

    #[must_use]
    pub fn host(&self) -> &Arc<SimHost> {
        &self.host
    }

    /// Every call's beginning: the epoch is checked before and after the
    /// injected delay, a later kill or clean cancels, and an injected fault strikes.
    async fn enter(&self, call: Call, vm: VmId, epoch: u64) -> Result<(), Fault> {
        let overtakes = matches!(call, Call::Kill | Call::Clean);
        let turn = self.host.arrive(vm, epoch, overtakes)?;
        self.host.strike(call).await?;
        self.host.still_wanted(vm, epoch, turn)
    }
}

#[async_trait]
impl HostDriver for SimDriver {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn subscribe(&self) -> broadcast::Receiver<Observed> {
        self.host.subscribe()
    }

    async fn inventory(&self) -> Result<Vec<Observed>, Fault> {
        self.host.strike(Call::Inventory).await?;
        Ok(self.host.observed())
    }

    async fn prepare(&self, spec: &IncarnationSpec, _image: &Path) -> Result<(), Fault> {
        self.enter(Call::Prepare, spec.vm_id, spec.run_epoch)
            .await?;
        self.host.prepare(spec)
    }

    async fn boot(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        self.enter(Call::Boot, vm, epoch).await?;
        self.host.boot(vm, epoch)
    }

    async fn shutdown(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<ShutdownEnd, Fault> {
        let mut changes = self.host.subscribe();
        self.enter(Call::Shutdown, vm, epoch).await?;
        if !self.host.ask_guest_off(vm) {
            return Ok(ShutdownEnd::ByGuest);
        }
        // The guest ignores it: wait, unless the machine ends in another way.
        let ends = async {
            while self.host.power(vm) == Some(Power::Running) {
                if changes.recv().await == Err(broadcast::error::RecvError::Closed) {
                    break;
                }
            }
        };
        if tokio::time::timeout(grace, ends).await.is_ok() {
            return Err(Fault::new(
                FaultKind::Cancelled,
                "the machine was stopped in another way",
            ));
        }
        self.host.stop(vm);
        Ok(ShutdownEnd::Forced)
    }

    async fn kill(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        self.enter(Call::Kill, vm, epoch).await?;
        self.host.stop(vm);
        Ok(())
    }

    async fn clean(&self, vm: VmId, epoch: u64) -> Result<(), Fault> {
        self.enter(Call::Clean, vm, epoch).await?;
        self.host.clean(vm)
    }

    async fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault> {
        self.host.strike(Call::Serial).await?;
        self.host.serial(vm)
    }
}
