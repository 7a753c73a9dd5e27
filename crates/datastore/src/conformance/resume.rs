//! Files that come in several tries.

use std::io;

use vimana_model::saved::Part;

use super::{clear, read, saved, send, sha256};
use crate::{DatastoreDriver, ItemFile, Received, Receiving, ResumeError};

const SIZE: usize = 300_000;

pub async fn run(datastore: &dyn DatastoreDriver) {
    for at in [1, 4095, 4096, 100_000, SIZE - 1, SIZE] {
        a_file_that_broke_off_goes_on(datastore, at).await;
    }
    a_file_may_break_off_again_and_again(datastore).await;
    another_offset_is_refused_with_the_right_one(datastore).await;
    a_later_try_takes_over(datastore).await;
    what_is_whole_is_said_to_be(datastore).await;
    what_is_staged_goes_and_nothing_else(datastore).await;
    an_earlier_run_is_not_kept(datastore).await;
}

async fn a_file_that_broke_off_goes_on(datastore: &dyn DatastoreDriver, at: usize) {
    let (file, bytes) = (saved(1, 1, Part::Memory), bytes());
    assert_eq!(
        datastore.received(file).await.unwrap(),
        Received::nothing(),
        "nothing is kept of what went"
    );
    break_off(datastore, file, &bytes[..at]).await;
    let here = datastore.received(file).await.unwrap();
    assert_eq!(here, part_of(&bytes[..at]));
    assert_eq!(datastore.holds().await.unwrap(), [], "{at}");
    assert!(datastore.open(file).await.is_err());
    let mut rest = datastore.resume(file, size(&bytes[..at])).await.unwrap();
    assert_eq!(rest.size_bytes(), size(&bytes[..at]));
    write(&mut rest, &bytes[at..]).await;
    let stored = rest.finish().await.unwrap();
    assert_eq!(stored.size_bytes, size(&bytes));
    assert_eq!(stored.sha256, sha256(&bytes), "of the whole");
    assert_eq!(read(datastore, file).await, bytes);
    assert_eq!(datastore.staged().await.unwrap(), []);
    clear(datastore).await;
}

/// Nor has anybody to ask before.
async fn a_file_may_break_off_again_and_again(datastore: &dyn DatastoreDriver) {
    let (file, bytes) = (saved(1, 1, Part::Disk), bytes());
    let mut at = 0;
    for piece in bytes.chunks(70_001) {
        let mut receiving = datastore.resume(file, at).await.unwrap();
        write(&mut receiving, piece).await;
        at = receiving.size_bytes();
    }
    let stored = datastore.resume(file, at).await.unwrap().finish().await;
    assert_eq!(stored.unwrap().sha256, sha256(&bytes));
    assert_eq!(read(datastore, file).await, bytes);
    clear(datastore).await;
}

async fn another_offset_is_refused_with_the_right_one(datastore: &dyn DatastoreDriver) {
    let (file, bytes) = (saved(1, 1, Part::Disk), bytes());
    elsewhere(datastore, file, 1, 0).await;
    break_off(datastore, file, &bytes[..1000]).await;
    for wrong in [0, 1, 999, 1001, u64::MAX] {
        elsewhere(datastore, file, wrong, 1000).await;
    }
    assert_eq!(
        datastore.received(file).await.unwrap(),
        part_of(&bytes[..1000]),
        "a refusal costs nothing"
    );
    // Whoever does not know of offsets begins anew.
    let stored = send(datastore, file, &bytes[1..]).await;
    assert_eq!(stored.sha256, sha256(&bytes[1..]));
    clear(datastore).await;
}

async fn a_later_try_takes_over(datastore: &dyn DatastoreDriver) {
    let (file, bytes) = (saved(1, 1, Part::Disk), bytes());
    let mut stuck = datastore.receive(file).await.unwrap();
    write(&mut stuck, &bytes[..5000]).await;
    let overtaken = stuck.overtaken();
    // It notices, lets go, and only then the other has the file.
    let stuck = async {
        overtaken.cancelled().await;
        let refused = stuck.write(b"of the first").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        let refused = stuck.finish().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    };
    let (here, ()) = tokio::join!(datastore.received(file), stuck);
    assert_eq!(here.unwrap(), part_of(&bytes[..5000]));
    let mut first = datastore.resume(file, 5000).await.unwrap();
    write(&mut first, &bytes[5000..9000]).await;
    let overtaken = first.overtaken();
    let first = async {
        overtaken.cancelled().await;
        drop(first);
    };
    let (second, ()) = tokio::join!(datastore.resume(file, 9000), first);
    let mut second = second.unwrap();
    write(&mut second, &bytes[9000..]).await;
    assert_eq!(second.finish().await.unwrap().sha256, sha256(&bytes));
    assert_eq!(read(datastore, file).await, bytes);
    clear(datastore).await;
}

async fn what_is_whole_is_said_to_be(datastore: &dyn DatastoreDriver) {
    let (file, bytes) = (saved(1, 1, Part::Disk), bytes());
    send(datastore, file, &bytes).await;
    let whole = Received {
        is_whole: true,
        ..part_of(&bytes)
    };
    assert_eq!(datastore.received(file).await.unwrap(), whole);
    // It can only be replaced.
    elsewhere(datastore, file, size(&bytes), 0).await;
    break_off(datastore, file, &bytes[..10]).await;
    let here = datastore.received(file).await.unwrap();
    assert_eq!(here, part_of(&bytes[..10]));
    assert_eq!(read(datastore, file).await, bytes);
    clear(datastore).await;
}

async fn what_is_staged_goes_and_nothing_else(datastore: &dyn DatastoreDriver) {
    let (kept, half, other) = (
        saved(1, 1, Part::Disk),
        saved(1, 1, Part::Memory),
        saved(2, 1, Part::Memory),
    );
    send(datastore, kept, b"kept").await;
    break_off(datastore, half, b"half").await;
    break_off(datastore, other, b"other").await;
    let items = [half.item(), other.item()];
    assert_eq!(datastore.staged().await.unwrap(), items);
    for _ in 0..2 {
        datastore.discard_staged(half.item()).await.unwrap();
        assert_eq!(datastore.staged().await.unwrap(), items[1..]);
    }
    assert_eq!(datastore.received(half).await.unwrap(), Received::nothing());
    assert_eq!(read(datastore, kept).await, b"kept");
    // Who is still at it does not bring it back.
    let mut late = datastore.resume(other, 5).await.unwrap();
    datastore.discard(other.item()).await.unwrap();
    assert!(late.overtaken().is_cancelled());
    assert!(late.write(b"!").await.is_err());
    assert!(late.finish().await.is_err());
    assert_eq!(datastore.staged().await.unwrap(), []);
    assert_eq!(datastore.holds().await.unwrap(), [kept.item()]);
    clear(datastore).await;
}

async fn an_earlier_run_is_not_kept(datastore: &dyn DatastoreDriver) {
    let (earlier, other) = (saved(1, 9, Part::Memory), saved(2, 1, Part::Disk));
    break_off(datastore, earlier, b"earlier").await;
    break_off(datastore, other, b"other").await;
    let later = saved(1, 10, Part::Disk);
    break_off(datastore, later, b"later").await;
    assert_eq!(
        datastore.received(earlier).await.unwrap(),
        Received::nothing()
    );
    let here = datastore.received(other).await.unwrap();
    assert_eq!(here, part_of(b"other"));
    clear(datastore).await;
}

async fn elsewhere(datastore: &dyn DatastoreDriver, file: ItemFile, asked: u64, right: u64) {
    match datastore.resume(file, asked).await {
        Err(ResumeError::Elsewhere { at }) => assert_eq!(at, right, "{asked}"),
        Err(ResumeError::Io(error)) => panic!("{asked}: {error}"),
        Ok(_) => panic!("{asked} is taken"),
    }
}

/// A try that sends so much and ends.
async fn break_off(datastore: &dyn DatastoreDriver, file: ItemFile, bytes: &[u8]) {
    let mut receiving = datastore.receive(file).await.unwrap();
    write(&mut receiving, bytes).await;
}

async fn write(receiving: &mut Receiving, bytes: &[u8]) {
    for chunk in bytes.chunks(1000) {
        receiving.write(chunk).await.unwrap();
    }
}

fn part_of(bytes: &[u8]) -> Received {
    Received {
        size_bytes: size(bytes),
        sha256: sha256(bytes),
        is_whole: false,
    }
}

fn bytes() -> Vec<u8> {
    (0..=250).cycle().take(SIZE).collect()
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}
