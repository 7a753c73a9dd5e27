//! Images that `qemu-img` makes; the fuzz targets start from these, too.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vimana_format::Content;

/// Runs `qemu-img` in `dir`.
pub fn qemu_img(dir: &Path, arguments: &[&str]) {
    let ran = Command::new("qemu-img")
        .current_dir(dir)
        .args(arguments)
        .output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "qemu-img {arguments:?}: {said}");
}

/// An image of 64 MiB as `qemu-img create` makes it.
pub fn created(arguments: &[&str]) -> (TempDir, File) {
    let dir = TempDir::new().unwrap();
    let mut all = vec!["create", "-q"];
    all.extend(arguments);
    all.extend(["image", "64M"]);
    qemu_img(dir.path(), &all);
    let file = File::open(dir.path().join("image")).unwrap();
    (dir, file)
}

/// What is accepted, with what makes `qemu-img` create it.
pub const PLAIN: &[(Content, &[&str])] = &[
    (Content::Qcow2, &["-f", "qcow2"]),
    (Content::Qcow2, &["-f", "qcow2", "-o", "compat=0.10"]),
    (Content::Qcow2, &["-f", "qcow2", "-o", "cluster_size=512"]),
    (Content::Qcow2, &["-f", "qcow2", "-o", "cluster_size=2M"]),
    (Content::Qcow2, &["-f", "qcow2", "-o", "extended_l2=on"]),
    (
        Content::Qcow2,
        &["-f", "qcow2", "-o", "compression_type=zstd"],
    ),
    (
        Content::Qcow2,
        &["-f", "qcow2", "-o", "preallocation=metadata"],
    ),
    (Content::Vmdk, &["-f", "vmdk"]),
    (
        Content::Vmdk,
        &["-f", "vmdk", "-o", "subformat=streamOptimized"],
    ),
    (Content::Vdi, &["-f", "vdi"]),
    (Content::Vdi, &["-f", "vdi", "-o", "static=on"]),
    (Content::Vhdx, &["-f", "vhdx"]),
    (Content::Vhdx, &["-f", "vhdx", "-o", "subformat=fixed"]),
    (Content::Raw, &["-f", "raw"]),
];
