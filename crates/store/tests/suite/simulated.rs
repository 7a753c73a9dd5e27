//! What only a simulated disk promises: crashes anywhere, refusals, and the
//! same run again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;
use vimana_model::{Error, ErrorKind};
use vimana_store::simulation::{DiskCall, Pause, SimDisk};
use vimana_store::{Store, StoreError, TxError, event, tenant, write_tx};

use super::world::{World, note};

pub fn pause<F>(at: impl Fn(DiskCall) -> F + Send + Sync + 'static) -> Option<Pause>
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    Some(Arc::new(move |call| Box::pin(at(call))))
}

/// Writes one event; its number is the answer.
async fn append(store: &Store, number: u64) -> Result<u64, Error> {
    write_tx!(store, |tx| {
        event::last_seq(tx).await?;
        Ok(event::append(tx, &[note(None, number)]).await?)
    })
}

async fn last_seq(store: &Store) -> u64 {
    event::last_seq(&store.read()).await.unwrap()
}

pub fn disk(world: &World) -> &SimDisk {
    world.disk.as_ref().unwrap()
}

pub async fn writing_takes_no_virtual_time(world: World) {
    let before = Instant::now();
    let writers = (0..64).map(|number| {
        let store = world.store.clone();
        tokio::spawn(async move { append(&store, number).await.unwrap() })
    });
    join_all(writers).await;
    assert_eq!(last_seq(&world.store).await, 64);
    assert_eq!(Instant::now(), before);
}

pub async fn busy_task_lets_others_run(world: World) {
    disk(&world).set_pause(None);
    let store = world.store.clone();
    let watcher = tokio::spawn(async move { while last_seq(&store).await < 300 {} });
    for number in 0..300 {
        append(&world.store, number).await.unwrap();
    }
    watcher.await.unwrap();
}

/// Three writers in a row, the power gone at the `crash`th call of the disk.
/// Says how many were acknowledged, at which call it ended (`None` after the
/// last), and how many were there afterwards.
async fn crash_at(crash: u64) -> (u64, Option<DiskCall>, u64) {
    let disk = SimDisk::new().unwrap();
    let store = Store::open_simulated(&disk).unwrap();
    let (calls, fell) = (AtomicU64::new(0), Arc::new(Notify::new()));
    let last_call = Arc::new(Mutex::new(None));
    let (power, seen) = (Arc::clone(&fell), Arc::clone(&last_call));
    disk.set_pause(pause(move |call| {
        let falls = calls.fetch_add(1, Ordering::Relaxed) == crash;
        let (power, seen) = (Arc::clone(&power), Arc::clone(&seen));
        async move {
            if falls {
                *seen.lock().unwrap() = Some(call);
                power.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    }));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&acknowledged);
    let server = tokio::spawn(async move {
        for number in 0..3 {
            append(&store, number).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::select! {
        biased;
        () = fell.notified() => server.abort(),
        () = async { while !server.is_finished() { tokio::task::yield_now().await } } => {}
    }
    server.await.ok();
    disk.set_pause(None);
    let store = Store::open_simulated(&disk).unwrap();
    let there = last_seq(&store).await;
    append(&store, 9).await.unwrap();
    let last_call = *last_call.lock().unwrap();
    (acknowledged.load(Ordering::Relaxed), last_call, there)
}

pub async fn crash_at_any_call_leaves_what_was_committed(_world: World) {
    let mut crash = 0;
    let mut late = 0;
    loop {
        let (acknowledged, last_call, there) = crash_at(crash).await;
        let durable = match last_call {
            None => break,
            Some(DiskCall::Committed) => acknowledged + 1,
            Some(_) => acknowledged,
        };
        assert_eq!(there, durable, "crash at call {crash}, {last_call:?}");
        late += u64::from(last_call == Some(DiskCall::Committed));
        crash += 1;
    }
    assert_eq!(late, 3, "each was once lost between commit and answer");
}

/// Twenty writers at odds, with delays and refusals that a seed decides; the
/// whole story, with its times.
async fn story(seed: u64) -> Vec<String> {
    let disk = SimDisk::new().unwrap();
    let store = Store::open_simulated(&disk).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (log, chance) = (Arc::clone(&told), AtomicU64::new(seed));
    let start = Instant::now();
    disk.set_pause(pause(move |call| {
        let chance = chance
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
            >> 40;
        let log = Arc::clone(&log);
        async move {
            tokio::time::sleep(Duration::from_millis(chance % 7)).await;
            let line = format!("{:?} {call:?}", start.elapsed());
            log.lock().unwrap().push(line);
            match chance % 31 {
                0 => Err(StoreError::Busy),
                _ => Ok(()),
            }
        }
    }));
    let writers = (0..20).map(|number| {
        let (store, told) = (store.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            let outcome = append(&store, number).await.map_err(|error| error.public);
            let line = format!("{:?} {number} {outcome:?}", start.elapsed());
            told.lock().unwrap().push(line);
        })
    });
    join_all(writers).await;
    disk.set_pause(None);
    let events = event::after(&store.read(), 0, 100).await.unwrap();
    let mut told = told.lock().unwrap().clone();
    told.push(format!("{events:?}"));
    told
}

pub async fn the_same_run_twice_is_the_same(_world: World) {
    let first = story(7).await;
    assert!(first.len() > 100, "{first:?}");
    assert_eq!(first, story(7).await);
    assert_ne!(first, story(8).await);
}

pub async fn refusal_of_the_disk_is_the_stores_error(world: World) {
    for at in [DiskCall::Begin, DiskCall::Write, DiskCall::Commit] {
        disk(&world).set_pause(pause(move |call| async move {
            match call == at {
                true => Err(StoreError::Full),
                false => Ok(()),
            }
        }));
        let error = append(&world.store, 1).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{at:?}");
        assert_eq!(error.public, "the server's disk is full", "{at:?}");
        assert_eq!(last_seq(&world.store).await, 0, "{at:?}");
    }
    disk(&world).set_pause(pause(|call| async move {
        match call == DiskCall::Read {
            true => Err(StoreError::Busy),
            false => Ok(()),
        }
    }));
    append(&world.store, 1).await.unwrap();
    let error = event::last_seq(&world.store.read()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy), "{error:?}");

    // Too late to undo anything: durable, and told as an error.
    disk(&world).set_pause(pause(|call| async move {
        match call == DiskCall::Committed {
            true => Err(StoreError::Database("away".into())),
            false => Ok(()),
        }
    }));
    append(&world.store, 2).await.unwrap_err();
    disk(&world).set_pause(None);
    assert_eq!(last_seq(&world.store).await, 2);
}

pub async fn who_was_there_before_is_cut_off(world: World) {
    let old = world.store.clone();
    let tx = old.begin().await.unwrap();
    event::append(&tx, &[note(None, 1)]).await.unwrap();
    let world = world.reopen().await;
    // Nothing of the old transaction is in the way.
    assert_eq!(append(&world.store, 2).await.unwrap(), 1);
    event::append(&tx, &[note(None, 3)]).await.unwrap_err();
    tx.commit().await.unwrap_err();
    tenant::find(&old.read(), world.tenant.id)
        .await
        .unwrap_err();
    let error: Result<(), Error> = write_tx!(old, |tx| {
        event::append(tx, &[note(None, 4)]).await?;
        Err(TxError::Store(StoreError::Conflict))
    });
    error.unwrap_err();
    assert_eq!(last_seq(&world.store).await, 1);
}
