//! What counts, of what is found.

use std::collections::BTreeMap;

use vimana_engine::check::{Breach, Check, Kind, Named, Outside, Rule, Subject, hosts_to_hear};
use vimana_engine::check::{Source, lasting};
use vimana_store::Store;
use vimana_testkit::{TestHost, TestWorld};

use crate::installation::Installation;

#[tokio::test]
async fn an_installation_as_it_must_be_has_no_breach() {
    let installation = Installation::new().await;
    let whole = &installation.outside;
    assert_eq!(installation.breaches("", whole).await, []);
    // Neither when less is known.
    let records = Outside::default();
    assert_eq!(installation.breaches("", &records).await, []);
    let mut one_host = whole.clone();
    one_host.inventories.pop_first();
    assert_eq!(installation.breaches("", &one_host).await, []);
}

#[tokio::test]
async fn the_engine_looks_at_everything_itself() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    assert_eq!(world.engine.check().await.unwrap(), []);
    let saved = world.dir.path().join("saved");
    let stranger = "vm_00000000000170009090909090909090";
    std::fs::create_dir_all(saved.join(stranger)).unwrap();
    // What is called like nothing of ours is not ours.
    std::fs::create_dir_all(saved.join("lost+found")).unwrap();
    let found = world.engine.check().await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|breach| (breach.check, breach.subject.itself.id.as_str()))
        .collect();
    assert_eq!(found, [(Check::CopyOfNobody, stranger)]);
}

#[tokio::test]
async fn hosts_that_were_sent_away_need_not_be_heard() {
    let world = TestWorld::new().await;
    let mut hosts = [TestHost::new(1), TestHost::new(2), TestHost::new(3)];
    for host in &mut hosts {
        host.connect(&world.engine).await;
    }
    let store: &Store = world.engine.store();
    store
        .plant("UPDATE hosts SET revoked_at = 1 WHERE name <> 'host-1'")
        .await
        .unwrap();
    store
        .plant("UPDATE hosts SET vms = 1 WHERE name = 'host-2'")
        .await
        .unwrap();
    let expected: BTreeMap<_, _> = hosts[..2]
        .iter()
        .map(|host| (host.id, Named::new(host.id, Some(&host.name))))
        .collect();
    assert_eq!(hosts_to_hear(&store.read()).await.unwrap(), expected);
}

fn breach(check: Check, id: &str, name: &str) -> Breach {
    let itself = Named::new(id, Some(name));
    Breach {
        check,
        subject: Subject::new(Kind::Vm, itself),
        what: "something".to_owned(),
    }
}

#[test]
fn what_moved_between_two_looks_does_not_count() {
    let moved = |id: &str| breach(Check::HostLostIt, id, "web");
    let certain = breach(Check::ClaimElsewhere, "d", "web");
    let before = [moved("a"), moved("b")];
    // Under another name it is still the same.
    let stays = breach(Check::HostLostIt, "b", "renamed");
    let other = breach(Check::HeldElsewhere, "a", "web");
    let later = vec![stays.clone(), moved("c"), certain.clone(), other];
    assert_eq!(lasting(&before, later), [stays, certain]);
}

#[test]
fn every_rule_has_a_check_and_every_check_an_advice() {
    for rule in Rule::ALL {
        let of_rule = |check: &&Check| check.rule() == rule;
        assert!(Check::ALL.iter().any(|check| of_rule(&check)), "{rule:?}");
    }
    let mut numbers = Rule::ALL.map(Rule::number);
    numbers.sort_unstable();
    assert_eq!(numbers, Rule::ALL.map(Rule::number));
    for check in Check::ALL {
        assert!(!check.advice().is_empty(), "{check:?}");
    }
    assert_eq!(Check::HostLostIt.source(), Source::Reports);
}
