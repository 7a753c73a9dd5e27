//! Reads the header of a qcow2 file, so that nothing else opens a file that
//! points outside itself.
//!
//! Layout after QEMU's `docs/interop/qcow2.rst`; all numbers are big-endian.

/// How many bytes of a file [`Header::parse`] wants to see.
pub const HEADER_BYTES: usize = 104;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// The incompatible feature "external data file".
const EXTERNAL_DATA: u64 = 1 << 2;
/// Incompatible features every reader of today understands: dirty, corrupt,
/// external data, compression type, extended L2 entries.
const KNOWN_INCOMPATIBLE: u64 = 0b1_1111;

/// What the header says about the file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// Size of the disk a guest sees.
    pub virtual_bytes: u64,
    pub has_backing_file: bool,
    pub has_data_file: bool,
    pub is_encrypted: bool,
}

/// Why a file is refused; a verb phrase about the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("is not a qcow2 image")]
    NotQcow2,
    #[error("is cut short")]
    Truncated,
    #[error("is a qcow2 image of an unknown version")]
    UnknownVersion,
    #[error("has features this version does not know")]
    UnknownFeatures,
    #[error("refers to a backing file; only self-contained images are accepted")]
    BackingFile,
    #[error("refers to an external data file; only self-contained images are accepted")]
    DataFile,
    #[error("is encrypted; only plain images are accepted")]
    Encrypted,
    #[error("has a disk of no size")]
    Empty,
}

impl Header {
    /// Reads the first [`HEADER_BYTES`] of a file; fewer are fine where the
    /// version needs fewer.
    ///
    /// # Errors
    /// Not a qcow2 file, or one of an unknown kind.
    pub fn parse(start: &[u8]) -> Result<Self, Refusal> {
        if start.first_chunk::<4>() != Some(MAGIC) {
            return Err(Refusal::NotQcow2);
        }
        let version = u32_at(start, 4)?;
        let incompatible = match version {
            2 => 0,
            3 => u64_at(start, 72)?,
            _ => return Err(Refusal::UnknownVersion),
        };
        if incompatible & !KNOWN_INCOMPATIBLE != 0 {
            return Err(Refusal::UnknownFeatures);
        }
        let virtual_bytes = u64_at(start, 24)?;
        if virtual_bytes == 0 {
            return Err(Refusal::Empty);
        }
        Ok(Self {
            version,
            virtual_bytes,
            has_backing_file: u64_at(start, 8)? != 0 || u32_at(start, 16)? != 0,
            has_data_file: incompatible & EXTERNAL_DATA != 0,
            is_encrypted: u32_at(start, 32)? != 0,
        })
    }

    /// Refuses whatever would make a tool open another file or ask for a key.
    ///
    /// # Errors
    /// What it refers to.
    pub fn self_contained(&self) -> Result<(), Refusal> {
        match self {
            Self {
                has_backing_file: true,
                ..
            } => Err(Refusal::BackingFile),
            Self {
                has_data_file: true,
                ..
            } => Err(Refusal::DataFile),
            Self {
                is_encrypted: true, ..
            } => Err(Refusal::Encrypted),
            Self { .. } => Ok(()),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Refusal> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    field
        .map(|field| u32::from_be_bytes(*field))
        .ok_or(Refusal::Truncated)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Refusal> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    field
        .map(|field| u64::from_be_bytes(*field))
        .ok_or(Refusal::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        change(&mut bytes);
        bytes
    }

    fn verdict(bytes: &[u8]) -> Result<u64, Refusal> {
        let header = Header::parse(bytes)?;
        header.self_contained()?;
        Ok(header.virtual_bytes)
    }

    #[test]
    fn plain_image_gives_its_size() {
        assert_eq!(verdict(&header(|_| ())), Ok(1 << 30));
    }

    #[test]
    fn whatever_points_outside_is_refused() {
        assert_eq!(verdict(&header(|b| b[15] = 200)), Err(Refusal::BackingFile));
        assert_eq!(verdict(&header(|b| b[19] = 5)), Err(Refusal::BackingFile));
        assert_eq!(verdict(&header(|b| b[79] = 4)), Err(Refusal::DataFile));
        assert_eq!(verdict(&header(|b| b[35] = 2)), Err(Refusal::Encrypted));
        assert_eq!(
            verdict(&header(|b| b[72] = 1)),
            Err(Refusal::UnknownFeatures)
        );
        assert_eq!(verdict(&header(|b| b[7] = 9)), Err(Refusal::UnknownVersion));
        assert_eq!(verdict(&header(|b| b[24..32].fill(0))), Err(Refusal::Empty));
        assert_eq!(verdict(b"MZ not an image"), Err(Refusal::NotQcow2));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = header(|_| ());
        for length in 0..80 {
            assert!(verdict(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
