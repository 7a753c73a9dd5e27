//! Limits the client keeps.

use std::time::Duration;

/// Longest wait for a TCP connection and its TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence on a connection. The event stream says something every
/// ten seconds, so that a dead one is noticed within this time.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept; shorter than the server keeps it, so
/// that no request meets a connection on its way out.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read into memory.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Largest part of the event stream that may arrive without its end.
pub const MAX_EVENT_BYTES: usize = 4 << 20;
/// Largest message on a console.
pub const MAX_CONSOLE_MESSAGE_BYTES: usize = 1 << 20;
/// First pause before the event stream is opened again; doubles each time.
pub const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before the event stream is opened again.
pub const LAST_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often a change is sent until an answer arrives.
pub const MAX_ATTEMPTS: u32 = 5;
/// First pause before a change is sent again; doubles each time.
pub const FIRST_REPEAT_PAUSE: Duration = Duration::from_millis(200);
/// No change is sent again after so long.
pub const REPEAT_WITHIN: Duration = Duration::from_secs(60);
