//! A file as a length and the few runs of bytes that are not zero, so that
//! what is mutated is all header, and a file may be as long as can be counted.

use std::io;

use vimana_format::ReadAt;

/// As many as any seed has, and some.
const MAX_RUNS: usize = 256;
/// Zeros that are not worth a run's own offset and length.
const SHORT_GAP: usize = 16;

/// A length, then runs, each an offset (both 8 bytes), a count (2 bytes) and
/// so many bytes; numbers are little-endian.
pub struct Image {
    length: u64,
    /// Where two overlap, the later one counts.
    runs: Vec<(u64, Vec<u8>)>,
}

impl Image {
    /// Any input stands for some file.
    pub fn decoded(mut input: &[u8]) -> Self {
        let length = number::<8>(&mut input).unwrap_or(0);
        let mut runs = Vec::new();
        while runs.len() < MAX_RUNS {
            let (Some(offset), Some(count)) = (number::<8>(&mut input), number::<2>(&mut input))
            else {
                break;
            };
            let count = input.len().min(count as usize);
            let (run, rest) = input.split_at(count);
            runs.push((offset, run.to_vec()));
            input = rest;
        }
        Self { length, runs }
    }

    /// The input that stands for this file.
    pub fn encoded(file: &[u8]) -> Vec<u8> {
        let mut input = (file.len() as u64).to_le_bytes().to_vec();
        let mut at = 0;
        while let Some(start) = next(file, at, |byte| byte != 0) {
            let limit = file.len().min(start + usize::from(u16::MAX));
            let mut end = start;
            while let Some(zero) = next(&file[..limit], end, |byte| byte == 0) {
                end = zero;
                match next(&file[..limit], zero, |byte| byte != 0) {
                    Some(more) if more - zero <= SHORT_GAP => end = more,
                    Some(_) | None => break,
                }
            }
            if file[end] != 0 {
                end = limit;
            }
            input.extend((start as u64).to_le_bytes());
            input.extend(((end - start) as u16).to_le_bytes());
            input.extend(&file[start..end]);
            at = end;
        }
        input
    }

    pub fn length_bytes(&self) -> u64 {
        self.length
    }

    /// `count` bytes from `offset` on; zeros where the file has ended.
    pub fn padded(&self, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.read_at(offset, &mut bytes)
            .expect("memory can be read");
        bytes
    }

    /// The whole file, for who has to have one.
    pub fn write_to(&self, file: &std::fs::File) -> io::Result<()> {
        file.set_len(self.length)?;
        for (offset, run) in &self.runs {
            let room = self.length.saturating_sub(*offset);
            let count = run.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            std::os::unix::fs::FileExt::write_all_at(file, &run[..count], *offset)?;
        }
        Ok(())
    }
}

impl ReadAt for Image {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length_bytes())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.length.saturating_sub(offset);
        let count = buffer
            .len()
            .min(usize::try_from(room).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let end = offset + count as u64;
        for (start, run) in &self.runs {
            let stop = start.saturating_add(run.len() as u64).min(end);
            let from = (*start).max(offset);
            if from < stop {
                let many = (stop - from) as usize;
                let (to, of) = ((from - offset) as usize, (from - start) as usize);
                buffer[to..to + many].copy_from_slice(&run[of..of + many]);
            }
        }
        Ok(count)
    }
}

/// Takes a number off the front of `input`.
fn number<const N: usize>(input: &mut &[u8]) -> Option<u64> {
    let (front, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(front);
    Some(u64::from_le_bytes(bytes))
}

/// The first place from `at` on with such a byte.
fn next(file: &[u8], at: usize, such: impl Fn(u8) -> bool) -> Option<usize> {
    let found = file[at..].iter().position(|byte| such(*byte));
    found.map(|found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was() {
        let mut file = vec![0; 300_000];
        file[..3].fill(1);
        file[10] = 2;
        file[5_000..150_000].fill(3);
        file[299_999] = 4;
        for length in [0, 1, 11, 4_000, 100_000, 299_999, 300_000] {
            let file = &file[..length];
            let image = Image::decoded(&Image::encoded(file));
            assert!(image.padded(0, length) == file, "{length} bytes");
            assert_eq!(image.length().unwrap(), length as u64);
        }
    }
}
