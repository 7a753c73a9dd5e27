//! Limits of the watchdog.

use std::time::Duration;

/// The longest lease, as the server grants it: a wrong one must not switch the
/// guard off for good.
pub const MAX_LEASE: Duration = Duration::from_secs(86_400);
/// With nothing to guard and nobody connected it ends after this.
pub const LINGER: Duration = Duration::from_secs(10);
/// Connections at once. There is one agent, and one that ends as another begins.
pub const MAX_CLIENTS: usize = 16;
/// Wait before connections are taken again after the system had no room.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Between two rounds of killing, at first; it doubles up to [`ROUND_CAP`].
pub const ROUND_FIRST: Duration = Duration::from_millis(10);
/// Between two rounds at most, and between looks while no lease holds.
pub const ROUND_CAP: Duration = Duration::from_millis(500);
/// A record of the driver's, and one of ours.
pub const RECORD_BYTES: u64 = 1 << 20;
/// A process's arguments that are looked at.
pub const ARGUMENT_BYTES: u64 = 64 << 10;
/// The log is begun anew beyond this.
pub const LOG_BYTES: u64 = 64 << 10;
/// How long a blocking client waits for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
