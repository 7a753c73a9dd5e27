//! Checksums of what is on the disk.

use std::io;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::limits::TRANSFER_CHUNK_BYTES;

/// Of the next `size_bytes` of a file, which stands after them then.
///
/// # Errors
/// It cannot be read, or has fewer.
pub async fn hash_of(file: &mut File, size_bytes: u64) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; TRANSFER_CHUNK_BYTES];
    let mut left = size_bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let room = most.min(TRANSFER_CHUNK_BYTES);
        let read = file.read(chunk.get_mut(..room).unwrap_or_default()).await?;
        let Some(filled) = chunk.get(..read).filter(|filled| !filled.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        hash.update(filled);
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(hash)
}

/// Whether it is a SHA-256 as we write it: hexadecimal, in small letters.
pub fn is_digest(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_hex)
}
