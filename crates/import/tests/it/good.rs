use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha512};
use tempfile::TempDir;
use vimana_format::Content;

use crate::{Scene, noise, packed, qcow2, sha256};

#[tokio::test]
async fn an_image_comes_in_as_it_is() {
    let dir = TempDir::new().unwrap();
    let image = qcow2(dir.path(), &[]);
    let mut scene = Scene::new(image.clone());
    let sum = sha256(&image);
    scene.job.checksum = Some(format!("{:x}", Sha512::digest(&image)).parse().unwrap());
    let staged = scene.import().await.unwrap();
    assert_eq!(
        (staged.content, staged.virtual_bytes),
        (Content::Qcow2, 64 << 20)
    );
    assert_eq!(
        (staged.size_bytes, staged.sha256),
        (image.len() as u64, sum)
    );
    assert_eq!(Some(staged.fetched_checksum), scene.job.checksum);
    assert!(fs::read(&staged.path).unwrap() == image);
    scene.staging().discard().await.unwrap();
    assert!(!scene.staging().dir().exists());
}

#[tokio::test]
async fn packed_images_are_unpacked_on_the_way() {
    let dir = TempDir::new().unwrap();
    let image = qcow2(dir.path(), &["-c"]);
    // A disk with much nothing: nothing takes no room.
    let mut raw = noise(3 << 20);
    raw.resize(40 << 20, 0);
    for (content, bytes) in [(Content::Qcow2, &image), (Content::Raw, &raw)] {
        for tool in ["gzip", "xz", "zstd"] {
            let mut scene = Scene::new(packed(tool, bytes));
            scene.job.declared = Some(content);
            let staged = scene.import().await.unwrap();
            assert_eq!(staged.content, content, "{tool}");
            assert_eq!(staged.sha256, sha256(bytes), "{tool}");
            let file = fs::metadata(&staged.path).unwrap();
            assert_eq!(
                (file.len(), staged.size_bytes),
                (bytes.len() as u64, file.len())
            );
            assert!(file.blocks() * 512 < 16 << 20, "{tool}");
        }
    }
    // Two streams, one behind the other, are one.
    let mut two = packed("gzip", &raw[..1 << 20]);
    two.extend(packed("gzip", &raw[1 << 20..]));
    let staged = Scene::new(two).import().await.unwrap();
    assert_eq!(staged.sha256, sha256(&raw));
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut scene = Scene::new(noise(1 << 20));
    scene.job.bounds.bytes_per_second = NonZeroU64::new(2 << 20);
    let begun = Instant::now();
    scene.import().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(450));
}
