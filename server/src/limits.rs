//! The server's limits; each is named in the error it causes.

use std::time::Duration;

/// Largest body of a request, in bytes. Larger than the largest form: a VM
/// with 64 KiB of user-data in JSON's escapes.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// How much of a body that is too large is read and thrown away, so that its
/// sender gets to read the refusal.
pub const MAX_DRAINED_BYTES: u64 = 64 << 20;
/// Longest wait for a whole body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest text of a parser's complaint that is passed on, in characters.
pub const MAX_COMPLAINT_CHARS: usize = 300;
/// Longest idempotency key, in characters.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;
/// Event streams open at the same time.
pub const MAX_EVENT_STREAMS: usize = 4096;
/// Viewers' consoles open at the same time.
pub const MAX_CONSOLES: usize = 1024;
/// A silent event stream says something this often.
pub const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest message on a console's WebSocket, in bytes.
pub const MAX_CONSOLE_MESSAGE_BYTES: usize = 64 << 10;
/// How often a console's viewer is asked for a sign of life …
pub const CONSOLE_PING_EVERY: Duration = Duration::from_secs(20);
/// … and the silence after which it is taken for gone.
pub const CONSOLE_SILENCE: Duration = Duration::from_secs(65);
/// Longest wait for a message to be taken by its receiver.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest reason in a WebSocket's close frame, in bytes (RFC 6455, 5.5).
pub const MAX_CLOSE_REASON_BYTES: usize = 123;
/// How often the use of a session is recorded.
pub const SESSION_TOUCH_EVERY: Duration = Duration::from_secs(15 * 60);
/// Longest life of a host's certificate.
pub const MAX_CERTIFICATE_DAYS: u64 = 3650;
/// How long connections and changes under way have to end once the server is
/// asked to stop …
pub const STOP_WITHIN: Duration = Duration::from_millis(2500);
/// … and the database after them.
pub const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Largest part of an image that is uploaded, in bytes.
pub const MAX_PART_BYTES: u64 = 16 << 20;
/// Longest wait for a whole part; what came by then is kept.
pub const PART_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Parts on their way in at the same time.
pub const MAX_PARTS: usize = 256;
/// Longest wait for the next bytes of a saved machine, or of an image.
pub const UPLOAD_STALL: Duration = Duration::from_secs(30);
