//! The qcow2 format, as far as it is needed: to look at an image before any
//! tool opens it, and to write an empty overlay.
//!
//! After QEMU's `docs/interop/qcow2.rst`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use vimana_model::image::ImageFormat;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
const HEADER_V2: u64 = 72;
const HEADER_V3: u64 = 104;
/// What QEMU accepts, and what bounds the work here.
const MAX_L1_ENTRIES: u64 = (32 << 20) / 8;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

/// Incompatible feature bits.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions.
const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the image is not qcow2")]
    NotQcow2,
    #[error("the image is qcow2 of an unknown version")]
    Version,
    #[error("the image has a backing file; only images that stand alone are used")]
    BackingFile,
    #[error("the image keeps its data in another file; only images that stand alone are used")]
    DataFile,
    #[error("the image is encrypted")]
    Encrypted,
    #[error("the image is marked as damaged")]
    Corrupt,
    #[error("the image uses features that are not known here")]
    UnknownFeature,
    #[error("the image's header is damaged: {0}")]
    Damaged(&'static str),
    #[error("reading the image: {0}")]
    Io(#[from] io::Error),
}

/// Looks at a qcow2 image's header and extensions; says how big its disk is.
///
/// # Errors
/// Everything that could make a tool open another file or do unbounded work.
pub fn virtual_size(file: &File) -> Result<u64, Refusal> {
    let bytes = file.metadata()?.len();
    let header = Header::read(file, bytes)?;
    header.check(bytes)?;
    if header.version == 3 {
        check_extensions(file, header.length, header.cluster)?;
    }
    Ok(header.size)
}

struct Header {
    version: u32,
    backing: u64,
    cluster_bits: u32,
    /// Bytes in a cluster; 0 where the bits are out of range.
    cluster: u64,
    size: u64,
    crypt: u32,
    l1_entries: u64,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u64,
    incompatible: u64,
    refcount_order: u32,
    length: u64,
}

impl Header {
    fn read(file: &File, bytes: u64) -> Result<Self, Refusal> {
        if bytes < HEADER_V2 {
            return Err(Refusal::NotQcow2);
        }
        let mut raw = [0; 104];
        let have = usize::try_from(bytes.min(HEADER_V3)).unwrap_or(0);
        file.read_exact_at(raw.get_mut(..have).unwrap_or_default(), 0)?;
        if be32(&raw, 0) != MAGIC {
            return Err(Refusal::NotQcow2);
        }
        let version = be32(&raw, 4);
        let v3 = match version {
            2 => false,
            3 if bytes >= HEADER_V3 => true,
            3 => return Err(Refusal::Damaged("it is cut short")),
            _ => return Err(Refusal::Version),
        };
        let cluster_bits = be32(&raw, 20);
        Ok(Self {
            version,
            backing: be64(&raw, 8) | u64::from(be32(&raw, 16)),
            cluster_bits,
            cluster: 1_u64.checked_shl(cluster_bits).unwrap_or(0),
            size: be64(&raw, 24),
            crypt: be32(&raw, 32),
            l1_entries: be32(&raw, 36).into(),
            l1_offset: be64(&raw, 40),
            refcount_offset: be64(&raw, 48),
            refcount_clusters: be32(&raw, 56).into(),
            incompatible: if v3 { be64(&raw, 72) } else { 0 },
            refcount_order: if v3 { be32(&raw, 96) } else { 4 },
            length: if v3 {
                be32(&raw, 100).into()
            } else {
                HEADER_V2
            },
        })
    }

    fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if self.backing != 0 {
            return Err(Refusal::BackingFile);
        }
        if self.crypt != 0 {
            return Err(Refusal::Encrypted);
        }
        if self.incompatible & EXTERNAL_DATA != 0 {
            return Err(Refusal::DataFile);
        }
        if self.incompatible & CORRUPT != 0 {
            return Err(Refusal::Corrupt);
        }
        if self.incompatible & !(DIRTY | COMPRESSION_TYPE | EXTENDED_L2) != 0 {
            return Err(Refusal::UnknownFeature);
        }
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(Refusal::Damaged("the cluster size"));
        }
        if self.refcount_order > 6 {
            return Err(Refusal::Damaged("the reference counts' width"));
        }
        if self.version == 3 && !(HEADER_V3..=self.cluster).contains(&self.length) {
            return Err(Refusal::Damaged("its length"));
        }
        // One table of level 2 is a cluster of 8- or 16-byte entries.
        let entry = if self.incompatible & EXTENDED_L2 == 0 {
            8
        } else {
            16
        };
        let per_l1_entry = self.cluster * (self.cluster / entry);
        let wanted = self.size.div_ceil(per_l1_entry);
        if wanted > MAX_L1_ENTRIES || self.l1_entries > MAX_L1_ENTRIES || self.l1_entries < wanted {
            return Err(Refusal::Damaged("the size of its disk"));
        }
        self.table(self.l1_offset, self.l1_entries * 8, bytes)?;
        let refcounts = self.refcount_clusters * self.cluster;
        if refcounts == 0 || refcounts > MAX_REFCOUNT_TABLE {
            return Err(Refusal::Damaged("the reference counts"));
        }
        self.table(self.refcount_offset, refcounts, bytes)
    }

    /// A table lies on a cluster boundary inside the file.
    fn table(&self, offset: u64, length: u64, bytes: u64) -> Result<(), Refusal> {
        let end = offset.checked_add(length);
        let inside = length == 0 || (offset > 0 && end.is_some_and(|end| end <= bytes));
        if !offset.is_multiple_of(self.cluster) || !inside {
            return Err(Refusal::Damaged("a table lies outside"));
        }
        Ok(())
    }
}

/// Walks the extensions between header and first cluster's end.
fn check_extensions(file: &File, mut at: u64, cluster: u64) -> Result<(), Refusal> {
    while at + 8 <= cluster {
        let mut head = [0; 8];
        if file.read_at(&mut head, at)? < head.len() {
            return Err(Refusal::Damaged("an extension is cut short"));
        }
        match be32(&head, 0) {
            EXT_END => return Ok(()),
            EXT_DATA_FILE => return Err(Refusal::DataFile),
            EXT_BACKING_FORMAT => return Err(Refusal::BackingFile),
            _ => {}
        }
        let length = u64::from(be32(&head, 4)).next_multiple_of(8);
        at += 8 + length;
        if at > cluster {
            return Err(Refusal::Damaged("an extension is too long"));
        }
    }
    Ok(())
}

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// Writes an empty overlay of `size` bytes over `backing` into a new file:
/// header, reference counts and an empty level-1 table, a cluster each or more.
///
/// # Errors
/// From writing; the backing file's name has to fit its field.
pub fn write_overlay(file: &File, size: u64, backing: &str, format: ImageFormat) -> io::Result<()> {
    let l1_entries = size.div_ceil(CLUSTER * (CLUSTER / 8));
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let clusters = 3 + l1_clusters;
    let header = overlay_header(size, l1_entries, backing, format)?;
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header, 0)?;
    // The table of reference counts: its first block is the next cluster.
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let once: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&once, 2 * CLUSTER)
}

fn overlay_header(
    size: u64,
    l1_entries: u64,
    backing: &str,
    format: ImageFormat,
) -> io::Result<Vec<u8>> {
    let too_big = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let name = u32::try_from(backing.len()).map_err(too_big)?;
    let l1_entries = u32::try_from(l1_entries).map_err(too_big)?;
    let format = format.name().as_bytes();
    let format_length = u32::try_from(format.len()).map_err(too_big)?;

    let mut extensions = Vec::new();
    extensions.extend(EXT_BACKING_FORMAT.to_be_bytes());
    extensions.extend(format_length.to_be_bytes());
    extensions.extend(format);
    extensions.resize(extensions.len().next_multiple_of(8), 0);
    extensions.extend([0; 8]);
    let backing_at = HEADER_V3 + extensions.len() as u64;

    let mut h = Vec::new();
    h.extend(MAGIC.to_be_bytes());
    h.extend(3_u32.to_be_bytes());
    h.extend(backing_at.to_be_bytes());
    h.extend(name.to_be_bytes());
    h.extend(CLUSTER_BITS.to_be_bytes());
    h.extend(size.to_be_bytes());
    h.extend(0_u32.to_be_bytes()); // not encrypted
    h.extend(l1_entries.to_be_bytes());
    h.extend((3 * CLUSTER).to_be_bytes());
    h.extend(CLUSTER.to_be_bytes()); // table of reference counts
    h.extend(1_u32.to_be_bytes());
    h.extend([0; 4 + 8]); // snapshots
    h.extend([0; 3 * 8]); // features
    h.extend(4_u32.to_be_bytes()); // reference counts of 16 bits
    h.extend(104_u32.to_be_bytes());
    h.extend(extensions);
    h.extend(backing.as_bytes());
    Ok(h)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_be_bytes(*field))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_be_bytes(*field))
}

#[cfg(test)]
mod tests;
