//! The directory, by the suite that every datastore must pass, and what is
//! its own.

use std::io;

use vimana_datastore::{
    DatastoreDriver as _, DirDatastore, Item, ItemFile, ResumeError, conformance,
};
use vimana_model::VmId;
use vimana_model::saved::Part;

fn disk() -> ItemFile {
    ItemFile::Saved {
        vm: VmId::from_parts(1, [1; 10]),
        run_epoch: 1,
        part: Part::Disk,
    }
}

#[tokio::test]
async fn a_directory_keeps_what_a_datastore_promises() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&DirDatastore::new(dir.path().to_owned())).await;
}

#[tokio::test]
async fn a_reserve_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let full = DirDatastore::new(dir.path().to_owned()).with_reserve(u64::MAX);
    let refused = full.receive(disk()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(full.room().await.unwrap().reserve, u64::MAX);
}

#[tokio::test]
async fn what_others_left_there_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let datastore = DirDatastore::new(dir.path().to_owned());
    for name in ["lost+found", "vm_x", "notes.txt", "bak_00"] {
        std::fs::write(dir.path().join(name), b"theirs").unwrap();
    }
    assert_eq!(datastore.holds().await.unwrap(), []);
    // One that is called like an item, and is none.
    let item = disk().item();
    std::fs::write(dir.path().join(item.to_string()), b"?").unwrap();
    assert_eq!(datastore.holds().await.unwrap(), [item]);
    let contents = datastore.contents().await.unwrap();
    assert!(contents.saved.values().all(|copies| copies.is_empty()));
    assert!(matches!(item, Item::Saved(_)));
}

#[tokio::test]
async fn a_prefix_that_was_damaged_is_told_by_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let datastore = DirDatastore::new(dir.path().to_owned());
    let mut receiving = datastore.receive(disk()).await.unwrap();
    receiving.write(b"the first half, ").await.unwrap();
    drop(receiving);
    let mut staged = std::fs::read_dir(dir.path().join(".staged")).unwrap();
    let staged = staged.next().unwrap().unwrap().path();
    let good = datastore.received(disk()).await.unwrap();
    std::fs::write(&staged, b"the first hAlf, ").unwrap();
    let here = datastore.received(disk()).await.unwrap();
    assert_eq!(here.size_bytes, good.size_bytes);
    assert_ne!(here.sha256, good.sha256);
    // Nor does what was read before hide it, where nobody asked again.
    std::fs::write(&staged, b"the first halF, ").unwrap();
    let mut rest = datastore.resume(disk(), 16).await.unwrap();
    rest.write(b"the second").await.unwrap();
    let stored = rest.finish().await.unwrap();
    let whole = ItemFile::Saved {
        vm: VmId::from_parts(2, [1; 10]),
        run_epoch: 1,
        part: Part::Disk,
    };
    let mut receiving = datastore.receive(whole).await.unwrap();
    receiving
        .write(b"the first half, the second")
        .await
        .unwrap();
    assert_ne!(receiving.finish().await.unwrap().sha256, stored.sha256);
}

#[tokio::test]
async fn another_server_of_the_directory_goes_on_with_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let first = DirDatastore::new(dir.path().to_owned());
    let mut receiving = first.receive(disk()).await.unwrap();
    receiving.write(b"half").await.unwrap();
    drop((receiving, first));
    let second = DirDatastore::new(dir.path().to_owned());
    assert_eq!(second.staged().await.unwrap(), [disk().item()]);
    assert_eq!(second.received(disk()).await.unwrap().size_bytes, 4);
    let full = second.clone().with_reserve(u64::MAX);
    let refused = full.resume(disk(), 4).await.unwrap_err();
    let refused = match refused {
        ResumeError::Io(error) => error.kind(),
        ResumeError::Elsewhere { at } => panic!("{at}"),
    };
    assert_eq!(refused, io::ErrorKind::StorageFull);
    assert!(second.resume(disk(), 4).await.is_ok());
}
