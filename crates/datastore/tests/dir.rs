//! The directory, by the suite that every datastore must pass, and what is
//! its own.

use std::io;

use vimana_datastore::{DatastoreDriver as _, DirDatastore, Item, ItemFile, conformance};
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
