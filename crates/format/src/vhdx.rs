//! Hyper-V's VHDX, after Microsoft's [MS-VHDX]; numbers are little-endian.

use crate::bytes::Window;
use crate::{Content, Error, Header, ReadAt, Reads, Refusal};

/// Where the two copies of the header and of the region table are.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE_BYTES: usize = 64 << 10;
const MAX_ENTRIES: u16 = 2047;
const ENTRY_BYTES: usize = 32;

type Guid = [u8; 16];
const METADATA_REGION: Guid = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const FILE_PARAMETERS: Guid = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const DISK_SIZE: Guid = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const PARENT_LOCATOR: Guid = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
const HAS_PARENT: u32 = 1 << 1;
/// The format's own limit.
const MAX_VIRTUAL_BYTES: u64 = 64 << 40;

const SIGNATURE: &[u8] = b"vhdxfile";
const HEADER_BYTES: usize = 80;
const ITEM_BYTES: usize = 8;

/// The signature; of each copy the header, the region table, the metadata table
/// and the two items in it.
pub const MOST_READS: Reads = Reads {
    count: 1 + 2 * (1 + 1 + 1 + 2),
    bytes: (SIGNATURE.len() + 2 * (HEADER_BYTES + 2 * TABLE_BYTES + 2 * ITEM_BYTES)) as u64,
};

pub fn check(file: &impl ReadAt) -> Result<Header, Error> {
    if Window::read(file, 0, SIGNATURE.len())?.bytes() != SIGNATURE {
        return Err(Refusal::Another(Content::Vhdx).into());
    }
    for at in HEADERS {
        closed(&Window::read(file, at, HEADER_BYTES)?)?;
    }
    // Both copies, whichever a reader takes.
    let mut found = None;
    for at in REGION_TABLES {
        let table = Window::read(file, at, TABLE_BYTES)?;
        let Some(region) = region(&table)? else {
            continue;
        };
        let header = metadata(file, region)?;
        if found.is_some_and(|found| found != header) {
            return Err(Refusal::Absurd("it has two sizes").into());
        }
        found = Some(header);
    }
    Ok(found.ok_or(Refusal::Truncated)?)
}

/// A log that is still to be written back could change everything else.
fn closed(header: &Window) -> Result<(), Refusal> {
    if header.array(0) != Ok(*b"head") {
        return Ok(());
    }
    if header.le16(66)? != 1 {
        return Err(Refusal::UnknownVersion(Content::Vhdx));
    }
    if header.array::<16>(48)? != [0; 16] {
        return Err(Refusal::Absurd("it was not closed properly"));
    }
    Ok(())
}

/// Where a copy of the region table says the metadata is.
fn region(table: &Window) -> Result<Option<u64>, Refusal> {
    if table.array(0) != Ok(*b"regi") {
        return Ok(None);
    }
    let count = table.le32(8)?;
    if count > u32::from(MAX_ENTRIES) {
        return Err(Refusal::Absurd("it has too many regions"));
    }
    for index in 0..count as usize {
        let at = 16 + index * ENTRY_BYTES;
        if table.array(at) == Ok(METADATA_REGION) {
            return table.le64(at + 16).map(Some);
        }
    }
    Err(Refusal::Absurd("it has no metadata"))
}

fn metadata(file: &impl ReadAt, region: u64) -> Result<Header, Error> {
    let table = Window::read(file, region, TABLE_BYTES)?;
    if table.array(0) != Ok(*b"metadata") {
        return Err(Refusal::Absurd("its metadata is not where it says").into());
    }
    let count = table.le16(10)?;
    if count > MAX_ENTRIES {
        return Err(Refusal::Absurd("it has too much metadata").into());
    }
    let (mut size, mut parameters) = (None, false);
    for index in 0..usize::from(count) {
        let at = 32 + index * ENTRY_BYTES;
        let item: Guid = table.array(at)?;
        let place = region.saturating_add(u64::from(table.le32(at + 16)?));
        match item {
            PARENT_LOCATOR => return Err(Refusal::BackingFile.into()),
            FILE_PARAMETERS => {
                let flags = Window::read(file, place, ITEM_BYTES)?.le32(4)?;
                if flags & HAS_PARENT != 0 {
                    return Err(Refusal::BackingFile.into());
                }
                // A reader may take either, and each one costs a read.
                if std::mem::replace(&mut parameters, true) {
                    return Err(Refusal::Absurd("it says the same thing twice").into());
                }
            }
            DISK_SIZE if size.is_some() => {
                return Err(Refusal::Absurd("it says the same thing twice").into());
            }
            DISK_SIZE => size = Some(Window::read(file, place, ITEM_BYTES)?.le64(0)?),
            _ => {}
        }
    }
    match size {
        Some(0) => Err(Refusal::Empty.into()),
        Some(size) if size > MAX_VIRTUAL_BYTES => {
            Err(Refusal::Absurd("its disk is larger than the format can hold").into())
        }
        Some(virtual_bytes) if parameters => Ok(Header { virtual_bytes }),
        Some(_) | None => Err(Refusal::Absurd("it does not say how large its disk is").into()),
    }
}
