//! The seam between an agent and a hypervisor.
//!
//! A driver runs Incarnations on one host and nothing else: it knows no
//! database, no tenant and no scheduler. Every call is idempotent, so that an
//! operation's step can be repeated after a crash. Names of users never get
//! here; ids and numbers do, and texts that only ever become file content.

#[cfg(feature = "conformance")]
pub mod conformance;
mod fault;
pub mod qcow2;
mod serial;
mod spec;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use vimana_model::VmId;

pub use fault::{Fault, FaultKind};
pub use serial::{SERIAL_RECENT_BYTES, SerialHub};
pub use spec::{Capabilities, ImageRef, IncarnationSpec, Observed, Power, Seed};

/// A serial line: bytes both ways, until either side hangs up.
pub trait SerialStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> SerialStream for T {}

/// How a graceful shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownEnd {
    /// The guest switched itself off.
    ByGuest,
    /// It did not within the grace time and was switched off.
    Forced,
}

/// Runs machines on one host.
///
/// `epoch` is the `run_epoch` of the Incarnation meant. A call for an epoch
/// lower than the highest the driver has seen for that VM is refused with
/// [`FaultKind::Superseded`] and has no effect.
#[async_trait]
pub trait HostDriver: Send + Sync + 'static {
    /// What this host can do; constant for the life of the driver.
    fn capabilities(&self) -> &Capabilities;

    /// Every change of power state of every Incarnation on this host, from
    /// the moment of the call. A lagging receiver must ask [`Self::inventory`].
    fn subscribe(&self) -> broadcast::Receiver<Observed>;

    /// All Incarnations this host holds, running or not. On the first call
    /// after a start, processes that survived have been re-adopted.
    async fn inventory(&self) -> Result<Vec<Observed>, Fault>;

    /// Makes the disk (an overlay over `image`, a read-only local file) and
    /// the seed. Repeating it for the same epoch changes nothing. A failed
    /// call leaves no file behind.
    async fn prepare(&self, spec: &IncarnationSpec, image: &Path) -> Result<(), Fault>;

    /// Starts the prepared machine; returns when guest code runs. Repeating
    /// it while the machine runs changes nothing. A failed call leaves no process.
    async fn boot(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Asks the guest to switch itself off; after `grace` it is switched off.
    /// Returns when the machine no longer exists; fine if it already did not.
    async fn shutdown(&self, vm: VmId, epoch: u64, grace: Duration) -> Result<ShutdownEnd, Fault>;

    /// Stops the machine at once; fine if it does not run or never did.
    async fn kill(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Removes every file of the VM from this host, after the machine is
    /// gone. Fine if there is nothing. Afterwards [`Self::inventory`] no
    /// longer names it.
    async fn clean(&self, vm: VmId, epoch: u64) -> Result<(), Fault>;

    /// Attaches a viewer to the serial line. It first receives the recent
    /// output (at most 64 KiB), then what comes; several viewers see the same
    /// and may all type.
    async fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault>;
}
