//! Streams that are packed, unpacked as they come.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use vimana_format::Content;

use crate::limits::{MAX_UNPACK_MEMORY, MAX_ZSTD_WINDOW_LOG};

/// Whether such a file is a packed one.
pub const fn is_packed(content: Content) -> bool {
    matches!(content, Content::Gzip | Content::Xz | Content::Zstd)
}

/// What `packed` unpacks to; itself where it is not packed. Memory is bounded
/// whatever the stream says it needs.
pub fn unpacked<'a>(content: Content, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match content {
        Content::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Content::Xz => {
            let decoder = Stream::new_stream_decoder(MAX_UNPACK_MEMORY, CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, decoder))
        }
        Content::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(BufReader::new(packed))?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Content::Qcow2
        | Content::Vmdk
        | Content::Vdi
        | Content::Vhdx
        | Content::Vhd
        | Content::Qed
        | Content::Luks
        | Content::Archive
        | Content::Page
        | Content::Raw => Box::new(packed),
    })
}
