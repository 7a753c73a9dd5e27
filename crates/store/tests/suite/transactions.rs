//! All or nothing, for everybody, in turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use tokio_util::sync::CancellationToken;
use vimana_model::name::{TenantName, UserName};
use vimana_model::tenant::TenantKind;
use vimana_model::{Error, ErrorKind};
use vimana_store::tenant::TenantRecord;
use vimana_store::user::UserRecord;
use vimana_store::{Store, StoreError, TxError, event, tenant, user, vm, write_tx};

use super::world::{NOW, World, note};

pub fn new_tenant(world: &World, name: &str) -> TenantRecord {
    TenantRecord {
        id: world.tenant_id(),
        name: TenantName::new(name).unwrap(),
        kind: TenantKind::default(),
        created_at: NOW,
    }
}

pub async fn exists(world: &World, record: &TenantRecord) -> bool {
    let found = tenant::find(&world.store.read(), record.id).await;
    found.unwrap().is_some()
}

pub async fn sixty_four_writers_beside_a_long_reader_and_checkpoints_all_pass(world: World) {
    let raw = world.raw().await;
    let long = raw.begin().await.unwrap();
    let look = "SELECT count(*) FROM tenants";
    long.execute_unprepared(look).await.unwrap();
    let done = CancellationToken::new();
    let checkpoints = tokio::spawn(checkpoints(world.clone(), done.clone()));
    let writers = (0..64).map(|number| {
        let world = world.clone();
        tokio::spawn(async move {
            let record = new_tenant(&world, &format!("tenant-{number}"));
            write_tx!(world.store, |tx| {
                tenant::insert(tx, &record).await?;
                event::append(tx, &[note(None, number)]).await?;
                Ok(())
            })
            .unwrap();
            assert!(exists(&world, &record).await, "acknowledged is committed");
        })
    });
    for written in join_all(writers).await {
        written.unwrap();
    }
    done.cancel();
    checkpoints.await.unwrap();
    long.execute_unprepared(look).await.unwrap();
    long.rollback().await.unwrap();
    let last = event::last_seq(&world.store.read()).await.unwrap();
    assert_eq!(last, 64);
}

/// The kind that keeps all writers out while it waits for readers.
async fn checkpoints(world: World, done: CancellationToken) {
    let raw = world.raw().await;
    while !done.is_cancelled() {
        let checkpoint = if world.store.is_postgres() {
            "CHECKPOINT"
        } else {
            "PRAGMA busy_timeout = 50; PRAGMA wal_checkpoint(TRUNCATE)"
        };
        raw.execute_unprepared(checkpoint).await.unwrap();
        tokio::task::yield_now().await;
    }
    raw.close().await.unwrap();
}

pub async fn uncommitted_is_invisible_to_readers(world: World) {
    let record = new_tenant(&world, "second");
    let tx = world.store.begin().await.unwrap();
    tenant::insert(&tx, &record).await.unwrap();
    let inside = tenant::find(&tx, record.id).await.unwrap();
    assert_eq!(inside.as_ref(), Some(&record));
    assert!(!exists(&world, &record).await);
    tx.commit().await.unwrap();
    assert!(exists(&world, &record).await);
}

pub async fn dropped_transaction_leaves_nothing_and_the_next_works(world: World) {
    for round in 0..20 {
        let lost = new_tenant(&world, "lost");
        let tx = world.store.begin().await.unwrap();
        tenant::insert(&tx, &lost).await.unwrap();
        drop(tx);
        let kept = new_tenant(&world, &format!("kept-{round}"));
        write_tx!(world.store, |tx| {
            assert_eq!(tenant::find(tx, lost.id).await?, None);
            tenant::insert(tx, &kept).await?;
            Ok(())
        })
        .unwrap();
        assert!(!exists(&world, &lost).await);
        assert!(exists(&world, &kept).await);
    }
}

/// Polls a future at most `polls` times, then drops it.
pub async fn cut_short<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub async fn cancelled_write_leaves_all_or_nothing(world: World) {
    let mut finished = 0;
    for polls in 0..60 {
        let first = new_tenant(&world, &format!("tenant-{polls}"));
        let second = UserRecord {
            id: world.user_id(),
            name: UserName::new(format!("user-{polls}")).unwrap(),
            ..world.user.clone()
        };
        let write = async {
            write_tx!(world.store, |tx| {
                tenant::insert(tx, &first).await?;
                user::insert(tx, &second).await?;
                event::append(tx, &[note(None, 1)]).await?;
                Ok(())
            })
        };
        let told = cut_short(write, polls).await;
        if told.is_some() {
            finished += 1;
        }
        // The next writer waits for what the cancelled one left behind.
        let tx = world.store.begin().await.unwrap();
        let is_there = async || tenant::find(&tx, first.id).await.unwrap().is_some();
        // On PostgreSQL its commit may come between two looks.
        let (there, also) = loop {
            let before = is_there().await;
            let also = user::find(&tx, second.id).await.unwrap().is_some();
            if is_there().await == before {
                break (before, also);
            }
        };
        tx.rollback().await.unwrap();
        assert_eq!(there, also, "torn after {polls} polls");
        assert!(there || told.is_none(), "acknowledged and lost");
    }
    assert!(finished > 0, "never finished in 60 polls");
    let reader = world.store.read();
    let last = event::last_seq(&reader).await.unwrap();
    let events = event::after(&reader, 0, 1000).await.unwrap();
    assert_eq!(u64::try_from(events.len()).unwrap(), last);
}

pub async fn failed_body_leaves_nothing(world: World) {
    let lost = new_tenant(&world, "lost");
    let error = write_tx!(world.store, |tx| {
        tenant::insert(tx, &lost).await?;
        tenant::insert(tx, &world.tenant).await?;
        Ok(())
    })
    .unwrap_err();
    assert_eq!(error.public, "tenant name is already taken");
    assert!(!exists(&world, &lost).await);
}

pub async fn conflict_is_tried_again_and_at_last_told_as_busy(world: World) {
    let tries = AtomicU32::new(0);
    let passed = write_tx!(world.store, |tx| {
        event::append(tx, &[note(None, 1)]).await?;
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(TxError::Store(StoreError::Conflict)),
            1 => Err(TxError::Store(StoreError::Busy)),
            _ => Ok(()),
        }
    });
    passed.unwrap();
    assert_eq!(tries.swap(0, Ordering::SeqCst), 3);
    let last = event::last_seq(&world.store.read()).await.unwrap();
    assert_eq!(last, 1, "the tries that failed left nothing");

    let gave_up: Result<(), Error> = write_tx!(world.store, |_tx| {
        tries.fetch_add(1, Ordering::SeqCst);
        Err(TxError::Store(StoreError::Conflict))
    });
    let error = gave_up.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.public, "busy, try again");
    assert_eq!(tries.load(Ordering::SeqCst), 10);
}

pub async fn refusal_of_the_engine_is_not_tried_again(world: World) {
    let tries = AtomicU32::new(0);
    let refused: Result<(), Error> = write_tx!(world.store, |_tx| {
        tries.fetch_add(1, Ordering::SeqCst);
        Err(Error::conflict("the VM is done"))?;
        Ok(())
    });
    assert_eq!(refused.unwrap_err().public, "the VM is done");
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

pub async fn reading_inside_a_transaction_does_not_hang(world: World) {
    let record = world.new_vm("web").await;
    // As many as may write at once, each with its transaction open.
    let writers = (0..20).map(|_| {
        let (world, record) = (world.clone(), record.clone());
        tokio::spawn(async move {
            write_tx!(world.store, |tx| {
                let found = vm::find(tx, record.id).await?;
                let committed = vm::find(&world.store.read(), record.id).await?;
                assert_eq!(found, committed);
                Ok(())
            })
            .unwrap();
        })
    });
    let all = tokio::time::timeout(Duration::from_secs(20), join_all(writers));
    for written in all.await.unwrap() {
        written.unwrap();
    }
}

/// The engine runs transactions in spawned tasks: their futures must be `Send`,
/// also with borrowed arguments.
#[expect(dead_code, reason = "only compiled")]
fn futures_are_send(store: &Store, record: &TenantRecord) {
    fn assert_send<T>(future: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
        future
    }
    drop(assert_send(async move {
        write_tx!(store, |tx| {
            tenant::insert(tx, record).await?;
            let found = tenant::find_by_name(tx, &record.name).await?;
            event::append(tx, &[]).await?;
            Ok(found)
        })
    }));
}
