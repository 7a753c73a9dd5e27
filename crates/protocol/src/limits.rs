//! Limits both ends keep.

use std::time::Duration;

/// Largest frame in bytes.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// Bytes read from a connection at once. The WebSocket library keeps a buffer
/// of this size for every connection, and clears it for every read; a larger
/// frame gets room of its own.
pub const READ_BUFFER_BYTES: usize = 4 << 10;
/// Frames waiting to be written to one peer; a peer that lets them pile up
/// is cut off and resumes by reconnecting.
pub const MAX_QUEUED_FRAMES: usize = 1024;
/// How often each end sends something.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// Silence after which an end takes the connection for dead.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for the first frame on a new connection.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest complaint about a frame, in characters.
pub const MAX_COMPLAINT_CHARS: usize = 300;
/// Longest secret in bytes.
pub const MAX_SECRET_BYTES: usize = 4096;
/// First wait before dialing again after a connection was lost.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait before dialing again.
pub const RETRY_CAP: Duration = Duration::from_secs(5);
/// How long a dialing end waits for its farewell to be written.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
