//! An agent of one version and a server of another.

use serde_json::json;
use tokio::time::Instant;
use vimana_agent::limits::REFUSED_RETRY;
use vimana_driver::{FaultKind, Power};
use vimana_protocol::agent::{FromAgent, PROTOCOL_VERSIONS, ToAgent, Work};

use crate::orders::{OK, boot, command, image_of, prepare, vm};
use crate::world::{World, fault_kind};

#[tokio::test(start_paused = true)]
async fn what_an_older_agent_cannot_do_it_says_and_goes_on() {
    let mut world = World::new();
    let mut session = world.session().await;
    let known = command(vm(1), 0, Work::Kill);
    for work in [
        json!({"work": "teleport", "to": "host-b"}),
        json!({"work": "boot", "resources": {"vcpus": 1, "gpus": 2}}),
        json!({"work": "prepare"}),
    ] {
        let mut frame = serde_json::to_value(ToAgent::Command(known.clone())).unwrap();
        frame["work"] = work;
        frame["priority"] = json!("high");
        session.send_text(frame.to_string()).await;
        let (done, claim_epoch, outcome) = session.done().await;
        assert_eq!((done, claim_epoch), (known.command, known.claim_epoch));
        assert_eq!(fault_kind(&outcome), Some(FaultKind::Unsupported));
    }
    // Nothing of it is remembered: the agent may be a newer one next time.
    assert_eq!(session.carry_out(&known).await, OK);
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_later_version_are_passed_over() {
    let mut world = World::new();
    let mut session = world.session().await;
    for text in [
        r#"{"frame":"migrate","to":"host-b"}"#,
        r#"{"frame":"discard","vm_id":{"uuid":1}}"#,
        r#"{"frame":"heartbeat","mood":"fine"}"#,
        r#"{"frame":"command"}"#,
        "[]",
    ] {
        session.send_text(text.to_owned()).await;
    }
    let order = command(vm(1), 0, Work::Kill);
    assert_eq!(session.carry_out(&order).await, OK);
}

#[tokio::test(start_paused = true)]
async fn versions_are_negotiated() {
    let mut world = World::new();
    let (mut session, hello) = world.hello().await;
    assert_eq!(hello.protocol, PROTOCOL_VERSIONS);
    // A server that speaks what the agent does not: no session, no panic, and
    // patience, for somebody has to do something.
    session
        .send(ToAgent::Welcome {
            protocol: PROTOCOL_VERSIONS.max + 1,
            session_number: 1,
            lease_ms: None,
        })
        .await;
    assert_eq!(session.next().await, None);
    let since = Instant::now();
    let (mut session, hello) = world.hello().await;
    assert!(since.elapsed() >= REFUSED_RETRY);
    assert_eq!(hello.session_number, 0);
    session
        .send(ToAgent::Refused {
            reason: "too old".to_owned(),
        })
        .await;
    let since = Instant::now();
    let (mut session, _) = world.hello().await;
    assert!(since.elapsed() >= REFUSED_RETRY);
    session.welcome(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_no_server_understands_keeps_its_machines_and_asks_now_and_then() {
    let mut world = World::new();
    let mut session = world.session().await;
    let image = image_of(b"content");
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &image)).await, OK);
    assert_eq!(session.carry_out(&boot(vm(1), 1)).await, OK);
    drop(session);
    // The server was changed for another version meanwhile.
    let refused = r#"{"frame":"refused","reason":"too old","since":"noon"}"#;
    let other_welcome = r#"{"frame":"welcome","protocol":9,"session":{"number":5}}"#;
    for answer in [refused, other_welcome, refused, other_welcome] {
        let (mut session, hello) = world.hello().await;
        assert_eq!(hello.inventory, world.host.observed());
        session.send_text(answer.to_owned()).await;
        let since = Instant::now();
        assert_eq!(session.next().await, None);
        let (_, hello) = world.hello().await;
        let waited = since.elapsed();
        assert!(
            waited >= REFUSED_RETRY && waited <= REFUSED_RETRY * 2,
            "{answer}: {waited:?}"
        );
        // The session that was offered never began.
        assert_eq!(hello.session_number, 1);
        assert_eq!(world.host.power(vm(1)), Some(Power::Running));
    }
    world.session().await;
    assert_eq!(world.host.power(vm(1)), Some(Power::Running));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_at_all_ends_the_session() {
    let mut world = World::new();
    let mut session = world.session().await;
    session
        .send_text("HTTP/1.1 400 Bad Request".to_owned())
        .await;
    while let Some(frame) = session.next().await {
        assert!(!matches!(frame, FromAgent::Hello(_)));
    }
    world.session().await;
}
