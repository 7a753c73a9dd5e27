//! Limits of the scheduler.

use std::time::Duration;

/// Proposals without a verdict; more are held back, so that neither side's
/// queue overflows however many VMs wait.
pub const MAX_IN_FLIGHT: usize = 256;
/// Frames one round of decisions sends.
pub const MAX_FRAMES_PER_ROUND: usize = 256;
/// Frames read before the next round of decisions.
pub const MAX_FRAMES_PER_READ: usize = 1024;
/// How long a verdict may take; then the VM is decided anew.
pub const VERDICT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a VM rests after a refused proposal, unless something changes.
pub const REFUSED_REST: Duration = Duration::from_secs(1);
