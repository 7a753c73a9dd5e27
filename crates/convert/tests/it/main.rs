//! The converter: what is left to it, and what comes of images.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

mod confined;
mod imported;

use std::path::Path;
use std::process::Command;

/// Runs `qemu-img` in `dir`.
fn qemu_img(dir: &Path, arguments: &[&str]) {
    let ran = Command::new("qemu-img")
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "qemu-img {arguments:?}: {said}");
}
