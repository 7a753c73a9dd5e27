//! One sequence, without gaps, in the order of the commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use vimana_model::Error;
use vimana_model::event::{Actor, EventKind, EventView};
use vimana_model::name::UserName;
use vimana_store::event::{EventRecord, NewEvent};
use vimana_store::{TxError, event, write_tx};

use super::world::{NOW, World, note, resources};

/// Appends one or two events; every third writer changes its mind.
async fn write(world: &World, number: u64) {
    let events: Vec<NewEvent> = (0..=number % 2).map(|_| note(None, number)).collect();
    let outcome = write_tx!(world.store, |tx| {
        event::append(tx, &events).await?;
        if number.is_multiple_of(3) {
            return Err(TxError::Engine(Error::conflict("changed my mind")));
        }
        Ok(())
    });
    assert_eq!(outcome.is_err(), number.is_multiple_of(3), "{outcome:?}");
}

async fn numbers(world: &World) -> Vec<u64> {
    let events = event::after(&world.store.read(), 0, 10_000).await.unwrap();
    events.iter().map(|event| event.view.seq).collect()
}

pub async fn sequence_has_no_gaps_under_writers_and_rollbacks(world: World) {
    let writers = (0..32).map(|writer| {
        let world = world.clone();
        tokio::spawn(async move {
            for round in 0..4 {
                write(&world, writer * 4 + round).await;
            }
        })
    });
    for written in join_all(writers).await {
        written.unwrap();
    }
    let kept: u64 = (0..128_u64)
        .filter(|number| !number.is_multiple_of(3))
        .map(|number| number % 2 + 1)
        .sum();
    let wanted: Vec<u64> = (1..=kept).collect();
    assert_eq!(numbers(&world).await, wanted);
    let last = event::last_seq(&world.store.read()).await.unwrap();
    assert_eq!(last, kept);
}

pub async fn reader_never_sees_a_gap(world: World) {
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (world, over) = (world.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let last_look = over.load(Ordering::SeqCst);
                let news = event::after(&world.store.read(), seen, 7).await.unwrap();
                for event in &news {
                    seen += 1;
                    assert_eq!(event.view.seq, seen);
                }
                if last_look && news.is_empty() {
                    return seen;
                }
            }
        })
    };
    let writers = (0..8).map(|writer| {
        let world = world.clone();
        tokio::spawn(async move {
            for round in 0..8 {
                write(&world, writer * 8 + round).await;
            }
        })
    });
    for written in join_all(writers).await {
        written.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    let seen = reader.await.unwrap();
    let last = event::last_seq(&world.store.read()).await.unwrap();
    assert_eq!(seen, last);
}

pub async fn appending_nothing_takes_no_number(world: World) {
    let reader = world.store.read();
    assert_eq!(event::last_seq(&reader).await.unwrap(), 0);
    let last = write_tx!(world.store, |tx| {
        let none = event::append(tx, &[]).await?;
        let one = event::append(tx, &[note(None, 1)]).await?;
        Ok((none, one, event::append(tx, &[]).await?))
    });
    assert_eq!(last.unwrap(), (0, 1, 1));
    let beyond = event::after(&reader, u64::MAX, 10).await.unwrap();
    assert_eq!(beyond, []);
}

pub async fn many_events_at_once_keep_their_order(world: World) {
    let events: Vec<NewEvent> = (1..=1200).map(|number| note(None, number)).collect();
    let last = write_tx!(world.store, |tx| Ok(event::append(tx, &events).await?));
    assert_eq!(last.unwrap(), 1200);
    let found = event::after(&world.store.read(), 500, 3).await.unwrap();
    let shown: Vec<(u64, String)> = found
        .into_iter()
        .map(|event| (event.view.seq, event.view.event.sentence()))
        .collect();
    let wanted = [501, 502, 503].map(|number: u64| (number, number.to_string()));
    assert_eq!(shown, wanted);
}

pub async fn timeline_of_a_vm_is_its_latest_oldest_first(world: World) {
    let (mine, other) = (world.new_vm("mine").await, world.new_vm("other").await);
    let host = world.new_host("node-a", resources(1, 1, 1)).await;
    let placed = NewEvent {
        at: NOW.plus_ms(5),
        actor: Actor::User(UserName::new("ada").unwrap()),
        tenant_id: Some(world.tenant.id),
        vm_id: Some(mine.id),
        host_id: Some(host.id),
        request_id: None,
        image_id: None,
        volume_id: None,
        event: EventKind::Placed {
            host: "node-a".to_owned(),
        },
    };
    let events = [
        note(Some(mine.id), 1),
        note(Some(other.id), 2),
        placed.clone(),
        note(Some(mine.id), 4),
    ];
    write_tx!(world.store, |tx| {
        event::append(tx, &events).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let timeline = event::for_vm(&reader, mine.id, 2).await.unwrap();
    let numbers: Vec<u64> = timeline.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [3, 4]);
    let view = EventView {
        seq: 3,
        at: placed.at,
        actor: placed.actor,
        vm_id: placed.vm_id,
        host_id: placed.host_id,
        request_id: None,
        image_id: None,
        volume_id: None,
        event: placed.event,
    };
    assert_eq!(timeline[0], view);
    let record = event::after(&reader, 2, 1).await.unwrap();
    let wanted = EventRecord {
        view,
        tenant_id: Some(world.tenant.id),
    };
    assert_eq!(record, [wanted]);
}
