//! Limits of the agent.

use std::time::Duration;

/// Wait for another agent to let go of the data directory.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
pub const LOCK_POLL: Duration = Duration::from_millis(5);
/// Commands that wait for one VM.
pub const MAX_WAITING_PER_VM: usize = 16;
/// VMs for which commands wait or run.
pub const MAX_BUSY_VMS: usize = 4096;
/// Commands of one VM remembered, so that one that is repeated is answered and
/// not run: those of the last few operations.
pub const MAX_COMMANDS_PER_VM: usize = 16;
/// Operations of one VM remembered, so that a step of an old one that was
/// delayed on its way is refused.
pub const MAX_OPERATIONS_PER_VM: usize = 32;
/// VMs remembered of which nothing is left on the host.
pub const MAX_CLEANED_VMS: usize = 1024;
/// VMs remembered at all.
pub const MAX_LEDGER_VMS: usize = 4096;
/// Reports kept while there is no session. The oldest go first: the server
/// repeats commands without an outcome.
pub const MAX_UNSENT_REPORTS: usize = 1024;
/// Records written before the ledger is written anew, shorter.
pub const MIN_RECORDS_BEFORE_REWRITE: usize = 4096;
/// Room kept ready behind the ledger's last record.
pub const JOURNAL_RESERVE_BYTES: u64 = 1 << 20;
/// Heartbeats that wait for the server's answer.
pub const MAX_UNANSWERED_HEARTBEATS: usize = 64;
/// How often the server is told how far a command is, at most.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Serial consoles open at once.
pub const MAX_CONSOLES: usize = 64;
/// Largest message from a console's viewer.
pub const MAX_CONSOLE_FRAME_BYTES: usize = 64 << 10;
/// Serial output sent in one message.
pub const CONSOLE_READ_BYTES: usize = 16 << 10;
/// How often a console's connection is asked whether it lives.
pub const CONSOLE_PING_EVERY: Duration = Duration::from_secs(20);
/// Silence after which a console's connection is taken for dead.
pub const CONSOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// What a fetched image leaves of the disk: machines want some, too.
pub const FREE_BESIDE_IMAGES_BYTES: u64 = 512 << 20;
/// The part of the disk that the image cache may fill where nothing else is
/// said: one in so many.
pub const IMAGE_CACHE_SHARE: u64 = 4;
/// Tries to move a file while the server has a bad moment.
pub const MAX_TRANSFER_TRIES: u32 = 6;
/// Silence after which a download is tried anew.
pub const DOWNLOAD_STALL: Duration = Duration::from_secs(30);
/// How fast the server reads again what it has of an upload, at the least: it is
/// waited for that long before the upload is begun anew.
pub const CHECKSUM_BYTES_PER_SECOND: u64 = 64 << 20;
/// How long what has come of a saved machine is kept when nobody goes on with
/// it; looked at when the agent starts.
pub const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes read of what the server says of a request that it refuses.
pub const MAX_PROBLEM_BYTES: usize = 64 << 10;
/// Tries to copy a volume while other things are done with it …
pub const MAX_COPY_TRIES: u32 = 60;
/// … and how long it waits after each.
pub const COPY_PAUSE: Duration = Duration::from_secs(5);
/// How long an upload may stand still until it is tried anew; the server
/// brings it to its disk within this time, too.
pub const UPLOAD_STALL: Duration = Duration::from_secs(120);
/// Bytes of a file read and sent at once.
pub const TRANSFER_CHUNK_BYTES: usize = 256 << 10;
/// Longest file with a join token.
pub const MAX_JOIN_TOKEN_BYTES: u64 = 1024;
/// Longest answer to who asks for a certificate.
pub const MAX_ENROLMENT_BYTES: usize = 64 << 10;
/// How often it is seen whether the certificate is due for renewal: a thirtieth
/// of its life, within these.
pub const RENEW_CHECK_SHORTEST: Duration = Duration::from_millis(50);
pub const RENEW_CHECK_LONGEST: Duration = Duration::from_secs(3600);
/// How long running work may take to stop when the agent stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Wait after the server refused the agent: somebody has to do something.
pub const REFUSED_RETRY: Duration = Duration::from_secs(15);
/// How often the server is asked which of the images kept are gone.
pub const ASK_FOR_IMAGES_EVERY: Duration = Duration::from_secs(3600);
/// How long the watchdog may take to answer or to start.
pub const WATCHDOG_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an ending watchdog is waited for before its successor starts.
pub const WATCHDOG_ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often that is tried.
pub const WATCHDOG_POLL: Duration = Duration::from_millis(20);
/// Wait before a lost watchdog is started again, after that failed.
pub const WATCHDOG_RETRY: Duration = Duration::from_secs(2);
/// The longest line of a starting watchdog.
pub const WATCHDOG_LINE_BYTES: u64 = 4096;
