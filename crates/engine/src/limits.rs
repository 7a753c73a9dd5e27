//! The engine's limits; each is named in the error it causes.

use std::time::Duration;

use vimana_model::operation::StepKind;

/// Most VMs one list answers.
pub const MAX_LISTED_VMS: u32 = 1000;
/// How often VMs that change while they are read are read anew.
pub const MAX_VIEW_READS: u32 = 3;
/// Most timeline entries one VM answers, the newest ones.
pub const MAX_TIMELINE: u32 = 500;
/// Most events replayed to a reader that comes back; beyond it starts afresh.
pub const MAX_REPLAYED_EVENTS: u32 = 1000;
/// Events kept for readers that are a little slow.
pub const BROADCAST_EVENTS: usize = 4096;
/// Progress reports kept for readers that are a little slow.
pub const BROADCAST_TELEMETRY: usize = 256;
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
/// Images of one tenant brought in at once.
pub const MAX_IMPORTS_AT_ONCE: usize = 4;
/// Sources asked at once whether they have something new.
pub const MAX_REFRESHES_AT_ONCE: usize = 8;
/// How long a source may take to say so, until another server may ask it.
pub const REFRESH_PATIENCE: Duration = Duration::from_secs(600);
/// How long an upload waits for its next bytes.
pub const UPLOAD_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How often it is told how far an import is.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Templates of one tenant, and of those for all.
pub const MAX_TEMPLATES: u64 = 100;
/// Flavors of an installation.
pub const MAX_FLAVORS: usize = 200;
/// Volumes of one tenant, and of one VM.
pub const MAX_VOLUMES: usize = 10_000;
pub const MAX_VOLUMES_OF_VM: usize = 16;
/// Proposals of one scheduler that are checked at once.
pub const MAX_PROPOSALS_AT_ONCE: usize = 64;
/// Bytes of the name of a machine type or a CPU model that a host tells.
pub const MAX_HARDWARE_NAME: usize = 64;
/// Datastores that a host may have besides its own directory.
pub const MAX_HOST_DATASTORES: usize = 32;
/// Largest capacity a host may claim to have.
pub const MAX_HOST_VCPUS: u32 = 65_536;
pub const MAX_HOST_MIB: u64 = 1 << 40;
/// Machines one agent may report.
pub const MAX_INVENTORY: usize = 10_000;
/// Highest run of a machine that a host may report.
pub const MAX_RUN_EPOCH: u64 = 1 << 48;
/// How long hosts are waited for that are asked what they hold.
pub const INVENTORY_PATIENCE: Duration = Duration::from_secs(5);
/// Requests one list answers.
pub const MAX_LISTED_REQUESTS: u32 = 1000;
/// Remarks on one request.
pub const MAX_REMARKS: usize = 200;
/// How long the answer to an idempotency key is kept.
pub const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a browser's session outlives its last use.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// What the wall clock may go ahead of the time that passes from one look to
/// the next without having been set.
pub const CLOCK_LEAP_MS: i64 = 5000;
/// Leaps of the clock that are remembered.
pub const MAX_CLOCK_LEAPS: usize = 64;
/// How often a step is begun before its operation goes back or fails.
pub const MAX_ATTEMPTS: u32 = 6;
/// Wait before the second try; doubles with each …
pub const RETRY_FIRST_MS: i64 = 1000;
/// … up to this.
pub const RETRY_CAP_MS: i64 = 60_000;
/// Wait before what the database could not take is tried again; doubles …
pub const PERSIST_FIRST: Duration = Duration::from_millis(100);
/// … up to this.
pub const PERSIST_CAP: Duration = Duration::from_secs(1);
/// How often in a row a database error that nothing explains is tried again.
pub const MAX_DEFECTS: u32 = 10;
/// Operations looked at in one turn of the reconciler.
pub const MAX_DUE: u32 = 200;
/// Join tokens that are not good taken from one address in a burst …
pub const JOIN_BURST: u32 = 40;
/// … and how soon one more is let through.
pub const JOIN_REFILL: Duration = Duration::from_secs(6);
/// Shortest and longest life of a join token, and the usual one.
pub const MIN_JOIN_TTL_SECONDS: u64 = 10;
pub const MAX_JOIN_TTL_SECONDS: u64 = 7 * 24 * 3600;
pub const DEFAULT_JOIN_TTL_SECONDS: u64 = 3600;
/// Renewals of one host's certificate in a burst …
pub const RENEW_BURST: u32 = 10;
/// … and how soon one more is let through.
pub const RENEW_REFILL: Duration = Duration::from_secs(60);
/// Certificates handed out to a host that it has not used yet.
pub const MAX_PENDING_CERTIFICATES: usize = 4;
/// Most sessions a host that joins may have had before.
pub const MAX_SESSION_NUMBER: u64 = 1 << 48;
/// Alarms about one host in a burst …
pub const ALARM_BURST: u32 = 3;
/// … and how soon one more is recorded.
pub const ALARM_REFILL: Duration = Duration::from_secs(600);

/// Backups of which each holds the changes since the one before, and then a
/// full one.
pub const MAX_BACKUP_CHAIN: u32 = 30;
/// A schedule whose VM is busy asks again after this.
pub const SCHEDULE_RETRY: Duration = Duration::from_secs(300);
/// More than any chain ever has: a record that is wrong leads nowhere.
pub const MAX_LINKS: usize = 1000;

/// How long a guest may stand still at the end of a migration: it is copied
/// until less is left to do.
pub const MAX_DOWNTIME_MS: u64 = 300;

/// How long a connected host may take for a step; `None` for as long as it
/// takes. Shutdown and reboot come on top of the guest's own grace time.
pub const fn patience(step: StepKind) -> Option<Duration> {
    let seconds = match step {
        StepKind::Place | StepKind::GiveBack | StepKind::Fetch | StepKind::Enter => return None,
        StepKind::Prepare => 3600,
        StepKind::Boot | StepKind::Load => 600,
        StepKind::Shutdown | StepKind::Reboot => 300,
        StepKind::Kill
        | StepKind::Reset
        | StepKind::Resize
        | StepKind::Discard
        | StepKind::Detach
        | StepKind::Grow => 120,
        StepKind::Snapshot | StepKind::Revert | StepKind::RemoveSnapshot => 1800,
        StepKind::Attach => 3600,
        StepKind::Clean => 600,
        StepKind::Save => 1800,
        StepKind::Upload
        | StepKind::Download
        | StepKind::Arrive
        | StepKind::Backup
        | StepKind::Move
        | StepKind::MoveBack
        | StepKind::Send
        | StepKind::Complete => 6 * 3600,
        StepKind::Receive => 3600,
        StepKind::Run | StepKind::Switch | StepKind::CallOff => 300,
        StepKind::Dismiss | StepKind::Leave => 600,
        StepKind::DropBackup => 600,
    };
    Some(Duration::from_secs(seconds))
}
