//! A disk with no room left. SQLite is told that its file may not grow: to
//! those who write the same, and without a disk to fill.

use futures::future::join_all;
use vimana_model::ErrorKind;
use vimana_model::event::EventKind;
use vimana_store::event::NewEvent;
use vimana_store::{Store, TxError, event, tenant, write_tx};

use super::transactions::{exists, new_tenant};
use super::world::{World, note};

const MOST: &str = "PRAGMA max_page_count = 1073741823";

/// Leaves room for this many pages of 4 KiB.
async fn limit(store: &Store, pages: u32) {
    // It is never set below what there is: the first asks for that.
    store.plant("PRAGMA max_page_count = 1").await.unwrap();
    let grow = "INSERT INTO sessions (id_hash, data, expires_at) VALUES ('room', zeroblob(4), 0)";
    if pages == 0 {
        return;
    }
    store.plant(MOST).await.unwrap();
    let room = grow.replace("(4)", &format!("({})", pages * 4096));
    store.plant(&room).await.unwrap();
    store.plant("PRAGMA max_page_count = 1").await.unwrap();
    // The pages that are free now are all there will be.
    store.plant("DELETE FROM sessions").await.unwrap();
}

/// An event of about so many bytes.
fn large(bytes: usize) -> NewEvent {
    NewEvent {
        event: EventKind::Note {
            text: "x".repeat(bytes),
        },
        ..note(None, 0)
    }
}

pub async fn full_disk_is_told_and_the_store_goes_on_when_there_is_room(world: World) {
    limit(&world.store, 0).await;
    let mut kept = 0;
    let error = loop {
        let written = write_tx!(world.store, |tx| {
            Ok(event::append(tx, &[large(3000)]).await?)
        });
        match written {
            Ok(seq) => kept = seq,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the disk never was full");
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.public, "the server's disk is full");
    let reader = world.store.read();
    assert_eq!(event::last_seq(&reader).await.unwrap(), kept);
    // Nor does it get better by itself, or worse.
    let refused = write_tx!(world.store, |tx| {
        Ok(event::append(tx, &[large(3000)]).await?)
    });
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(event::last_seq(&reader).await.unwrap(), kept);

    world.store.plant(MOST).await.unwrap();
    let written = write_tx!(world.store, |tx| {
        Ok(event::append(tx, &[large(3000)]).await?)
    });
    assert_eq!(written.unwrap(), kept + 1);
    drop(reader);
    let world = world.reopen().await;
    let events = event::after(&world.store.read(), 0, 2000).await.unwrap();
    assert_eq!(u64::try_from(events.len()).unwrap(), kept + 1);
}

pub async fn who_needs_too_much_room_takes_nobody_with_him(world: World) {
    limit(&world.store, 60).await;
    let writers = (0..40).map(|number| {
        let world = world.clone();
        let record = new_tenant(&world, &format!("tenant-{number}"));
        tokio::spawn(async move {
            let greedy = number % 5 == 4;
            let written = write_tx!(world.store, |tx| {
                tenant::insert(tx, &record).await?;
                if greedy {
                    event::append(tx, &[large(2_000_000)]).await?;
                }
                Ok::<(), TxError>(())
            });
            assert_eq!(exists(&world, &record).await, written.is_ok());
            (greedy, written)
        })
    });
    for outcome in join_all(writers).await {
        let (greedy, written) = outcome.unwrap();
        if greedy {
            assert_eq!(written.unwrap_err().public, "the server's disk is full");
        } else {
            written.unwrap();
        }
    }
    assert_eq!(event::last_seq(&world.store.read()).await.unwrap(), 0);
}
