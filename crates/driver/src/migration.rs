//! Machines that go from one host to another while they run.
//!
//! The target makes place ([`receive`]), the source sends ([`send`]), and then
//! the guest stands still on both and has arrived: neither lets it run by itself.
//! Whoever decides that the target has it now says so there ([`run`]), under a
//! higher epoch, and has the source's process killed and its files cleaned; or has
//! the machine go on where it was ([`call_off`]), and the target killed and cleaned.
//!
//! By *post-copy* a part of the memory has not arrived in that moment. It is the
//! same in all else: once the target has it, the source is told so ([`switch`]), the
//! guest runs on the target, and the source's process is needed until the rest has
//! come ([`complete`]). After Hines, Deshpande and Gopalan, "Post-copy live migration
//! of virtual machines" (2009), behind a first round of pre-copy.
//!
//! [`receive`]: crate::HostDriver::receive
//! [`send`]: crate::HostDriver::send
//! [`run`]: crate::HostDriver::run
//! [`call_off`]: crate::HostDriver::call_off
//! [`switch`]: crate::HostDriver::switch
//! [`complete`]: crate::HostDriver::complete

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vimana_model::HostId;
use vimana_model::migration::CopyProgress;
pub use vimana_model::migration::Endpoint;

/// How a machine is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    pub to: HostId,
    pub endpoint: Endpoint,
    /// How long the guest may stand still at the end: it goes on being copied
    /// until less than that is left to do.
    pub max_downtime_ms: u64,
    /// Bytes a second; as fast as can be where absent.
    #[serde(default)]
    pub max_bytes_per_s: Option<u64>,
}

/// Told how far a copy is, now and then.
pub type CopyWatcher = Arc<dyn Fn(CopyProgress) + Send + Sync>;

/// Nobody is told.
#[must_use]
pub fn unwatched() -> CopyWatcher {
    Arc::new(|_| {})
}
