//! VirtualBox's VDI, as its `VDICore.h` lays it out; all numbers are
//! little-endian.

use crate::bytes::Window;
use crate::{Content, Error, Header, ReadAt, Reads, Refusal};

pub(crate) const MAGIC: [u8; 4] = [0x7f, 0x10, 0xda, 0xbe];
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;
const HEADER_BYTES: usize = 512;
const BLOCK_BYTES: u32 = 1 << 20;

/// The header.
pub const MOST_READS: Reads = Reads {
    count: 1,
    bytes: HEADER_BYTES as u64,
};

pub fn check(file: &impl ReadAt, file_bytes: u64) -> Result<Header, Error> {
    let start = Window::read(file, 0, HEADER_BYTES)?;
    Ok(header(&start, file_bytes)?)
}

fn header(start: &Window, file_bytes: u64) -> Result<Header, Refusal> {
    if start.array(64) != Ok(MAGIC) {
        return Err(Refusal::Another(Content::Vdi));
    }
    if start.le32(68)? != 0x1_0001 {
        return Err(Refusal::UnknownVersion(Content::Vdi));
    }
    if !matches!(start.le32(76)?, DYNAMIC | STATIC) {
        return Err(Refusal::BackingFile);
    }
    let no_parent = [0; 16];
    if start.array(424)? != no_parent || start.array(440)? != no_parent {
        return Err(Refusal::BackingFile);
    }
    let map_at = u64::from(start.le32(340)?);
    let virtual_bytes = start.le64(368)?;
    let block_bytes = start.le32(376)?;
    let blocks = u64::from(start.le32(384)?);
    if virtual_bytes == 0 {
        return Err(Refusal::Empty);
    }
    if block_bytes != BLOCK_BYTES {
        return Err(Refusal::Absurd("its blocks have an unusual size"));
    }
    if blocks != virtual_bytes.div_ceil(u64::from(block_bytes)) {
        return Err(Refusal::Absurd("its map does not fit its disk"));
    }
    let map_end = map_at.saturating_add(blocks.saturating_mul(4));
    if map_at < 512 || map_end > file_bytes {
        return Err(Refusal::Absurd("its map is not inside the file"));
    }
    Ok(Header { virtual_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl Fn(&mut [u8])) -> Result<Header, Error> {
        let mut bytes = vec![0; 4096];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(64, &MAGIC);
        put(68, &0x1_0001_u32.to_le_bytes());
        put(76, &DYNAMIC.to_le_bytes());
        put(340, &512_u32.to_le_bytes());
        put(368, &(100_u64 << 20).to_le_bytes());
        put(376, &BLOCK_BYTES.to_le_bytes());
        put(384, &100_u32.to_le_bytes());
        change(&mut bytes);
        crate::check(Content::Vdi, &bytes)
    }

    #[test]
    fn a_plain_image_gives_its_size_and_others_are_refused() {
        assert_eq!(judged(|_| ()).unwrap().virtual_bytes, 100 << 20);
        for (what, change) in [
            ("a difference", (|b| b[76] = 4) as fn(&mut [u8])),
            ("a parent", |b| b[440] = 1),
            ("no size", |b| b[368..376].fill(0)),
            ("a huge disk on a small map", |b| b[374] = 1),
            ("a map outside", |b| b[343] = 1),
            ("odd blocks", |b| b[376] = 1),
        ] {
            assert!(judged(change).is_err(), "{what}");
        }
    }
}
