//! What the first bytes of a disk image say.
//!
//! Everything here is read by our own code, from memory, in bounded time,
//! before any tool opens the file: a header may name other files, and a tool
//! that believes it would read those. Nothing is allocated by what a header
//! says.

mod bytes;
mod qcow2;
mod vdi;
mod vhdx;
mod vmdk;

use std::io;

use self::bytes::Window;

/// A file, or bytes that stand for one.
pub trait ReadAt {
    /// How long it is.
    ///
    /// # Errors
    /// It cannot be asked.
    fn length(&self) -> io::Result<u64>;

    /// Fills as much of `buffer` as there is from `offset` on, and says how much.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// How much [`Content::of`] wants to see; fewer bytes are fine where there are
/// no more.
pub const START_BYTES: usize = 512;

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    Qcow2,
    Vmdk,
    Vdi,
    Vhdx,
    /// The footer at the front of a dynamic one; a fixed one looks raw.
    Vhd,
    Qed,
    Luks,
    Gzip,
    Xz,
    Zstd,
    /// An archive: a `.zip`, a `.tar`, an `.ova`.
    Archive,
    /// A web page, where a file was expected.
    Page,
    /// Nothing that is known, so the bytes are a disk's.
    Raw,
}

impl Content {
    /// Looks at the magic numbers alone.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        const AT_FRONT: &[(&[u8], Content)] = &[
            (b"QFI\xfb", Content::Qcow2),
            (b"KDMV", Content::Vmdk),
            (b"COWD", Content::Vmdk),
            (b"# Disk DescriptorFile", Content::Vmdk),
            (b"vhdxfile", Content::Vhdx),
            (b"conectix", Content::Vhd),
            (b"QED\0", Content::Qed),
            (b"LUKS\xba\xbe", Content::Luks),
            (b"\x1f\x8b\x08", Content::Gzip),
            (b"\xfd7zXZ\0", Content::Xz),
            (b"\x28\xb5\x2f\xfd", Content::Zstd),
            (b"PK\x03\x04", Content::Archive),
            (b"7z\xbc\xaf\x27\x1c", Content::Archive),
        ];
        let front = AT_FRONT.iter().find(|(magic, _)| start.starts_with(magic));
        if let Some((_, content)) = front {
            return *content;
        }
        let at = |offset: usize, magic: &[u8]| {
            let rest = start.get(offset..);
            rest.is_some_and(|rest| rest.starts_with(magic))
        };
        if at(64, &vdi::MAGIC) {
            return Self::Vdi;
        }
        if at(257, b"ustar") {
            return Self::Archive;
        }
        if is_page(start) {
            return Self::Page;
        }
        Self::Raw
    }

    /// For people, with its article.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "a qcow2 image",
            Self::Vmdk => "a vmdk image",
            Self::Vdi => "a vdi image",
            Self::Vhdx => "a vhdx image",
            Self::Vhd => "a vhd image",
            Self::Qed => "a qed image",
            Self::Luks => "an encrypted image",
            Self::Gzip => "a gzip file",
            Self::Xz => "an xz file",
            Self::Zstd => "a zstd file",
            Self::Archive => "an archive",
            Self::Page => "a web page",
            Self::Raw => "a raw image",
        }
    }
}

fn is_page(start: &[u8]) -> bool {
    let text = start.trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        let found = text.get(..tag.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(tag))
    })
}

/// Why an image is refused; a verb phrase about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("is not {}", .0.name())]
    Another(Content),
    #[error("is {}, which is no image that can be used", .0.name())]
    NoImage(Content),
    #[error("is cut short")]
    Truncated,
    #[error("is {} of an unknown version", .0.name())]
    UnknownVersion(Content),
    #[error("has features this version does not know")]
    UnknownFeatures,
    #[error("refers to a backing file; only self-contained images are accepted")]
    BackingFile,
    #[error("refers to an external data file; only self-contained images are accepted")]
    DataFile,
    #[error("is spread over several files; only self-contained images are accepted")]
    Extents,
    #[error("is encrypted; only plain images are accepted")]
    Encrypted,
    #[error("has a disk of no size")]
    Empty,
    #[error("says of itself what cannot be: {0}")]
    Absurd(&'static str),
}

/// Why a file is not accepted as an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What a header that was accepted says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Size of the disk a guest sees.
    pub virtual_bytes: u64,
}

/// The most that is read of a file, whatever it says; all of it may be in
/// memory at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    pub count: u32,
    pub bytes: u64,
}

/// The most that [`check`] reads of a file that is taken for `content`.
#[must_use]
pub const fn most_reads(content: Content) -> Reads {
    match content {
        Content::Qcow2 => qcow2::MOST_READS,
        Content::Vdi => vdi::MOST_READS,
        Content::Vhdx => vhdx::MOST_READS,
        Content::Vmdk => vmdk::MOST_READS,
        Content::Raw
        | Content::Luks
        | Content::Vhd
        | Content::Qed
        | Content::Gzip
        | Content::Xz
        | Content::Zstd
        | Content::Archive
        | Content::Page => Reads { count: 0, bytes: 0 },
    }
}

/// Reads the header of a file that is taken for `content`, and refuses whatever
/// would make a tool open another file, ask for a key, or work without end.
///
/// What is taken for raw is a disk byte by byte, whatever its bytes look like.
///
/// # Errors
/// Why the file is not accepted as that.
pub fn check(content: Content, file: &impl ReadAt) -> Result<Header, Error> {
    let length = file.length()?;
    let header = match content {
        Content::Raw if length == 0 => return Err(Refusal::Empty.into()),
        Content::Raw => Header {
            virtual_bytes: length,
        },
        Content::Qcow2 => qcow2::check(file, length)?,
        Content::Vdi => vdi::check(file, length)?,
        Content::Vhdx => vhdx::check(file)?,
        Content::Vmdk => vmdk::check(file, length)?,
        Content::Luks => return Err(Refusal::Encrypted.into()),
        Content::Vhd
        | Content::Qed
        | Content::Gzip
        | Content::Xz
        | Content::Zstd
        | Content::Archive
        | Content::Page => return Err(Refusal::NoImage(content).into()),
    };
    Ok(header)
}

/// Sees that what the tables of an image, whose header was accepted, point to is
/// in the file: a download that broke off leaves the tables and loses what lies
/// behind them. Of other formats than qcow2 the header tells, or nothing does.
///
/// Reads the tables alone, of which each is read once; never more bytes than the
/// file has.
///
/// # Errors
/// Why the file is not accepted.
pub fn check_whole(content: Content, file: &impl ReadAt) -> Result<(), Error> {
    if content == Content::Qcow2 {
        qcow2::check_whole(file, file.length()?)?;
    }
    Ok(())
}

/// What a file looks like, after its first bytes.
///
/// # Errors
/// It cannot be read.
pub fn identify(file: &impl ReadAt) -> io::Result<Content> {
    let start = Window::read(file, 0, START_BYTES)?;
    Ok(Content::of(start.bytes()))
}
