//! Writers that share one commit: each for himself all or nothing, and nobody
//! hears of what is not durable.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::join_all;
use tokio::task::yield_now;
use vimana_model::name::UserName;
use vimana_model::{Error, ErrorKind};
use vimana_store::simulation::DiskCall;
use vimana_store::tenant::TenantRecord;
use vimana_store::user::UserRecord;
use vimana_store::{Conn, Store, StoreError, event, tenant, user, vm, write_tx};

use super::simulated::{disk, pause};
use super::transactions::{cut_short, exists, new_tenant};
use super::world::{World, note};

/// Two rows that belong together.
struct Pair(TenantRecord, UserRecord);

impl Pair {
    fn new(world: &World, number: u32) -> Self {
        let user = UserRecord {
            id: world.user_id(),
            name: UserName::new(format!("user-{number}")).unwrap(),
            ..world.user.clone()
        };
        Self(new_tenant(world, &format!("tenant-{number}")), user)
    }

    async fn write(&self, store: &Store, ending: impl Fn() -> Result<(), Error>) -> bool {
        let written = write_tx!(store, |tx| {
            tenant::insert(tx, &self.0).await?;
            user::insert(tx, &self.1).await?;
            event::append(tx, &[note(None, 1)]).await?;
            Ok(ending()?)
        });
        written.is_ok()
    }

    async fn is_there(&self, reader: &impl Conn) -> bool {
        let first = tenant::find(reader, self.0.id).await.unwrap();
        let second = user::find(reader, self.1.id).await.unwrap();
        assert_eq!(first.is_some(), second.is_some(), "torn");
        first.is_some()
    }
}

pub async fn who_fails_panics_or_goes_away_goes_alone(world: World) {
    let writers = (0..160).map(|number| {
        let store = world.store.clone();
        let pair = Arc::new(Pair::new(&world, number));
        let writer = Arc::clone(&pair);
        let task = tokio::spawn(async move {
            match number % 4 {
                0 => Some(writer.write(&store, || Ok(())).await),
                1 => {
                    let refuse = || Err(Error::conflict("no"));
                    Some(writer.write(&store, refuse).await)
                }
                2 => {
                    let panics = || resume_unwind(Box::new(()));
                    Some(writer.write(&store, panics).await)
                }
                _ => cut_short(writer.write(&store, || Ok(())), number / 4).await,
            }
        });
        (number, pair, task)
    });
    let writers: Vec<_> = writers.collect();
    let mut ended = Vec::new();
    for (number, pair, task) in writers {
        ended.push((number, pair, task.await));
    }
    // What is written for who went away may still come: one moment of it.
    let snapshot = world.store.snapshot().await.unwrap();
    let mut there = 0;
    for (number, pair, told) in ended {
        let found = pair.is_there(&snapshot).await;
        there += u64::from(found);
        match number % 4 {
            0 => assert!(told.unwrap().unwrap() && found, "{number}"),
            1 => assert!(!told.unwrap().unwrap() && !found, "{number}"),
            2 => assert!(told.unwrap_err().is_panic() && !found, "{number}"),
            // Who went away knows nothing.
            _ => assert!(told.unwrap() != Some(true) || found, "{number}"),
        }
    }
    let last = event::last_seq(&snapshot).await.unwrap();
    assert_eq!(last, there, "an event for each and no more");
}

pub async fn failed_statement_leaves_nothing_else_to_do(world: World) {
    let (first, second) = (new_tenant(&world, "first"), new_tenant(&world, "second"));
    let mut stray = world.vm("web");
    stray.owner_id = world.user_id();
    let tx = world.store.begin().await.unwrap();
    tenant::insert(&tx, &first).await.unwrap();
    vm::insert(&tx, &stray).await.unwrap_err();
    tenant::insert(&tx, &second).await.unwrap_err();
    drop(tx);
    assert!(!exists(&world, &first).await);
    tenant::find(&world.store.read(), first.id).await.unwrap();
    let kept = write_tx!(world.store, |tx| Ok(tenant::insert(tx, &second).await?));
    kept.unwrap();
    assert!(exists(&world, &second).await);
}

pub async fn failed_statement_cannot_be_committed(world: World) {
    let first = new_tenant(&world, "first");
    let fail = Arc::new(AtomicBool::new(true));
    let tx = world.store.begin().await.unwrap();
    let once = Arc::clone(&fail);
    disk(&world).set_pause(pause(move |_| {
        let fails = once.swap(false, Ordering::Relaxed);
        async move {
            match fails {
                true => Err(StoreError::Full),
                false => Ok(()),
            }
        }
    }));
    let error = tenant::insert(&tx, &first).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    tenant::insert(&tx, &first).await.unwrap_err();
    tx.commit().await.unwrap_err();
    assert!(!exists(&world, &first).await);

    // A statement that nobody waited for may have failed, too.
    disk(&world).set_pause(None);
    let tx = world.store.begin().await.unwrap();
    disk(&world).set_pause(pause(|_| std::future::pending()));
    let cut = cut_short(tenant::insert(&tx, &first), 1).await;
    assert!(cut.is_none());
    disk(&world).set_pause(None);
    tx.commit().await.unwrap_err();
    assert!(!exists(&world, &first).await);
}

pub async fn many_writers_share_a_commit(world: World) {
    let commits = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&commits);
    disk(&world).set_pause(pause(move |call| {
        count.fetch_add(u64::from(call == DiskCall::Commit), Ordering::Relaxed);
        async { Ok(()) }
    }));
    let writers = (0..200).map(|number| {
        let (store, pair) = (world.store.clone(), Pair::new(&world, number));
        tokio::spawn(async move { pair.write(&store, || Ok(())).await })
    });
    for written in join_all(writers).await {
        assert!(written.unwrap());
    }
    let commits = commits.load(Ordering::Relaxed);
    assert!((4..=5).contains(&commits), "{commits}");
}

pub async fn failed_commit_acknowledges_nobody(world: World) {
    for refusal in [StoreError::Full, StoreError::Database("torn off".into())] {
        let refusal = Arc::new(std::sync::Mutex::new(Some(refusal)));
        disk(&world).set_pause(pause(move |call| {
            let refused = match call == DiskCall::Commit {
                true => refusal.lock().unwrap().take(),
                false => None,
            };
            async move { refused.map_or(Ok(()), Err) }
        }));
        let writers = (0..20).map(|_| {
            let (store, record) = (world.store.clone(), world.vm("web"));
            let record = vm::VmRecord {
                name: format!("vm-{}", world.next()).parse().unwrap(),
                ..record
            };
            tokio::spawn(async move {
                let tx = store.begin().await.unwrap();
                vm::insert(&tx, &record).await.unwrap();
                (tx.commit().await, record.id)
            })
        });
        let mut failed = 0;
        for written in join_all(writers).await {
            let (outcome, id) = written.unwrap();
            let found = vm::find(&world.store.read(), id).await.unwrap();
            assert_eq!(found.is_some(), outcome.is_ok(), "{outcome:?}");
            failed += u32::from(outcome.is_err());
        }
        assert_eq!(failed, 20, "all were in that one group");
    }
}

pub async fn commit_that_was_busy_is_tried_again_by_all(world: World) {
    let busy = AtomicU64::new(3);
    disk(&world).set_pause(pause(move |call| {
        let fails = call == DiskCall::Commit
            && busy
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        async move {
            match fails {
                true => Err(StoreError::Busy),
                false => Ok(()),
            }
        }
    }));
    let writers = (0..20).map(|number| {
        let (store, pair) = (world.store.clone(), Pair::new(&world, number));
        tokio::spawn(async move { pair.write(&store, || Ok(())).await })
    });
    for written in join_all(writers).await {
        assert!(written.unwrap());
    }
    let last = event::last_seq(&world.store.read()).await.unwrap();
    assert_eq!(last, 20, "each once");
}

pub async fn refusal_is_told_when_its_grounds_are_durable(world: World) {
    let (first, second) = (new_tenant(&world, "same"), new_tenant(&world, "same"));
    let refusals = Arc::new(AtomicBool::new(true));
    let refuse = Arc::clone(&refusals);
    disk(&world).set_pause(pause(move |call| {
        let refused = call == DiskCall::Commit && refuse.load(Ordering::Relaxed);
        async move {
            match refused {
                true => Err(StoreError::Database("torn off".into())),
                false => Ok(()),
            }
        }
    }));
    let tx = world.store.begin().await.unwrap();
    tenant::insert(&tx, &first).await.unwrap();
    let (store, refuse) = (world.store.clone(), Arc::clone(&refusals));
    let rival = tokio::spawn({
        let second = second.clone();
        async move {
            write_tx!(store, |tx| {
                let inserted = tenant::insert(tx, &second).await;
                refuse.store(inserted.is_err(), Ordering::Relaxed);
                Ok(inserted?)
            })
        }
    });
    // He stands in line by then.
    yield_now().await;
    tx.commit().await.unwrap_err();
    // He found the name taken, by what was then never written.
    rival.await.unwrap().unwrap();
    assert!(!exists(&world, &first).await);
    assert!(exists(&world, &second).await);

    let third = new_tenant(&world, "same");
    let error = write_tx!(world.store, |tx| Ok(tenant::insert(tx, &third).await?)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}
