//! qcow2, after QEMU's `docs/interop/qcow2.rst`; all numbers are big-endian.

use crate::bytes::Window;
use crate::{Content, Error, Header, ReadAt, Reads, Refusal};

const MAGIC: &[u8; 4] = b"QFI\xfb";
const V2_BYTES: u32 = 72;
const V3_BYTES: u32 = 104;

/// The incompatible features that every reader of today understands: dirty,
/// corrupt, external data, compression type, extended L2 entries.
const KNOWN_INCOMPATIBLE: u64 = 0b1_1111;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;

/// Where an entry of either table says what it points to is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// Of an L2 entry: its cluster reads as zeros, whatever it points to.
const ZERO: u64 = 1;
/// The part of an extended entry that tells which subclusters are there.
const ALLOCATED: u64 = 0xffff_ffff;

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const ENCRYPTION_HEADER: u32 = 0x0537_be77;
const DATA_FILE_NAME: u32 = 0x4441_5441;
/// No image has nearly as many.
const MAX_EXTENSIONS: usize = 64;

/// What QEMU itself accepts at most.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65_536;
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// How much of an L1 table is in memory at once.
const L1_PIECE_BYTES: usize = 64 << 10;

/// The header, and the first cluster.
pub const MOST_READS: Reads = Reads {
    count: 2,
    bytes: V3_BYTES as u64 + (1 << *CLUSTER_BITS.end()),
};

pub fn check(file: &impl ReadAt, file_bytes: u64) -> Result<Header, Error> {
    let start = Window::read(file, 0, V3_BYTES as usize)?;
    let (header, cluster_bytes, header_bytes) = fixed(&start, file_bytes)?;
    let first_cluster = usize::try_from(cluster_bytes).unwrap_or(usize::MAX);
    extensions(
        &Window::read(file, 0, first_cluster)?,
        header_bytes,
        cluster_bytes,
    )?;
    Ok(header)
}

/// Sees that every table, and the beginning of every cluster of data, is in the
/// file. (The last cluster of a whole file need not be whole.)
pub fn check_whole(file: &impl ReadAt, file_bytes: u64) -> Result<(), Error> {
    let start = Window::read(file, 0, V3_BYTES as usize)?;
    fixed(&start, file_bytes)?;
    let cluster_bits = start.be32(20)?;
    let extended = start.be32(4)? > 2 && start.be64(72)? & EXTENDED_L2 != 0;
    let cluster_bytes = 1_usize << cluster_bits;
    // Tables that are one and the same would be read over and over.
    let mut budget = file_bytes;
    let l1_at = start.be64(40)?;
    let l1_bytes = u64::from(start.be32(36)?).saturating_mul(8);
    for piece in (0..l1_bytes).step_by(L1_PIECE_BYTES) {
        let rest = usize::try_from(l1_bytes.saturating_sub(piece)).unwrap_or(usize::MAX);
        let l1 = Window::read(file, l1_at.saturating_add(piece), rest.min(L1_PIECE_BYTES))?;
        for entry in entries(&l1, 8)? {
            let l2_at = entry & OFFSET;
            if l2_at == 0 {
                continue;
            }
            let left = budget.checked_sub(cluster_bytes as u64);
            budget = left.ok_or(Refusal::Absurd("its tables are larger than the file"))?;
            let l2 = Window::read(file, l2_at, cluster_bytes)?;
            if l2.bytes().len() < cluster_bytes {
                return Err(Refusal::Truncated.into());
            }
            is_inside(&l2, extended, cluster_bits, file_bytes)?;
        }
    }
    Ok(())
}

/// Whether all that an L2 table points to begins in the file.
fn is_inside(l2: &Window, extended: bool, bits: u32, file_bytes: u64) -> Result<(), Refusal> {
    let of_compressed = (1_u64 << (62 - (bits - 8))) - 1;
    let step = if extended { 16 } else { 8 };
    for (index, entry) in entries(l2, step)?.enumerate() {
        let at = if entry & COMPRESSED != 0 {
            entry & of_compressed
        } else if extended {
            let second = index.saturating_mul(step).saturating_add(8);
            if l2.be64(second)? & ALLOCATED == 0 {
                continue;
            }
            entry & OFFSET
        } else if entry & ZERO != 0 {
            continue;
        } else {
            entry & OFFSET
        };
        if at >= file_bytes {
            return Err(Refusal::Truncated);
        }
    }
    Ok(())
}

/// The first numbers of a table's entries, which are `step` bytes each.
fn entries(table: &Window, step: usize) -> Result<impl Iterator<Item = u64>, Refusal> {
    let bytes = table.bytes();
    if !bytes.len().is_multiple_of(step) {
        return Err(Refusal::Truncated);
    }
    let first = |entry: &[u8]| entry.first_chunk().copied().map(u64::from_be_bytes);
    Ok(bytes.chunks_exact(step).filter_map(first))
}

/// The part of the header that every image has: what it says, and the sizes of
/// a cluster and of the header.
fn fixed(start: &Window, file_bytes: u64) -> Result<(Header, u64, u32), Refusal> {
    if start.array(0) != Ok(*MAGIC) {
        return Err(Refusal::Another(Content::Qcow2));
    }
    let version = start.be32(4)?;
    let (incompatible, header_bytes, refcount_order) = match version {
        2 => (0, V2_BYTES, 4),
        3 => (start.be64(72)?, start.be32(100)?, start.be32(96)?),
        _ => return Err(Refusal::UnknownVersion(Content::Qcow2)),
    };
    if incompatible & !KNOWN_INCOMPATIBLE != 0 {
        return Err(Refusal::UnknownFeatures);
    }
    if start.be64(8)? != 0 || start.be32(16)? != 0 {
        return Err(Refusal::BackingFile);
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(Refusal::DataFile);
    }
    if start.be32(32)? != 0 {
        return Err(Refusal::Encrypted);
    }
    if incompatible & CORRUPT != 0 {
        return Err(Refusal::Absurd("it is marked as corrupt"));
    }
    let cluster_bits = start.be32(20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(Refusal::Absurd("its clusters have an impossible size"));
    }
    if refcount_order > 6 {
        return Err(Refusal::Absurd(
            "its reference counts have an impossible size",
        ));
    }
    let cluster_bytes = 1_u64 << cluster_bits;
    let virtual_bytes = start.be64(24)?;
    if virtual_bytes == 0 {
        return Err(Refusal::Empty);
    }
    tables(start, file_bytes, cluster_bits, virtual_bytes)?;
    // Extensions that begin anywhere else could lie across the cluster's end.
    let fits = header_bytes >= V3_BYTES
        && header_bytes.is_multiple_of(8)
        && u64::from(header_bytes) <= cluster_bytes;
    if version == 3 && !fits {
        return Err(Refusal::Absurd("its header has an impossible size"));
    }
    Ok((Header { virtual_bytes }, cluster_bytes, header_bytes))
}

/// The tables a reader loads as a whole: inside the file, and as large as they
/// have to be.
fn tables(
    start: &Window,
    file_bytes: u64,
    cluster_bits: u32,
    virtual_bytes: u64,
) -> Result<(), Refusal> {
    let cluster_bytes = 1_u64 << cluster_bits;
    let inside = |offset: u64, bytes: u64| {
        let end = offset.checked_add(bytes);
        offset != 0
            && offset.is_multiple_of(cluster_bytes)
            && end.is_some_and(|end| end <= file_bytes)
    };
    // An L2 table is one cluster of 8-byte entries, each for one cluster.
    let per_l1_entry = 1_u64 << (2 * cluster_bits - 3);
    let l1_entries = u64::from(start.be32(36)?);
    let l1_bytes = l1_entries.saturating_mul(8);
    if l1_bytes > MAX_L1_BYTES {
        return Err(Refusal::Absurd("its L1 table is too large"));
    }
    // With extended L2 entries it needs twice as many at most.
    if l1_entries < virtual_bytes.div_ceil(per_l1_entry) {
        return Err(Refusal::Absurd("its L1 table is too small for its disk"));
    }
    if !inside(start.be64(40)?, l1_bytes) {
        return Err(Refusal::Absurd("its L1 table is not inside the file"));
    }
    let refcount_bytes = u64::from(start.be32(56)?).saturating_mul(cluster_bytes);
    if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err(Refusal::Absurd(
            "its reference count table has an impossible size",
        ));
    }
    // The last cluster of a file need not be whole.
    if !inside(start.be64(48)?, 1) {
        return Err(Refusal::Absurd(
            "its reference count table is not inside the file",
        ));
    }
    let snapshots = start.be32(60)?;
    if snapshots > MAX_SNAPSHOTS || (snapshots > 0 && !inside(start.be64(64)?, 1)) {
        return Err(Refusal::Absurd("its snapshot table is not inside the file"));
    }
    Ok(())
}

/// What follows the header, up to the end of the first cluster.
fn extensions(start: &Window, header_bytes: u32, cluster_bytes: u64) -> Result<(), Refusal> {
    let mut at = u64::from(header_bytes);
    for _ in 0..MAX_EXTENSIONS {
        if at.saturating_add(8) > cluster_bytes {
            return Ok(());
        }
        let place = usize::try_from(at).unwrap_or(usize::MAX);
        let kind = start.be32(place)?;
        let length = start.be32(place.saturating_add(4))?;
        match kind {
            END => return Ok(()),
            BACKING_FORMAT => return Err(Refusal::BackingFile),
            DATA_FILE_NAME => return Err(Refusal::DataFile),
            ENCRYPTION_HEADER => return Err(Refusal::Encrypted),
            _ => {}
        }
        let padded = u64::from(length).next_multiple_of(8);
        at = at.saturating_add(8).saturating_add(padded);
        if at > cluster_bytes {
            return Err(Refusal::Absurd(
                "a header extension is longer than its cluster",
            ));
        }
    }
    Err(Refusal::Absurd("it has too many header extensions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version 3 image of 1 GiB with 64 KiB clusters, as `qemu-img` makes it.
    fn image(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = vec![0; 200 << 10];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, MAGIC);
        put(4, &3_u32.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(40, &0x3_0000_u64.to_be_bytes());
        put(48, &0x1_0000_u64.to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &112_u32.to_be_bytes());
        // The feature name table, and the end.
        put(112, &0x6803_f857_u32.to_be_bytes());
        put(116, &96_u32.to_be_bytes());
        change(&mut bytes);
        bytes
    }

    fn judged(bytes: &[u8]) -> Result<u64, Refusal> {
        let bytes = bytes.to_vec();
        match crate::check(Content::Qcow2, &bytes) {
            Ok(header) => Ok(header.virtual_bytes),
            Err(Error::Refused(refusal)) => Err(refusal),
            Err(Error::Io(error)) => panic!("{error}"),
        }
    }

    fn verdict(change: impl Fn(&mut [u8])) -> Result<u64, Refusal> {
        judged(&image(change))
    }

    fn extension(kind: u32) -> impl Fn(&mut [u8]) {
        move |bytes| {
            bytes[216..220].copy_from_slice(&kind.to_be_bytes());
            bytes[220..224].copy_from_slice(&5_u32.to_be_bytes());
        }
    }

    #[test]
    fn a_plain_image_gives_its_size() {
        assert_eq!(verdict(|_| ()), Ok(1 << 30));
        assert_eq!(verdict(extension(0x2385_2875)), Ok(1 << 30), "bitmaps");
    }

    #[test]
    fn whatever_points_outside_is_refused() {
        assert_eq!(verdict(|b| b[15] = 200), Err(Refusal::BackingFile));
        assert_eq!(verdict(|b| b[19] = 5), Err(Refusal::BackingFile));
        assert_eq!(
            verdict(extension(BACKING_FORMAT)),
            Err(Refusal::BackingFile)
        );
        assert_eq!(verdict(|b| b[79] = 4), Err(Refusal::DataFile));
        assert_eq!(verdict(extension(DATA_FILE_NAME)), Err(Refusal::DataFile));
        assert_eq!(verdict(|b| b[35] = 2), Err(Refusal::Encrypted));
        assert_eq!(
            verdict(extension(ENCRYPTION_HEADER)),
            Err(Refusal::Encrypted)
        );
        assert_eq!(verdict(|b| b[72] = 1), Err(Refusal::UnknownFeatures));
        let unknown = Refusal::UnknownVersion(Content::Qcow2);
        assert_eq!(verdict(|b| b[7] = 9), Err(unknown));
        assert_eq!(verdict(|b| b[24..32].fill(0)), Err(Refusal::Empty));
        let other = Refusal::Another(Content::Qcow2);
        assert_eq!(judged(b"MZ not an image"), Err(other));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (what, change) in [
            ("a huge L1 table", (|b| b[36] = 0xff) as fn(&mut [u8])),
            ("an L1 table far away", |b| b[40] = 0x7f),
            ("an L1 table that wraps around", |b| b[40..48].fill(0xff)),
            ("8 EiB on a small table", |b| b[24] = 0x7f),
            ("no clusters", |b| b[23] = 0),
            ("clusters of 4 GiB", |b| b[23] = 32),
            ("a huge refcount table", |b| b[56] = 0xff),
            ("no refcount table", |b| b[59] = 0),
            ("snapshots nowhere", |b| b[63] = 1),
            ("too many snapshots", |b| b[60] = 0xff),
            ("a header without an end", |b| b[100] = 0xff),
            ("a header of odd size", |b| b[103] = 108),
            ("an endless extension", |b| b[116] = 0xff),
            ("marked as corrupt", |b| b[79] = 2),
        ] {
            let verdict = verdict(change);
            assert!(
                matches!(verdict, Err(Refusal::Absurd(_))),
                "{what}: {verdict:?}"
            );
        }
        let extensions = |b: &mut [u8]| {
            for at in (112..60_000).step_by(8) {
                b[at..at + 8].copy_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0]);
            }
        };
        assert!(verdict(extensions).is_err());
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = image(|_| ());
        for length in (0..220).chain([0x1_0000, 0x3_0008]) {
            assert!(judged(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
