//! Limits of the agent.

use std::time::Duration;

/// Commands that wait for one VM.
pub const MAX_WAITING_PER_VM: usize = 16;
/// Outcomes remembered, so that a repeated command is answered and not run.
pub const MAX_REMEMBERED_OUTCOMES: usize = 1024;
/// Outcomes kept while there is no session. The oldest go first: the server
/// repeats commands without an outcome.
pub const MAX_UNSENT_OUTCOMES: usize = 1024;
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
/// Tries to fetch an image while the server has a bad moment.
pub const MAX_DOWNLOAD_TRIES: u32 = 6;
/// Silence after which the download of an image is given up.
pub const DOWNLOAD_STALL: Duration = Duration::from_secs(30);
/// How long running work may take to stop when the agent stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Wait after the server refused the agent: somebody has to do something.
pub const REFUSED_RETRY: Duration = Duration::from_secs(15);
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
