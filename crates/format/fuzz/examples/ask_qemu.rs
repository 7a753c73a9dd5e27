//! Asks `qemu-img` about every input of these directories that is accepted:
//! what it opens has no other file behind it, and is as large as was said.
//! Too slow for a fuzz target.

use std::fs::{self, File};
use std::process::Command;

use vimana_format::{Content, check};
use vimana_format_fuzz::{Image, identified};

/// A sparse file may be longer than the file system can hold.
const MAX_FILE_BYTES: u64 = 1 << 40;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let (mut accepted, mut opened) = (0, 0);
    for corpus in std::env::args_os().skip(1) {
        for entry in fs::read_dir(corpus).unwrap() {
            let entry = entry.unwrap().path();
            let image = Image::decoded(&fs::read(&entry).unwrap());
            let content = identified(&image);
            let format = match content {
                Content::Qcow2 => "qcow2",
                Content::Vdi => "vdi",
                Content::Vhdx => "vhdx",
                Content::Vmdk => "vmdk",
                _ => continue,
            };
            let Ok(header) = check(content, &image) else {
                continue;
            };
            let file = File::create(&path).unwrap();
            if image.length_bytes() > MAX_FILE_BYTES || image.write_to(&file).is_err() {
                continue;
            }
            accepted += 1;
            let asked = Command::new("qemu-img")
                .args(["info", "--output=json", "-f", format])
                .arg(&path)
                .output()
                .unwrap();
            // What it does not open does no harm.
            if !asked.status.success() {
                continue;
            }
            opened += 1;
            let said = String::from_utf8_lossy(&asked.stdout);
            let number = said.lines().find_map(|line| {
                let line = line.strip_prefix("    \"virtual-size\": ")?;
                line.trim_end_matches(',').parse::<u64>().ok()
            });
            let whole = header.virtual_bytes.next_multiple_of(512);
            if number != Some(whole)
                || said.contains("backing-filename")
                || said.contains("data-file\"")
            {
                println!("{}: {header:?}, but\n{said}", entry.display());
            }
        }
    }
    println!("{accepted} accepted, of which QEMU opened {opened}");
}
