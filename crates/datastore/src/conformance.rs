//! What every datastore must do, whatever is behind it.
//!
//! [`run`] takes an empty one. A panic says which promise is broken.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a suite of tests: a broken promise panics"
)]

mod resume;

use std::io;

use tokio::io::AsyncReadExt as _;
use vimana_model::backup::DiskId;
use vimana_model::saved::Part;
use vimana_model::{BackupId, VmId, VolumeId};

use crate::{DatastoreDriver, Item, ItemFile, Stored};

/// # Panics
/// Where a promise is broken.
pub async fn run(datastore: &dyn DatastoreDriver) {
    nothing_is_held_at_first(datastore).await;
    a_file_appears_whole_and_as_it_was_sent(datastore).await;
    an_unfinished_file_counts_for_nothing(datastore).await;
    the_next_try_takes_the_place_of_the_last(datastore).await;
    resume::run(datastore).await;
    runs_and_items_are_told_apart(datastore).await;
    what_is_discarded_is_gone_and_nothing_else(datastore).await;
    there_is_room(datastore).await;
}

async fn nothing_is_held_at_first(datastore: &dyn DatastoreDriver) {
    assert_eq!(datastore.holds().await.unwrap(), []);
    assert_eq!(datastore.contents().await.unwrap(), Default::default());
    datastore.discard(Item::Saved(vm(1))).await.unwrap();
    let nothing = datastore.open(saved(1, 1, Part::Disk)).await;
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn a_file_appears_whole_and_as_it_was_sent(datastore: &dyn DatastoreDriver) {
    let file = saved(1, 1, Part::Memory);
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let stored = send(datastore, file, &bytes).await;
    assert_eq!(stored.size_bytes, 100_000);
    assert_eq!(stored.sha256, sha256(&bytes));
    assert_eq!(read(datastore, file).await, bytes);
    if let Some(path) = datastore.path(file) {
        assert_eq!(tokio::fs::read(path).await.unwrap(), bytes);
    }
    clear(datastore).await;
}

async fn an_unfinished_file_counts_for_nothing(datastore: &dyn DatastoreDriver) {
    let file = backup(1, DiskId::Root);
    let mut receiving = datastore.receive(file).await.unwrap();
    receiving.write(b"half").await.unwrap();
    drop(receiving);
    // It is seen apart, so that it can be removed; nothing of it counts.
    assert_eq!(datastore.holds().await.unwrap(), []);
    assert_eq!(datastore.staged().await.unwrap(), [file.item()]);
    assert_eq!(datastore.contents().await.unwrap(), Default::default());
    assert!(datastore.open(file).await.is_err());
    clear(datastore).await;
}

async fn the_next_try_takes_the_place_of_the_last(datastore: &dyn DatastoreDriver) {
    let file = backup(1, DiskId::Root);
    send(datastore, file, b"a long first try").await;
    let mut again = datastore.receive(file).await.unwrap();
    again.write(b"second").await.unwrap();
    assert_eq!(read(datastore, file).await, b"a long first try");
    again.finish().await.unwrap();
    assert_eq!(read(datastore, file).await, b"second");
    clear(datastore).await;
}

async fn runs_and_items_are_told_apart(datastore: &dyn DatastoreDriver) {
    let volume = DiskId::Volume(VolumeId::from_parts(9, [9; 10]));
    let files = [
        (saved(1, 1, Part::Disk), b"1".as_slice()),
        (saved(1, 2, Part::Disk), b"22"),
        (saved(2, 1, Part::Memory), b"333"),
        (backup(1, DiskId::Root), b"4444"),
        (backup(1, volume), b"55555"),
    ];
    for (file, bytes) in files {
        send(datastore, file, bytes).await;
    }
    let items = [
        Item::Saved(vm(1)),
        Item::Saved(vm(2)),
        Item::Backup(backup_id(1)),
    ];
    assert_eq!(datastore.holds().await.unwrap(), items);
    let contents = datastore.contents().await.unwrap();
    assert_eq!(contents.saved[&vm(1)][&2][&Part::Disk], 2);
    assert_eq!(contents.saved[&vm(2)][&1][&Part::Memory], 3);
    assert_eq!(contents.backups[&backup_id(1)][&volume], 5);
    for (file, bytes) in files {
        assert_eq!(read(datastore, file).await, bytes);
    }
}

/// After what the one before it has left.
async fn what_is_discarded_is_gone_and_nothing_else(datastore: &dyn DatastoreDriver) {
    for _ in 0..2 {
        datastore.discard(Item::Saved(vm(1))).await.unwrap();
        let left = [Item::Saved(vm(2)), Item::Backup(backup_id(1))];
        assert_eq!(datastore.holds().await.unwrap(), left);
    }
    assert!(datastore.open(saved(1, 2, Part::Disk)).await.is_err());
    assert_eq!(read(datastore, saved(2, 1, Part::Memory)).await, b"333");
    clear(datastore).await;
}

async fn there_is_room(datastore: &dyn DatastoreDriver) {
    let room = datastore.room().await.unwrap();
    assert!(room.free <= room.capacity && room.capacity > 0, "{room:?}");
}

async fn clear(datastore: &dyn DatastoreDriver) {
    let mut items = datastore.holds().await.unwrap();
    items.extend(datastore.staged().await.unwrap());
    for item in items {
        datastore.discard(item).await.unwrap();
    }
    assert_eq!(datastore.holds().await.unwrap(), []);
    assert_eq!(datastore.staged().await.unwrap(), []);
}

async fn send(datastore: &dyn DatastoreDriver, file: ItemFile, bytes: &[u8]) -> Stored {
    let mut receiving = datastore.receive(file).await.unwrap();
    for chunk in bytes.chunks(1000) {
        receiving.write(chunk).await.unwrap();
    }
    receiving.finish().await.unwrap()
}

async fn read(datastore: &dyn DatastoreDriver, file: ItemFile) -> Vec<u8> {
    let (mut opened, size) = datastore.open(file).await.unwrap();
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(u64::try_from(bytes.len()).unwrap(), size);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    format!("{:x}", Sha256::digest(bytes))
}

fn vm(n: u64) -> VmId {
    VmId::from_parts(n, [1; 10])
}

fn backup_id(n: u64) -> BackupId {
    BackupId::from_parts(n, [1; 10])
}

fn saved(n: u64, run_epoch: u64, part: Part) -> ItemFile {
    let vm = vm(n);
    ItemFile::Saved {
        vm,
        run_epoch,
        part,
    }
}

fn backup(n: u64, disk: DiskId) -> ItemFile {
    let backup = backup_id(n);
    ItemFile::Backup { backup, disk }
}
