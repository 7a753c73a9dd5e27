//! The engine's limits; each is named in the error it causes.

use std::time::Duration;

/// Most VMs one list answers.
pub const MAX_LISTED_VMS: u32 = 1000;
/// Most timeline entries one VM answers, the newest ones.
pub const MAX_TIMELINE: u32 = 500;
/// Most events replayed to a reader that comes back; beyond it starts afresh.
pub const MAX_REPLAYED_EVENTS: u32 = 1000;
/// Events kept for readers that are a little slow.
pub const BROADCAST_EVENTS: usize = 4096;
/// Items waiting for one reader of the event stream.
pub const MAX_QUEUED_ITEMS: usize = 256;
/// Password hashes computed at once; each takes 19 MiB and a core.
pub const MAX_PARALLEL_HASHES: usize = 2;
/// Sign-ins waiting for a hash; more are turned away.
pub const MAX_WAITING_HASHES: usize = 64;
/// Wrong passwords one account takes from one address in a burst …
pub const SIGN_IN_BURST: u32 = 10;
/// … and from one address over all accounts …
pub const SIGN_IN_ADDRESS_BURST: u32 = 50;
/// … and how soon one more is let through.
pub const SIGN_IN_REFILL: Duration = Duration::from_secs(6);
/// Buckets remembered by the rate limiter.
pub const MAX_BUCKETS: usize = 20_000;
/// Life of a console ticket.
pub const TICKET_LIFE: Duration = Duration::from_secs(60);
/// Tickets that wait to be used.
pub const MAX_TICKETS: usize = 10_000;
/// Longest wait for an agent to dial in with a serial line.
pub const CONSOLE_DIAL_IN: Duration = Duration::from_secs(10);
/// Chunks waiting on either side of a console.
pub const MAX_CONSOLE_CHUNKS: usize = 64;
/// Consoles that wait for their agent.
pub const MAX_DIALLING_CONSOLES: usize = 256;
/// Largest capacity a host may claim to have.
pub const MAX_HOST_VCPUS: u32 = 65_536;
pub const MAX_HOST_MIB: u64 = 1 << 40;
/// Machines one agent may report.
pub const MAX_INVENTORY: usize = 10_000;
