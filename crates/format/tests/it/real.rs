use std::fs::File;

use vimana_format::{Content, Error, Refusal, check, identify};

use crate::made::{PLAIN, created, qemu_img};

#[test]
fn every_kind_of_plain_image_is_accepted() {
    for (content, arguments) in PLAIN.iter().copied() {
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

/// Readers may take either of two, and QEMU takes none.
#[test]
fn a_vhdx_that_says_its_size_twice_is_refused() {
    const DISK_SIZE: &[u8; 16] =
        b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    let (dir, _file) = created(&["-f", "vhdx"]);
    let mut image = std::fs::read(dir.path().join("image")).unwrap();
    let size_at = image.windows(16).position(|at| at == DISK_SIZE).unwrap();
    // The entry after it is of another kind.
    image.copy_within(size_at..size_at + 32, size_at + 32);
    let verdict = check(Content::Vhdx, &image);
    assert!(
        matches!(verdict, Err(Error::Refused(Refusal::Absurd(_)))),
        "{verdict:?}"
    );
}

/// Each was once accepted, though `qemu-img info` names the parent.
#[test]
fn a_vmdk_parent_that_qemu_finds_is_refused() {
    let (dir, _file) = created(&["-f", "vmdk"]);
    let plain = std::fs::read(dir.path().join("image")).unwrap();
    let text_end = plain[512..].iter().position(|byte| *byte == 0).unwrap() + 512;
    let hint = b"# parentFileNameHint=\"base.vmdk\"\n";
    let mut comment = plain.clone();
    comment[text_end..text_end + hint.len()].copy_from_slice(hint);
    // The same, while the header tells of a descriptor without it.
    let mut elsewhere = comment.clone();
    let sector = u8::try_from(plain.len() / 512).unwrap();
    elsewhere[28] = sector;
    elsewhere.extend(&plain[512..21 * 512]);
    for image in [comment, elsewhere] {
        let verdict = check(Content::Vmdk, &image);
        assert!(
            matches!(verdict, Err(Error::Refused(Refusal::BackingFile))),
            "{verdict:?}"
        );
    }
}
