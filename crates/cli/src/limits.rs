//! Limits the command keeps.

use std::time::Duration;

/// How long `--wait` waits when `--timeout` does not say.
pub const DEFAULT_WAIT_SECONDS: u64 = 300;
/// Longest `--timeout`: a week.
pub const MAX_WAIT_SECONDS: u64 = 7 * 24 * 3600;
/// While waiting: how soon a server that is away is asked again.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often what is waited for is looked at, whatever is told of it: nobody is told of
/// what is another tenant's.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// VMs asked for by `vm list`.
pub const MAX_LISTED_VMS: u32 = 1000;
/// Requests asked for by `request list`, and searched for a name.
pub const MAX_LISTED_REQUESTS: u32 = 1000;
/// Largest file read for `--ssh-key-file` and `--user-data-file`, in bytes;
/// the server's limits are lower.
pub const MAX_INPUT_FILE_BYTES: u64 = 1 << 20;
/// Largest credentials file, in bytes.
pub const MAX_CREDENTIALS_BYTES: u64 = 64 << 10;
/// How long a console stays open after piped input ended and the guest fell silent.
pub const DEFAULT_LINGER_SECONDS: u64 = 2;
/// Bytes read of an answer to a question.
pub const MAX_ANSWER_BYTES: u64 = 64;
/// Pieces of typed input waiting to be sent.
pub const MAX_QUEUED_INPUT: usize = 64;
/// First part of an upload, in bytes: so much goes through any line in time.
pub const FIRST_PART_BYTES: u64 = 1 << 20;
/// Smallest part, where a line is slow or breaks often, and the largest that the
/// server takes.
pub const MIN_PART_BYTES: u64 = 64 << 10;
pub const MAX_PART_BYTES: u64 = 16 << 20;
/// A part that went in less time than this is followed by a larger one.
pub const QUICK_PART: Duration = Duration::from_secs(2);
/// Pause before an upload that broke goes on; doubles each time …
pub const FIRST_UPLOAD_PAUSE: Duration = Duration::from_millis(250);
/// … up to this.
pub const LAST_UPLOAD_PAUSE: Duration = Duration::from_secs(15);
/// How long an upload is tried without getting on.
pub const UPLOAD_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How often it is told how far an upload is.
pub const TELL_EVERY: Duration = Duration::from_millis(200);
