//! The qcow2 format, as far as it is needed: to look at an image before any
//! tool opens it, and to write an empty overlay.
//!
//! After QEMU's `docs/interop/qcow2.rst`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use vimana_driver::qcow2::{HEADER_BYTES, Header};
use vimana_model::image::ImageFormat;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
const HEADER_V2: u64 = 72;
const HEADER_V3: u64 = 104;
/// What QEMU accepts, and what bounds the work here.
const MAX_L1_ENTRIES: u64 = (32 << 20) / 8;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

/// Incompatible feature bits.
const CORRUPT: u64 = 1 << 1;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions.
const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the image {0}")]
    Header(#[from] vimana_driver::qcow2::Refusal),
    #[error("the image is marked as damaged")]
    Corrupt,
    #[error("the image's header is damaged: {0}")]
    Damaged(&'static str),
    #[error("reading the image: {0}")]
    Io(#[from] io::Error),
}

/// Looks at a qcow2 image's header, tables and extensions; says how big its
/// disk is.
///
/// # Errors
/// Everything that could make a tool open another file or do unbounded work.
pub fn virtual_size(file: &File) -> Result<u64, Refusal> {
    let bytes = file.metadata()?.len();
    let mut start = [0; HEADER_BYTES];
    let have = usize::try_from(bytes).map_or(HEADER_BYTES, |bytes| bytes.min(HEADER_BYTES));
    let start = start.get_mut(..have).unwrap_or_default();
    file.read_exact_at(start, 0)?;
    let header = Header::parse(start)?;
    header.self_contained()?;
    let structure = Structure::of(&header, start);
    structure.check(bytes)?;
    if structure.v3 {
        check_extensions(file, structure.header_length, structure.cluster)?;
    }
    Ok(header.virtual_bytes)
}

/// The size of the disk an overlay shows. It may refer to a backing file, which
/// QEMU is told apart, and to nothing else.
///
/// # Errors
/// Where it is damaged, or refers to another file.
pub fn overlay_size(path: &Path) -> Result<u64, Refusal> {
    let file = File::open(path)?;
    let mut start = [0; HEADER_BYTES];
    file.read_exact_at(&mut start, 0)?;
    let header = Header {
        has_backing_file: false,
        ..Header::parse(&start)?
    };
    header.self_contained()?;
    Structure::of(&header, &start).check(file.metadata()?.len())?;
    Ok(header.virtual_bytes)
}

/// Where the header says that things are.
struct Structure {
    v3: bool,
    size: u64,
    cluster_bits: u32,
    /// Bytes in a cluster; 0 where the bits are out of range.
    cluster: u64,
    l1_entries: u64,
    l1_offset: u64,
    refcount_offset: u64,
    refcount_clusters: u64,
    refcount_order: u32,
    incompatible: u64,
    header_length: u64,
}

impl Structure {
    fn of(header: &Header, start: &[u8]) -> Self {
        let v3 = header.version == 3;
        let cluster_bits = be32(start, 20);
        Self {
            v3,
            size: header.virtual_bytes,
            cluster_bits,
            cluster: 1_u64.checked_shl(cluster_bits).unwrap_or(0),
            l1_entries: be32(start, 36).into(),
            l1_offset: be64(start, 40),
            refcount_offset: be64(start, 48),
            refcount_clusters: be32(start, 56).into(),
            refcount_order: if v3 { be32(start, 96) } else { 4 },
            incompatible: if v3 { be64(start, 72) } else { 0 },
            header_length: if v3 {
                be32(start, 100).into()
            } else {
                HEADER_V2
            },
        }
    }

    fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if self.incompatible & CORRUPT != 0 {
            return Err(Refusal::Corrupt);
        }
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(Refusal::Damaged("the cluster size"));
        }
        if self.refcount_order > 6 {
            return Err(Refusal::Damaged("the reference counts' width"));
        }
        if self.v3 && !(HEADER_V3..=self.cluster).contains(&self.header_length) {
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
            EXT_DATA_FILE => return Err(vimana_driver::qcow2::Refusal::DataFile.into()),
            EXT_BACKING_FORMAT => return Err(vimana_driver::qcow2::Refusal::BackingFile.into()),
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

/// Writes an empty disk of `size` bytes into a new file, over a backing file
/// where there is one: header, reference counts and an empty level-1 table, a cluster each or more.
///
/// # Errors
/// From writing; the backing file's name has to fit its field.
pub fn write_empty(file: &File, size: u64, backing: Option<(&str, ImageFormat)>) -> io::Result<()> {
    let l1_entries = size.div_ceil(CLUSTER * (CLUSTER / 8));
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let clusters = 3 + l1_clusters;
    let header = empty_header(size, l1_entries, backing)?;
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header, 0)?;
    // The table of reference counts: its first block is the next cluster.
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let once: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&once, 2 * CLUSTER)
}

fn empty_header(
    size: u64,
    l1_entries: u64,
    backing: Option<(&str, ImageFormat)>,
) -> io::Result<Vec<u8>> {
    let too_big = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (name, format) = backing.unzip();
    let name = name.unwrap_or_default();
    let name_length = u32::try_from(name.len()).map_err(too_big)?;
    let l1_entries = u32::try_from(l1_entries).map_err(too_big)?;

    let mut extensions = Vec::new();
    if let Some(format) = format {
        let format = format.name().as_bytes();
        let format_length = u32::try_from(format.len()).map_err(too_big)?;
        extensions.extend(EXT_BACKING_FORMAT.to_be_bytes());
        extensions.extend(format_length.to_be_bytes());
        extensions.extend(format);
        extensions.resize(extensions.len().next_multiple_of(8), 0);
    }
    extensions.extend([0; 8]);
    let name_at = match name_length {
        0 => 0,
        _ => HEADER_V3 + extensions.len() as u64,
    };

    let mut h = Vec::new();
    h.extend(MAGIC.to_be_bytes());
    h.extend(3_u32.to_be_bytes());
    h.extend(name_at.to_be_bytes());
    h.extend(name_length.to_be_bytes());
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
    h.extend(name.as_bytes());
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
