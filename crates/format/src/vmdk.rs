//! VMware's VMDK, after the "Virtual Disk Format 5.0" specification; numbers
//! are little-endian.
//!
//! Only images in one file: the sparse kind, compressed or not. A descriptor
//! that stands alone, or a header whose disk has no size, would make a reader
//! open whatever files the descriptor names.

use crate::bytes::Window;
use crate::{Content, Error, Header, ReadAt, Reads, Refusal};

const SECTOR: u64 = 512;
const HEADER_BYTES: usize = 80;
const MAX_DESCRIPTOR_BYTES: u64 = 64 << 10;
const NO_PARENT: &str = "ffffffff";
/// The types whose data is in the file itself.
const IN_ONE_FILE: [&str; 2] = ["monolithicSparse", "streamOptimized"];
const MAX_GRAIN_SECTORS: u64 = 4096;
const ENTRIES_PER_TABLE: u32 = 512;
/// What QEMU itself accepts at most.
const MAX_GRAIN_TABLES: u64 = 32 << 20;

/// QEMU looks for a parent here, wherever the header says its descriptor is.
const QEMU_DESCRIPTOR_AT: u64 = SECTOR;
const QEMU_DESCRIPTOR_BYTES: usize = 20 * 512;
const PARENT: &[u8] = b"parentFileNameHint";
/// Where the grain directory is, if it is in the footer that says so.
const AT_END: u64 = u64::MAX;
/// A footer is a sector, and so is the end marker after it.
const FOOTER_FROM_END: u64 = 2 * SECTOR;

/// The header, the footer, and the descriptor where the header and where QEMU
/// has it.
pub const MOST_READS: Reads = Reads {
    count: 4,
    bytes: 2 * HEADER_BYTES as u64 + MAX_DESCRIPTOR_BYTES + QEMU_DESCRIPTOR_BYTES as u64,
};

pub fn check(file: &impl ReadAt, file_bytes: u64) -> Result<Header, Error> {
    let start = Window::read(file, 0, HEADER_BYTES)?;
    let header = disk(&start)?;
    if start.le64(56)? == AT_END {
        // A reader takes the footer's word before the header's.
        let whole = file_bytes.div_ceil(SECTOR).saturating_mul(SECTOR);
        let at = whole.saturating_sub(FOOTER_FROM_END);
        if disk(&Window::read(file, at, HEADER_BYTES)?)? != header {
            return Err(Refusal::Absurd("it has two sizes").into());
        }
    }
    let (at, length) = descriptor_place(&start, file_bytes)?;
    descriptor(Window::read(file, at, length)?.bytes())?;
    // To QEMU the name counts anywhere: in a comment, in a value.
    let text = Window::read(file, QEMU_DESCRIPTOR_AT, QEMU_DESCRIPTOR_BYTES)?;
    if names_parent(text.bytes()) {
        return Err(Refusal::BackingFile.into());
    }
    Ok(header)
}

/// What the header, or the footer, says of the disk.
fn disk(start: &Window) -> Result<Header, Refusal> {
    match start.array(0)? {
        [b'K', b'D', b'M', b'V'] => {}
        [b'C', b'O', b'W', b'D'] | [b'#', b' ', b'D', b'i'] => return Err(Refusal::Extents),
        _ => return Err(Refusal::Another(Content::Vmdk)),
    }
    if !matches!(start.le32(4)?, 1..=3) {
        return Err(Refusal::UnknownVersion(Content::Vmdk));
    }
    let sectors = start.le64(12)?;
    let grain = start.le64(20)?;
    if sectors == 0 {
        return Err(Refusal::Extents);
    }
    let Some(virtual_bytes) = sectors.checked_mul(SECTOR) else {
        return Err(Refusal::Absurd("its disk is larger than can be counted"));
    };
    if !grain.is_power_of_two() || !(8..=MAX_GRAIN_SECTORS).contains(&grain) {
        return Err(Refusal::Absurd("its grains have an impossible size"));
    }
    let entries = start.le32(44)?;
    if entries != ENTRIES_PER_TABLE {
        return Err(Refusal::Absurd("its grain tables have an impossible size"));
    }
    if sectors.div_ceil(grain.saturating_mul(u64::from(entries))) > MAX_GRAIN_TABLES {
        return Err(Refusal::Absurd("it has too many grain tables"));
    }
    Ok(Header { virtual_bytes })
}

/// Where the header says its descriptor is, and how long.
fn descriptor_place(start: &Window, file_bytes: u64) -> Result<(u64, usize), Refusal> {
    let at = start.le64(28)?.saturating_mul(SECTOR);
    let bytes = start.le64(36)?.saturating_mul(SECTOR);
    if at == 0 || bytes == 0 || bytes > MAX_DESCRIPTOR_BYTES {
        return Err(Refusal::Absurd("its descriptor has an impossible size"));
    }
    if at.saturating_add(bytes) > file_bytes {
        return Err(Refusal::Truncated);
    }
    Ok((at, usize::try_from(bytes).unwrap_or(usize::MAX)))
}

fn names_parent(text: &[u8]) -> bool {
    let mut places = text.windows(PARENT.len());
    places.any(|place| place.eq_ignore_ascii_case(PARENT))
}

/// The text in the file: no parent, one extent, and that in this very file.
fn descriptor(text: &[u8]) -> Result<(), Refusal> {
    if names_parent(text) {
        return Err(Refusal::BackingFile);
    }
    let end = text.iter().position(|byte| *byte == 0);
    let text = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(Refusal::Absurd("its descriptor is no text"));
    };
    let mut kind = None;
    let mut extents = 0_u32;
    for line in text.lines().map(str::trim) {
        let mut words = line.split_ascii_whitespace();
        // First, for the name of an extent may hold an equals sign.
        if matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            extents = extents.saturating_add(1);
            if words.nth(1) != Some("SPARSE") || extents > 1 {
                return Err(Refusal::Extents);
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "parentcid" if !value.eq_ignore_ascii_case(NO_PARENT) => {
                    return Err(Refusal::BackingFile);
                }
                "createtype" if IN_ONE_FILE.contains(&value) => kind = Some(value),
                "createtype" => return Err(Refusal::Extents),
                _ => {}
            }
        }
    }
    if kind.is_none() || extents != 1 {
        return Err(Refusal::Extents);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\n\nRW 204800 SPARSE \"disk.vmdk\"\n\nddb.adapterType = \"ide\"\n";

    fn judged(text: &str, change: impl Fn(&mut [u8])) -> Result<u64, Refusal> {
        let mut bytes = vec![0; 64 << 10];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"KDMV");
        put(4, &1_u32.to_le_bytes());
        put(12, &204_800_u64.to_le_bytes());
        put(20, &128_u64.to_le_bytes());
        put(28, &1_u64.to_le_bytes());
        put(36, &20_u64.to_le_bytes());
        put(44, &512_u32.to_le_bytes());
        put(512, text.as_bytes());
        change(&mut bytes);
        match crate::check(Content::Vmdk, &bytes) {
            Ok(header) => Ok(header.virtual_bytes),
            Err(Error::Refused(refusal)) => Err(refusal),
            Err(Error::Io(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn an_image_in_one_file_gives_its_size() {
        assert_eq!(judged(PLAIN, |_| ()), Ok(100 << 20));
        let stream = PLAIN.replace("monolithicSparse", "streamOptimized");
        assert_eq!(judged(&stream, |_| ()), Ok(100 << 20));
    }

    #[test]
    fn what_names_other_files_is_refused() {
        let flat = PLAIN
            .replace("monolithicSparse", "monolithicFlat")
            .replace("SPARSE \"disk.vmdk\"", "FLAT \"/etc/shadow\" 0");
        assert_eq!(judged(&flat, |_| ()), Err(Refusal::Extents));
        let flat = PLAIN.replace("SPARSE \"disk.vmdk\"", "FLAT \"/etc/shadow\" 0");
        assert_eq!(judged(&flat, |_| ()), Err(Refusal::Extents));
        let two = PLAIN.replace("RW 2048", "RW 1 SPARSE \"a\"\nRW 2048");
        assert_eq!(judged(&two, |_| ()), Err(Refusal::Extents));
        let child = PLAIN.replace("parentCID=ffffffff", "parentCID=00000001");
        assert_eq!(judged(&child, |_| ()), Err(Refusal::BackingFile));
        let hint = format!("{PLAIN}parentFileNameHint=\"/etc/shadow\"\n");
        assert_eq!(judged(&hint, |_| ()), Err(Refusal::BackingFile));
        let named = PLAIN.replace("disk.vmdk\"", "disk.vmdk\"\nRW 1 FLAT \"/etc/a=b\" 0");
        assert_eq!(judged(&named, |_| ()), Err(Refusal::Extents));
        // A reader takes the descriptor's files where the disk has no size.
        assert_eq!(judged(PLAIN, |b| b[12..20].fill(0)), Err(Refusal::Extents));
        let alone = b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0\n".to_vec();
        let alone = crate::check(Content::Vmdk, &alone);
        assert!(matches!(
            alone,
            Err(Error::Refused(Refusal::Extents | Refusal::Truncated))
        ));
    }

    /// QEMU finds it anywhere in its own part of the file, wherever the header
    /// says that the descriptor is.
    #[test]
    fn a_parent_is_found_where_qemu_finds_it() {
        let hint = "parentFileNameHint=\"/etc/shadow\"";
        let comment = format!("{PLAIN}# {hint}\n");
        assert_eq!(judged(&comment, |_| ()), Err(Refusal::BackingFile));
        let value = format!("{PLAIN}ddb.comment = {hint}\n");
        assert_eq!(judged(&value, |_| ()), Err(Refusal::BackingFile));
        let elsewhere = judged(hint, |b| {
            b[28] = 40;
            b[40 * 512..40 * 512 + PLAIN.len()].copy_from_slice(PLAIN.as_bytes());
        });
        assert_eq!(elsewhere, Err(Refusal::BackingFile));
        let behind_its_end = format!("{PLAIN:<512}{hint}");
        let behind_its_end = judged(&behind_its_end, |b| b[36] = 1);
        assert_eq!(behind_its_end, Err(Refusal::BackingFile));
    }

    #[test]
    fn a_footer_says_what_the_header_says() {
        const FOOTER: usize = (64 << 10) - 1024;
        let footer = |b: &mut [u8]| {
            b[56..64].fill(0xff);
            b.copy_within(..80, FOOTER);
            b[FOOTER + 56] = 30;
        };
        assert_eq!(judged(PLAIN, footer), Ok(100 << 20));
        let other_size = |b: &mut [u8]| {
            footer(b);
            b[FOOTER + 16] = 1;
        };
        assert!(judged(PLAIN, other_size).is_err(), "another size");
        let none = |b: &mut [u8]| b[56..64].fill(0xff);
        assert!(judged(PLAIN, none).is_err(), "no footer");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (what, change) in [
            (
                "a disk beyond counting",
                (|b| b[19] = 0xff) as fn(&mut [u8]),
            ),
            ("odd grains", |b| b[20] = 3),
            ("huge grains", |b| b[25] = 1),
            ("a huge descriptor", |b| b[40] = 1),
            ("a descriptor far away", |b| b[34] = 1),
            ("odd tables", |b| b[44] = 1),
        ] {
            assert!(judged(PLAIN, change).is_err(), "{what}");
        }
        let many = format!("{PLAIN}{}", "RW 1 SPARSE \"a\"\n".repeat(400));
        assert_eq!(judged(&many, |_| ()), Err(Refusal::Extents));
    }
}
