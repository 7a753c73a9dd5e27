use std::io::Write as _;
use std::process::Command;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn overlay(size: u64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    write_empty(file.as_file(), size, Some(("/base", ImageFormat::Raw))).unwrap();
    std::fs::read(file.path()).unwrap()
}

/// A good image that stands alone: an overlay without its backing file.
fn standalone() -> Vec<u8> {
    let mut bytes = overlay(10 << 30);
    bytes[8..20].fill(0);
    bytes[104..65536].fill(0);
    bytes
}

fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = standalone();
    change(&mut bytes);
    virtual_size(&file(&bytes)).unwrap_err().to_string()
}

#[test]
fn standalone_image_is_measured() {
    assert_eq!(virtual_size(&file(&standalone())).unwrap(), 10 << 30);
}

#[test]
fn whatever_opens_another_file_is_refused() {
    let backing = virtual_size(&file(&overlay(1 << 20)));
    assert!(backing.unwrap_err().to_string().contains("backing file"));
    assert!(refusal(|b| b[79] = 4).contains("data file"), "the bit");
    let by_extension = refusal(|b| b[104..108].copy_from_slice(b"DATA"));
    assert!(by_extension.contains("data file"));
}

#[test]
fn other_dangers_are_refused() {
    assert!(refusal(|b| b[35] = 1).contains("encrypted"));
    assert!(refusal(|b| b[79] = 2).contains("damaged"));
    assert!(refusal(|b| b[79] = 32).contains("features"));
    assert!(refusal(|b| b[24] = 0x7f).contains("size of its disk"));
    assert!(refusal(|b| b[36] = 0xff).contains("size of its disk"));
    assert!(refusal(|b| b[23] = 63).contains("cluster size"));
    assert!(refusal(|b| b[40] = 0xff).contains("outside"));
    assert!(refusal(|b| b[99] = 9).contains("width"));
    assert!(refusal(|b| b[103] = 0).contains("length"));
    assert!(refusal(|b| b[104..112].fill(0xee)).contains("too long"));
    assert!(refusal(|b| b[0] = 0).contains("not a qcow2"));
    assert!(refusal(|b| b[7] = 9).contains("version"));
    assert!(refusal(|b| b.truncate(80)).contains("length"));
    assert!(refusal(|b| b.truncate(3)).contains("not a qcow2"));
}

#[test]
fn overlay_is_what_qemu_img_makes_of_it() {
    for size in [512, 1 << 20, 10 << 30, 16 << 40] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("base"), vec![7; 512]).unwrap();
        let base = dir.path().join("base").display().to_string();
        let path = dir.path().join("disk.qcow2");
        let overlay = File::create_new(&path).unwrap();
        write_empty(&overlay, size, Some((&base, ImageFormat::Raw))).unwrap();
        let info = Command::new("qemu-img")
            .args(["info", "--output=json"])
            .arg(&path)
            .output()
            .unwrap();
        let info: Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info["format"], "qcow2");
        assert_eq!(info["virtual-size"], size);
        assert_eq!(info["backing-filename"], base);
        assert_eq!(info["backing-filename-format"], "raw");
        let check = Command::new("qemu-img").arg("check").arg(&path).output();
        let check = check.unwrap();
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(
            check.status.success() && said.contains("No errors"),
            "{said}"
        );
    }
}

#[test]
fn images_of_qemu_img_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "compat=0.10",
        "compat=1.1",
        "extended_l2=on",
        "cluster_size=2M",
    ] {
        let path = dir.path().join("image");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", options])
            .arg(&path)
            .arg("5G")
            .status();
        assert!(made.unwrap().success());
        let size = virtual_size(&File::open(&path).unwrap());
        assert_eq!(size.unwrap(), 5 << 30, "{options}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn mutated_header_neither_panics_nor_hangs(
        changes in prop::collection::vec((0_usize..160, any::<u8>()), 1..12),
        length in 0_usize..5000,
    ) {
        let mut bytes = standalone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = virtual_size(&file(&bytes));
        bytes.truncate(length);
        let _ = virtual_size(&file(&bytes));
    }
}
