//! How hosts join, prove themselves, and are told apart from their copies.

use vimana_model::name::HostName;
use vimana_model::{HostId, JoinTokenId, Timestamp};
use vimana_store::host::{HostCertificate, HostRecord};
use vimana_store::join_token::JoinTokenRecord;
use vimana_store::{enrolment, host, join_token, write_tx};

use super::world::{NOW, World, resources};

fn token(n: u8) -> JoinTokenRecord {
    JoinTokenRecord {
        id: JoinTokenId::from_parts(u64::from(n), [n; 10]),
        secret_hash: format!("{n:064}"),
        host_name: Some(HostName::new("host-a").unwrap()),
        created_by: "ada".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus_ms(1000),
        used_at: None,
        host_id: None,
    }
}

fn certificate(serial: &str) -> HostCertificate {
    HostCertificate {
        serial: serial.to_owned(),
        fingerprint: "f".to_owned(),
        expires_at: NOW.plus_ms(1_000_000),
        joined_after: Some(7),
        next: Vec::new(),
    }
}

async fn insert(world: &World, token: &JoinTokenRecord) {
    write_tx!(world.store, |tx| {
        join_token::insert(tx, token).await?;
        Ok(())
    })
    .unwrap();
}

async fn spend(world: &World, id: JoinTokenId, by: HostId, now: Timestamp) -> bool {
    write_tx!(world.store, |tx| Ok(
        join_token::spend(tx, id, by, now).await?
    ))
    .unwrap()
}

async fn new_host(world: &World) -> HostRecord {
    world.new_host("host-a", resources(1, 1, 1)).await
}

async fn found(world: &World, id: HostId) -> HostRecord {
    host::find(&world.store.read(), id).await.unwrap().unwrap()
}

async fn offer(world: &World, id: HostId, named: u64) -> Option<u64> {
    write_tx!(world.store, |tx| Ok(enrolment::offer_session(
        tx, id, named
    )
    .await?))
    .unwrap()
}

async fn confirm(world: &World, id: HostId, number: u64) -> bool {
    write_tx!(world.store, |tx| Ok(enrolment::confirm_session(
        tx, id, number
    )
    .await?))
    .unwrap()
}

pub async fn join_token_survives_with_all_columns(world: World) {
    let record = token(1);
    insert(&world, &record).await;
    let read = world.store.read();
    let found = join_token::find_by_hash(&read, &record.secret_hash).await;
    assert_eq!(found.unwrap().unwrap(), record);
    let none = join_token::find_by_hash(&read, "x").await.unwrap();
    assert!(none.is_none());
    let host = new_host(&world).await;
    assert!(spend(&world, record.id, host.id, NOW).await);
    let spent = join_token::find_by_hash(&read, &record.secret_hash).await;
    let spent = spent.unwrap().unwrap();
    assert_eq!(spent.used_at, Some(NOW));
    assert_eq!(spent.host_id, Some(host.id));
}

pub async fn join_token_is_spent_by_one_of_twenty(world: World) {
    let record = token(1);
    insert(&world, &record).await;
    let id = record.id;
    let tries: Vec<_> = (0..20)
        .map(|n| {
            let world = world.clone();
            let by = HostId::from_parts(n, [1; 10]);
            tokio::spawn(async move { spend(&world, id, by, NOW).await })
        })
        .collect();
    let mut spent = 0;
    for one in tries {
        spent += u32::from(one.await.unwrap());
    }
    assert_eq!(spent, 1);
}

pub async fn expired_join_token_is_not_spent_and_is_swept_away(world: World) {
    let record = token(1);
    insert(&world, &record).await;
    let host = new_host(&world).await;
    assert!(!spend(&world, record.id, host.id, record.expires_at).await);
    for (now, swept) in [(NOW, 0), (record.expires_at, 1)] {
        let deleted = write_tx!(world.store, |tx| Ok(
            join_token::delete_expired(tx, now).await?
        ))
        .unwrap();
        assert_eq!(deleted, swept);
    }
}

pub async fn join_token_of_the_future_counts_from_now_on(world: World) {
    let record = token(1);
    insert(&world, &record).await;
    let now = NOW.plus_ms(-1_000_000);
    let life = record.expires_at.since_ms(record.created_at);
    for _ in 0..2 {
        write_tx!(world.store, |tx| Ok(join_token::bring_back(tx, now).await?)).unwrap();
        let read = world.store.read();
        let found = join_token::find_by_hash(&read, &record.secret_hash).await;
        let moved = JoinTokenRecord {
            created_at: now,
            expires_at: now.plus_ms(life),
            ..record.clone()
        };
        assert_eq!(found.unwrap(), Some(moved));
    }
}

pub async fn host_facts_leave_what_it_proves_itself_with_alone(world: World) {
    let before = new_host(&world).await;
    let renewed = HostCertificate {
        next: vec![certificate("2"), certificate("3")],
        ..certificate("1")
    };
    write_tx!(world.store, |tx| {
        enrolment::admit(tx, before.id, &renewed, 0).await?;
        assert!(enrolment::revoke(tx, before.id, NOW).await?);
        assert!(!enrolment::revoke(tx, before.id, NOW.plus_ms(1)).await?);
        host::update_facts(tx, &before).await?;
        Ok(())
    })
    .unwrap();
    let after = found(&world, before.id).await;
    assert_eq!(after.certificate, Some(renewed));
    assert_eq!(after.revoked_at, Some(NOW));
    write_tx!(world.store, |tx| {
        enrolment::set_certificate(tx, before.id, &certificate("4")).await?;
        Ok(())
    })
    .unwrap();
    let after = found(&world, before.id).await;
    assert_eq!(after.certificate, Some(certificate("4")));
    assert_eq!(after.revoked_at, Some(NOW));
}

pub async fn sessions_are_numbered_and_a_copy_is_told_apart(world: World) {
    let id = new_host(&world).await.id;
    assert_eq!(offer(&world, id, 1).await, None);
    assert_eq!(offer(&world, id, 0).await, Some(1));
    assert!(confirm(&world, id, 1).await);
    // The welcome got lost: the host names the number it had.
    assert_eq!(offer(&world, id, 1).await, Some(2));
    assert_eq!(offer(&world, id, 1).await, Some(3));
    assert!(!confirm(&world, id, 2).await);
    // The host's word that it has the number got lost.
    assert_eq!(offer(&world, id, 3).await, Some(4));
    for copy in [0, 1, 2, 5, u64::MAX] {
        assert_eq!(offer(&world, id, copy).await, None, "{copy}");
    }
    // The refused ones changed nothing.
    assert!(confirm(&world, id, 4).await);
    let host = found(&world, id).await;
    assert_eq!((host.session_number, host.session_offered), (4, 4));
}

pub async fn one_of_twenty_copies_gets_the_session(world: World) {
    let id = new_host(&world).await.id;
    let copies: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                match offer(&world, id, 0).await {
                    Some(number) => confirm(&world, id, number).await,
                    None => false,
                }
            })
        })
        .collect();
    let mut sessions = 0;
    for copy in copies {
        sessions += u32::from(copy.await.unwrap());
    }
    assert_eq!(sessions, 1);
    let host = found(&world, id).await;
    assert_eq!(host.session_number, host.session_offered);
    // Whoever has it, all others are told apart from now on.
    assert_eq!(offer(&world, id, 0).await, None);
}

pub async fn revoked_host_is_offered_no_session_until_it_joins_anew(world: World) {
    let id = new_host(&world).await.id;
    assert_eq!(offer(&world, id, 0).await, Some(1));
    assert!(confirm(&world, id, 1).await);
    write_tx!(world.store, |tx| Ok(enrolment::revoke(tx, id, NOW).await?)).unwrap();
    assert_eq!(offer(&world, id, 1).await, None);
    write_tx!(world.store, |tx| {
        let locked = enrolment::lock(tx, id).await?.unwrap();
        assert_eq!(locked.revoked_at, Some(NOW));
        enrolment::admit(tx, id, &certificate("1"), 7).await?;
        Ok(())
    })
    .unwrap();
    assert_eq!(offer(&world, id, 1).await, None);
    assert_eq!(offer(&world, id, 0).await, None);
    assert_eq!(offer(&world, id, 7).await, Some(8));
}
