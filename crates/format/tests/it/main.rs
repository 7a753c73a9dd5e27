//! Images that QEMU makes, and what is left of them when bytes change.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

mod mutated;
mod real;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Runs `qemu-img` in `dir`.
fn qemu_img(dir: &Path, arguments: &[&str]) {
    let ran = Command::new("qemu-img")
        .current_dir(dir)
        .args(arguments)
        .output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "qemu-img {arguments:?}: {said}");
}

/// An image of 64 MiB as `qemu-img create` makes it.
fn created(arguments: &[&str]) -> (TempDir, File) {
    let dir = TempDir::new().unwrap();
    let mut all = vec!["create", "-q"];
    all.extend(arguments);
    all.extend(["image", "64M"]);
    qemu_img(dir.path(), &all);
    let file = File::open(dir.path().join("image")).unwrap();
    (dir, file)
}
