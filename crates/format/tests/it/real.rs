use std::fs::File;

use vimana_format::{Content, Error, Refusal, check, check_whole, identify};

use crate::made::{PLAIN, created, qemu_img};

#[test]
fn every_kind_of_plain_image_is_accepted() {
    for (content, arguments) in PLAIN.iter().copied() {
        let (_dir, file) = created(arguments);
        assert_eq!(identify(&file).unwrap(), content, "{arguments:?}");
        let header = check(content, &file).unwrap();
        assert_eq!(header.virtual_bytes, 64 << 20, "{arguments:?}");
        check_whole(content, &file).unwrap();
    }
}

/// A download that broke off behind the tables is known by them.
#[test]
fn a_qcow2_file_that_was_cut_anywhere_is_refused() {
    const DISK_BYTES: usize = (3 << 20) + 1536;
    let dir = tempfile::TempDir::new().unwrap();
    // Each byte its own, so that no cluster is empty and little is packed.
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let disk: Vec<u8> = std::iter::repeat_with(&mut noise)
        .take(DISK_BYTES)
        .collect();
    std::fs::write(dir.path().join("disk"), disk).unwrap();
    let ways: [&[&str]; 8] = [
        &[],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "preallocation=metadata"],
    ];
    for way in ways {
        let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
        all.extend(way);
        all.extend(["disk", "image"]);
        qemu_img(dir.path(), &all);
        let whole = std::fs::read(dir.path().join("image")).unwrap();
        check_whole(Content::Qcow2, &whole).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        for percent in [10, 50, 75] {
            let cut = whole[..whole.len() * percent / 100].to_vec();
            let verdict =
                check(Content::Qcow2, &cut).and_then(|_| check_whole(Content::Qcow2, &cut));
            assert!(
                matches!(verdict, Err(Error::Refused(_))),
                "{way:?}, {percent} %: {verdict:?}"
            );
        }
    }
    // Tables that are one and the same: work without end, were each read.
    let mut image = vec![0_u8; 4 << 20];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 40).to_be_bytes());
    put(36, &4096_u32.to_be_bytes());
    put(40, &0x1_0000_u64.to_be_bytes());
    put(48, &0x3_0000_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    for entry in 0..4096 {
        put(0x1_0000 + entry * 8, &0x2_0000_u64.to_be_bytes());
    }
    check(Content::Qcow2, &image).unwrap();
    let verdict = check_whole(Content::Qcow2, &image);
    assert!(
        matches!(verdict, Err(Error::Refused(Refusal::Absurd(_)))),
        "{verdict:?}"
    );
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
