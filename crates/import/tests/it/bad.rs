use std::fs;
use std::process::Command;

use tempfile::TempDir;
use vimana_format::Content;

use crate::{Scene, noise, packed, qcow2};

#[tokio::test]
async fn what_is_not_what_was_said_is_refused() {
    let dir = TempDir::new().unwrap();
    let image = qcow2(dir.path(), &[]);
    let mut scene = Scene::new(image);
    scene.job.declared = Some(Content::Raw);
    assert_eq!(
        scene.refusal().await,
        "is a qcow2 image, not a raw image as was said"
    );
    scene.job.declared = None;
    scene.job.checksum = Some("0".repeat(64).parse().unwrap());
    let refusal = scene.refusal().await;
    assert!(
        refusal.starts_with("has another SHA-256 than was said: "),
        "{refusal}"
    );
    let mut scene = Scene::new(noise(1 << 20));
    scene.job.declared = Some(Content::Qcow2);
    assert_eq!(
        scene.refusal().await,
        "is a raw image, not a qcow2 image as was said"
    );
}

#[tokio::test]
async fn images_that_point_elsewhere_are_refused_packed_or_not() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("overlay");
    let made = Command::new("qemu-img")
        .args([
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-b",
            "/etc/shadow",
            "-F",
            "raw",
        ])
        .arg(&path)
        .arg("1G")
        .status();
    assert!(made.unwrap().success());
    let overlay = fs::read(&path).unwrap();
    for bytes in [overlay.clone(), packed("xz", &overlay)] {
        let refusal = Scene::new(bytes).refusal().await;
        assert!(refusal.starts_with("refers to a backing file"), "{refusal}");
    }
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    for (bytes, expected) in [
        (
            b"<!DOCTYPE html><title>Sign in</title>".to_vec(),
            "is a web page, which is not accepted here",
        ),
        (
            packed("gzip", &packed("gzip", &noise(100))),
            "is a gzip file, which is not accepted here",
        ),
        (
            b"PK\x03\x04 and so on".to_vec(),
            "is an archive, which is not accepted here",
        ),
        (Vec::new(), "has a disk of no size"),
    ] {
        assert_eq!(Scene::new(bytes).refusal().await, expected);
    }
}

#[tokio::test]
async fn packed_files_that_are_damaged_or_cut_are_refused() {
    for tool in ["gzip", "xz", "zstd"] {
        let whole = packed(tool, &noise(1 << 20));
        let cut = whole[..whole.len() / 2].to_vec();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 2000].fill(0x55);
        for bytes in [cut, damaged] {
            let mut scene = Scene::new(bytes);
            scene.job.declared = Some(Content::Raw);
            let refusal = scene.refusal().await;
            let expected = refusal.starts_with("cannot be unpacked: ");
            assert!(expected, "{tool}: {refusal}");
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_stopped_when_that_shows() {
    let zeros = vec![0; 30 << 20];
    for tool in ["gzip", "xz", "zstd"] {
        let mut scene = Scene::new(packed(tool, &zeros));
        scene.job.bounds.max_bytes = 10 << 20;
        assert_eq!(
            scene.refusal().await,
            "is larger than the 10485760 bytes that are allowed"
        );
        let content = fs::metadata(scene.staging().dir().join("content")).unwrap();
        assert!(content.len() < 11 << 20, "{tool}");
    }
    let mut scene = Scene::new(noise(2 << 20));
    scene.job.bounds.max_bytes = 1 << 20;
    assert_eq!(
        scene.refusal().await,
        "is larger than the 1048576 bytes that are allowed"
    );
    let sent = scene.web.plan(|plan| plan.asked.len());
    assert_eq!(sent, 1);

    // A small file with a large disk.
    let dir = TempDir::new().unwrap();
    let mut scene = Scene::new(qcow2(dir.path(), &[]));
    scene.job.bounds.max_virtual_bytes = (64 << 20) - 1;
    let expected = "has a disk of 67108864 bytes, more than the 67108863 that are allowed";
    assert_eq!(scene.refusal().await, expected);
}

#[tokio::test]
async fn a_bomb_is_told_by_what_comes_of_it() {
    let mut scene = Scene::new(packed_zeros());
    scene.job.bounds.max_bytes = u64::MAX;
    assert_eq!(
        scene.refusal().await,
        "unpacks to far more than it could honestly hold"
    );
}

fn packed_zeros() -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("zeros");
    fs::File::create(&path)
        .unwrap()
        .set_len((1 << 30) + (64 << 20))
        .unwrap();
    let packed = Command::new("zstd")
        .args(["-c", "-q", "-19", "--long=27"])
        .arg(&path)
        .output();
    packed.unwrap().stdout
}
