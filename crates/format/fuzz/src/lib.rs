//! What the fuzz targets share: how an input stands for a file, and what has
//! to hold whatever is in it.

mod alone;
mod image;

use std::cell::Cell;
use std::io;

use vimana_format::{
    Content, Error, ReadAt, Reads, START_BYTES, check, check_whole, identify, most_reads,
};

use self::alone::assert_stands_alone;
pub use self::image::Image;

/// What `image` looks like.
pub fn identified(image: &Image) -> Content {
    let counted = Counted::new(image);
    let content = identify(&counted).expect("memory can be read");
    counted.assert_within(Reads {
        count: 1,
        bytes: START_BYTES as u64,
    });
    content
}

/// Has it checked as `content`: no more is read than the crate says, and what
/// is accepted refers to nothing else.
pub fn judge(content: Content, image: &Image) {
    let counted = Counted::new(image);
    let verdict = check(content, &counted);
    counted.assert_within(most_reads(content));
    match verdict {
        Ok(header) => {
            assert_stands_alone(content, image, header);
            walk(content, image);
        }
        Err(Error::Refused(_)) => {}
        Err(Error::Io(error)) => panic!("memory can be read: {error}"),
    }
}

/// Has what was accepted looked through: that never reads more than there is,
/// with both tables and the header once.
fn walk(content: Content, image: &Image) {
    const LONGEST: u64 = 16 << 20;
    let length = image.length().expect("memory can be read");
    if length > LONGEST {
        return;
    }
    let counted = Counted::new(image);
    let _verdict = check_whole(content, &counted);
    let bytes = counted.bytes.get();
    // Windows are asked for again where the file ends within them.
    let most = (2 * length + 4096) * 2;
    assert!(bytes <= most, "{bytes} bytes of {length}");
}

/// Counts what is read.
struct Counted<'a> {
    image: &'a Image,
    calls: Cell<u32>,
    /// Asked for, and so in memory, whether the file has them or not.
    bytes: Cell<u64>,
}

impl<'a> Counted<'a> {
    fn new(image: &'a Image) -> Self {
        Self {
            image,
            calls: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    fn assert_within(&self, most: Reads) {
        // Where the file ends within what is asked for, a second call finds
        // that out.
        let (calls, bytes) = (self.calls.get(), self.bytes.get());
        assert!(calls <= most.count * 2, "{calls} calls, {most:?}");
        assert!(bytes <= most.bytes * 2, "{bytes} bytes, {most:?}");
    }
}

impl ReadAt for Counted<'_> {
    fn length(&self) -> io::Result<u64> {
        self.image.length()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls.set(self.calls.get() + 1);
        self.bytes.set(self.bytes.get() + buffer.len() as u64);
        self.image.read_at(offset, buffer)
    }
}
