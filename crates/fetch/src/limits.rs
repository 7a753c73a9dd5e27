//! How long and how much another server may keep us.

use std::time::Duration;

/// Until a connection stands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until an answer, or the next bytes of a file, are here.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
pub const MAX_REDIRECTS: usize = 5;
pub const MAX_URL_BYTES: usize = 2048;
/// Asked of an NFS server at once.
pub const NFS_READ_BYTES: u32 = 1 << 20;
/// An NFS server's answer: what was asked for, and what surrounds it.
pub const MAX_NFS_REPLY_BYTES: usize = (1 << 20) + 4096;
/// Directories between a share's root and the file.
pub const MAX_NFS_DEPTH: usize = 32;
/// Ways an NFS server may say that it can be asked: far fewer exist.
pub const MAX_NFS_FLAVORS: u32 = 32;
