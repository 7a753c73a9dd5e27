//! What an accepted image has to be in the eyes of QEMU, which opens it next:
//! looked for where QEMU looks for it, not where the check does.

use vimana_format::{Content, Header, ReadAt};

use crate::Image;

/// QEMU reads so much after a vmdk's first sector, whatever its header says.
const VMDK_DESCRIPTOR: (u64, usize) = (512, 20 * 512);
const VMDK_PARENT: &[u8] = b"parentFileNameHint";
const VMDK_AT_END: u64 = u64::MAX;

/// Panics where it names another file, or is of another size than was said.
pub fn assert_stands_alone(content: Content, image: &Image, header: Header) {
    let is = header.virtual_bytes;
    let length = image.length().expect("memory has a length");
    let start = image.padded(0, 512);
    match content {
        Content::Raw => assert_eq!(is, length),
        Content::Qcow2 => {
            let version = u32::from_be_bytes(array(&start, 4));
            assert_eq!(array(&start, 8), [0; 12], "a backing file");
            assert_eq!(array(&start, 32), [0; 4], "a key");
            if version >= 3 {
                assert_eq!(start[79] & 1 << 2, 0, "a data file");
            }
            assert_eq!(is, u64::from_be_bytes(array(&start, 24)));
        }
        Content::Vdi => {
            assert_eq!(array(&start, 424), [0; 32], "a parent");
            assert_eq!(is, u64::from_le_bytes(array(&start, 368)));
        }
        Content::Vmdk => {
            let (at, most) = VMDK_DESCRIPTOR;
            let text = image.padded(at, most);
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let named = text.windows(VMDK_PARENT.len()).any(|at| at == VMDK_PARENT);
            assert!(!named, "a parent");
            let tables_at = u64::from_le_bytes(array(&start, 56));
            let last = if tables_at == VMDK_AT_END {
                image.padded(length.div_ceil(512).saturating_sub(2) * 512, 512)
            } else {
                start
            };
            let sectors = u64::from_le_bytes(array(&last, 12));
            assert_eq!(Some(is), sectors.checked_mul(512));
        }
        Content::Vhdx => assert!((1..=64 << 40).contains(&is)),
        Content::Vhd
        | Content::Qed
        | Content::Luks
        | Content::Gzip
        | Content::Xz
        | Content::Zstd
        | Content::Archive
        | Content::Page => panic!("{content:?} is no image"),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..].first_chunk().copied().expect("there are 512")
}
