//! What one import may take of the machine.

use std::time::Duration;

/// Fetched and not yet taken in, in pieces.
pub const PIECES_WAITING: usize = 16;
pub const PIECE_BYTES: usize = 256 << 10;
/// A conversion works on nothing but two files of this machine.
pub const CONVERT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Of what a tool says of an image.
pub const MAX_COMPLAINT_CHARS: usize = 200;
/// Times that a file may be another one than when its fetching began.
pub const MAX_CHANGES: u32 = 2;
/// Between two connections.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Unpacking needs so much memory at most: `xz -9` needs 65 MiB, zstd's widest
/// window by default 128 MiB.
pub const MAX_UNPACK_MEMORY: u64 = 160 << 20;
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// So many bytes may come of one, once more than [`RATIO_FROM`] have come:
/// empty disks pack well, but nothing honest packs like this.
pub const MAX_RATIO: u64 = 20_000;
pub const RATIO_FROM: u64 = 1 << 30;
/// What is written is told to the disk this often, so that the end does not
/// wait for all of it.
pub const SYNC_BYTES: u64 = 16 << 20;
