//! Files with holes where there are only zeros.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};

/// What file systems give out at once.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Writes from where the file ends, and leaves out what is zero.
pub struct SparseFile {
    file: File,
    /// Where the next byte belongs.
    position: u64,
    /// The file's own cursor is behind, because of a hole.
    behind: bool,
}

impl SparseFile {
    /// Goes on at `position`, where the file must end.
    pub const fn new(file: File, position: u64) -> Self {
        Self {
            file,
            position,
            behind: true,
        }
    }

    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The file with everything that was written in it, to be synced.
    pub fn settled(&self) -> io::Result<File> {
        self.file.set_len(self.position)?;
        self.file.try_clone()
    }
}

impl Write for SparseFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Up to the end of the block that this begins in, then block by block.
        let into = usize::try_from(self.position % BLOCK as u64).unwrap_or_default();
        let first = BLOCK.saturating_sub(into).min(bytes.len());
        let is_zero = |part: &[u8]| ZEROS.get(..part.len()) == Some(part);
        let zero = bytes.get(..first).is_some_and(is_zero);
        let mut count = first;
        while let Some(block) = bytes.get(count..count.saturating_add(BLOCK)) {
            if is_zero(block) != zero {
                break;
            }
            count = count.saturating_add(BLOCK);
        }
        if zero {
            self.behind = true;
        } else {
            if self.behind {
                self.file.seek(SeekFrom::Start(self.position))?;
                self.behind = false;
            }
            self.file
                .write_all(bytes.get(..count).unwrap_or_default())?;
        }
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn zeros_take_no_room_and_everything_comes_out_as_it_went_in() {
        let mut bytes = vec![0; 3 << 20];
        bytes[100_000..100_100].fill(7);
        bytes[2 << 20..(2 << 20) + 70_000].fill(9);
        for step in [1, 777, 4096, 5000, 1 << 20] {
            let mut file = tempfile::tempfile().unwrap();
            let mut sparse = SparseFile::new(file.try_clone().unwrap(), 0);
            for part in bytes.chunks(step.max(97)) {
                sparse.write_all(part).unwrap();
            }
            sparse.settled().unwrap();
            let mut back = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{step}");
            if step % BLOCK == 0 {
                assert!(file.metadata().unwrap().blocks() * 512 < 200_000, "{step}");
            }
        }
    }
}
