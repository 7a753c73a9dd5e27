use std::fs::File;

use vimana_format::{Content, Error, Refusal, check, identify};

use crate::{created, qemu_img};

#[test]
fn every_kind_of_plain_image_is_accepted() {
    for (content, arguments) in [
        (Content::Qcow2, &["-f", "qcow2"][..]),
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
    ] {
        let (_dir, file) = created(arguments);
        assert_eq!(identify(&file).unwrap(), content, "{arguments:?}");
        let header = check(content, &file).unwrap();
        assert_eq!(header.virtual_bytes, 64 << 20, "{arguments:?}");
    }
}

#[test]
fn snapshots_and_bitmaps_inside_are_no_harm() {
    let (dir, file) = created(&["-f", "qcow2"]);
    qemu_img(dir.path(), &["snapshot", "-c", "before", "image"]);
    qemu_img(dir.path(), &["bitmap", "--add", "image", "backup"]);
    assert_eq!(
        check(Content::Qcow2, &file).unwrap().virtual_bytes,
        64 << 20
    );
}

#[test]
fn what_refers_to_other_files_or_needs_a_key_is_refused() {
    let (dir, _file) = created(&["-f", "qcow2"]);
    let judged = |name: &str, content: Content, arguments: &[&str]| {
        let mut all = vec!["create", "-q"];
        all.extend(arguments);
        qemu_img(dir.path(), &all);
        let file = File::open(dir.path().join(name)).unwrap();
        assert_eq!(identify(&file).unwrap(), content, "{arguments:?}");
        match check(content, &file) {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{arguments:?}: {other:?}"),
        }
    };
    let overlay = &["-f", "qcow2", "-b", "image", "-F", "qcow2", "a"];
    assert_eq!(judged("a", Content::Qcow2, overlay), Refusal::BackingFile);
    let data = &[
        "-f",
        "qcow2",
        "-o",
        "data_file=b.raw,data_file_raw=on",
        "b",
        "64M",
    ];
    assert_eq!(judged("b", Content::Qcow2, data), Refusal::DataFile);
    let secret = [
        "--object",
        "secret,id=key,data=hunter2",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
        "c",
        "64M",
    ];
    assert_eq!(judged("c", Content::Qcow2, &secret), Refusal::Encrypted);
    let flat = &["-f", "vmdk", "-o", "subformat=monolithicFlat", "d", "64M"];
    assert_eq!(judged("d", Content::Vmdk, flat), Refusal::Extents);
    qemu_img(
        dir.path(),
        &["create", "-q", "-f", "vmdk", "base.vmdk", "64M"],
    );
    let child = &["-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "e"];
    assert_eq!(judged("e", Content::Vmdk, child), Refusal::BackingFile);
    let luks = [
        "--object",
        "secret,id=key,data=hunter2",
        "-f",
        "luks",
        "-o",
        "key-secret=key,iter-time=10",
        "f",
        "1M",
    ];
    assert_eq!(judged("f", Content::Luks, &luks), Refusal::Encrypted);
}
