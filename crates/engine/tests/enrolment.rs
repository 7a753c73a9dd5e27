//! Which hosts belong to the installation, without sockets. How they prove it
//! through sockets is in the server's tests.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like the tests themselves"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::StreamExt as _;
use vimana_engine::{OpContext, WatchItem};
use vimana_model::event::EventKind;
use vimana_model::host::{CreateJoinToken, HostState};
use vimana_model::session::{Role, StaffRole};
use vimana_model::{ErrorKind, HostId};
use vimana_pki::{HostKey, Identity, JoinToken, PeerIdentity};
use vimana_protocol::enrolment::{Certified, JoinRequest, RenewRequest};
use vimana_testkit::{TestHost, TestWorld};

const PATIENCE: Duration = Duration::from_secs(20);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn token(world: &TestWorld) -> JoinToken {
    let form = CreateJoinToken::default();
    let view = world.engine.create_join_token(&world.admin, &form).await;
    view.unwrap().token.parse().unwrap()
}

fn form(host: &TestHost, key: &HostKey, token: &JoinToken) -> JoinRequest {
    JoinRequest {
        secret: token.secret().to_owned(),
        host_id: host.id,
        name: host.name.parse().unwrap(),
        zone: "default".parse().unwrap(),
        request: key.request().unwrap(),
        session_number: 0,
    }
}

fn shown(key: &HostKey, certified: &Certified) -> PeerIdentity {
    let identity = Identity::new(key, &certified.certificate, &certified.authority);
    identity.unwrap().peer()
}

async fn events(world: &TestWorld, id: HostId) -> Vec<EventKind> {
    let timeline = world.engine.host_timeline(&world.admin, id).await.unwrap();
    timeline.into_iter().map(|entry| entry.event).collect()
}

async fn until_disconnected(world: &TestWorld, id: HostId) {
    let mut watch = std::pin::pin!(world.engine.watch(&world.admin, None));
    let found = async {
        while world.engine.hosts(&world.admin).await.unwrap()[0].connected {
            while let Some(item) = watch.next().await {
                if let WatchItem::Item(item) = item
                    && (item.event.host_id, &item.event.event)
                        == (Some(id), &EventKind::HostDisconnected)
                {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test]
async fn a_host_of_an_older_installation_joins_under_its_old_id() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let before = world.engine.hosts(&world.admin).await.unwrap().remove(0);
    assert_eq!(before.certificate_expires_at, None);
    let key = HostKey::generate().unwrap();
    let mut form = form(&host, &key, &token(&world).await);
    form.session_number = 1;
    let certified = world.engine.join_host(&form, PEER).await.unwrap();
    let proof = world
        .engine
        .authenticate_host(&shown(&key, &certified))
        .await;
    assert_eq!(proof.unwrap().host_id, host.id);
    let after = world.engine.hosts(&world.admin).await.unwrap().remove(0);
    assert!(after.certificate_expires_at.is_some());
    // All else is as it was.
    assert_eq!(
        (after.capacity, after.state),
        (before.capacity, HostState::Enabled)
    );
    assert!(after.connected);
}

#[tokio::test]
async fn a_newcomer_takes_no_vms_before_it_was_heard_of() {
    let world = TestWorld::new().await;
    let host = TestHost::new(1);
    let key = HostKey::generate().unwrap();
    let form = form(&host, &key, &token(&world).await);
    world.engine.join_host(&form, PEER).await.unwrap();
    let known = world.engine.hosts(&world.admin).await.unwrap().remove(0);
    assert_eq!((known.state, known.connected), (HostState::Unknown, false));
    assert_eq!(known.capacity, Default::default());
    assert_eq!(events(&world, host.id).await, [EventKind::HostCertified]);
}

#[tokio::test]
async fn a_proof_ends_with_the_revocation_and_so_does_the_session() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    let key = HostKey::generate().unwrap();
    let form = form(&host, &key, &token(&world).await);
    let certified = world.engine.join_host(&form, PEER).await.unwrap();
    let shown = shown(&key, &certified);
    host.connect(&world.engine).await;
    let proof = world.engine.authenticate_host(&shown).await.unwrap();
    assert!(!proof.revoked.is_cancelled());
    let view = world
        .engine
        .revoke_host(&world.admin, host.id)
        .await
        .unwrap();
    assert!(view.revoked);
    assert!(proof.revoked.is_cancelled());
    until_disconnected(&world, host.id).await;
    let refused = world.engine.authenticate_host(&shown).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unauthenticated);
    let request = RenewRequest {
        request: key.request().unwrap(),
    };
    assert!(
        world
            .engine
            .renew_certificate(&shown, &request)
            .await
            .is_err()
    );
    // Once more changes nothing.
    world
        .engine
        .revoke_host(&world.admin, host.id)
        .await
        .unwrap();
    let revoked = events(&world, host.id).await;
    let revoked = revoked
        .iter()
        .filter(|event| **event == EventKind::HostRevoked);
    assert_eq!(revoked.count(), 1);
}

#[tokio::test]
async fn a_copy_that_tries_for_days_does_not_fill_the_log() {
    let world = TestWorld::new().await;
    let host = TestHost::new(1);
    let key = HostKey::generate().unwrap();
    let form = form(&host, &key, &token(&world).await);
    let old = world.engine.join_host(&form, PEER).await.unwrap();
    let old = shown(&key, &old);
    let request = RenewRequest {
        request: key.request().unwrap(),
    };
    let new = world
        .engine
        .renew_certificate(&old, &request)
        .await
        .unwrap();
    let new = shown(&key, &new);
    assert!(world.engine.authenticate_host(&new).await.is_ok());
    for _ in 0..100 {
        assert!(world.engine.authenticate_host(&old).await.is_err());
    }
    let alarms = events(&world, host.id).await;
    let alarms = alarms
        .iter()
        .filter(|event| matches!(event, EventKind::HostRefused { .. }));
    assert!((1..=5).contains(&alarms.count()));
    assert!(world.engine.authenticate_host(&new).await.is_ok());
}

#[tokio::test]
async fn only_administrators_let_hosts_in_and_out() {
    let world = TestWorld::new().await;
    let host = TestHost::new(1);
    for staff in [None, Some(StaffRole::Auditor)] {
        let mut subject = (*world.admin.subject).clone();
        (subject.staff, subject.role) = (staff, Role::Manager);
        let cx = OpContext::new(subject);
        let form = CreateJoinToken::default();
        let refused = world.engine.create_join_token(&cx, &form).await;
        assert_eq!(refused.err().unwrap().kind, ErrorKind::Forbidden);
        let refused = world.engine.revoke_host(&cx, host.id).await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Forbidden);
    }
}
