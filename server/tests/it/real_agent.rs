//! Real agents, on simulated hosts, with the real server between sockets.

use std::time::Duration;

use vimana_model::event::EventKind;
use vimana_server::start;

use crate::machine::Machine;
use crate::watch::Watch;
use crate::world::{World, client, config};

#[tokio::test]
async fn an_agent_joins_and_needs_no_token_when_it_comes_back() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    assert_eq!(id, agent.host_id);
    agent.stop().await;
    std::fs::remove_file(machine.token_file()).unwrap();
    let agent = machine.start(&world);
    assert_eq!(watch.until_connected().await, id);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_renews_before_its_certificate_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.host_certificate_life = Duration::from_secs(10);
    let running = start(config).await.unwrap();
    let http = client();
    let world = World { running, dir, http };
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let kept = machine.data().join("certificate.json");
    let agent = machine.start(&world);
    watch.until_connected().await;
    let first = std::fs::read(&kept).unwrap();
    // The second one; the first came with joining, before the connection.
    watch
        .until(|event| *event == EventKind::HostCertified)
        .await;
    watch
        .until(|event| *event == EventKind::HostCertified)
        .await;
    agent.stop().await;
    assert_ne!(std::fs::read(&kept).unwrap(), first);
    let agent = machine.start(&world);
    watch.until_connected().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_revoked_agent_comes_back_with_a_new_token() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    assert!(watch.client.revoke_host(id).await.unwrap().revoked);
    watch
        .until(|event| *event == EventKind::HostDisconnected)
        .await;
    // It tries, and is not let in.
    let refused = |event: &EventKind| matches!(event, EventKind::HostRefused { .. });
    watch.until(refused).await;
    assert!(!watch.client.hosts().await.unwrap()[0].connected);
    machine.give_token(&world).await;
    assert_eq!(watch.until_connected().await, id);
    assert!(!watch.client.hosts().await.unwrap()[0].revoked);
    agent.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_hosts_files_is_refused_and_the_host_goes_on() {
    let world = World::new().await;
    let machine = Machine::new("host-a");
    machine.give_token(&world).await;
    let mut watch = Watch::new(&world).await;
    let agent = machine.start(&world);
    watch.until_connected().await;
    agent.stop().await;
    let copy = machine.copied();
    let agent = machine.start(&world);
    let id = watch.until_connected().await;
    let impostor = copy.start(&world);
    assert_eq!(impostor.host_id, id);
    let refused = |event: &EventKind| matches!(event, EventKind::HostRefused { .. });
    let alarm = watch.until(refused).await;
    let told = alarm.event.event.sentence();
    assert!(
        told.contains("another machine uses this host's identity"),
        "{told}"
    );
    assert!(alarm.host.unwrap().connected);
    impostor.stop().await;
    let timeline = watch.client.host_timeline(id).await.unwrap();
    let sessions = timeline
        .iter()
        .filter(|entry| entry.event == EventKind::HostConnected);
    assert_eq!(sessions.count(), 2);
    let lost = timeline
        .iter()
        .find(|entry| entry.seq > alarm.event.seq && entry.event == EventKind::HostDisconnected);
    assert_eq!(lost, None);
    agent.stop().await;
}
