use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::agent::Agent;
use crate::fleet::{self, Socket};
use crate::world::{World, problem};

async fn dial(world: &World, path: &str, secret: Option<&str>) -> Socket {
    let data = world.dir.path().join("data");
    fleet::dial(&world.running.url(), &data, path, secret).await
}

async fn closed(socket: &mut Socket) -> CloseFrame {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    waited.await.unwrap()
}

#[tokio::test]
async fn schedulers_need_their_secret_and_agents_find_nothing_here() {
    let world = World::new().await;
    let token = world.token().await;
    let path = "/scheduler/v1/session";
    problem(world.get(path).send().await.unwrap(), 401).await;
    for wrong in ["", "x", token.as_str()] {
        let answer = world.get(path).bearer_auth(wrong).send().await.unwrap();
        problem(answer, 401).await;
    }
    let image = "/agent/v1/images/image_00000000000000000000000000000000";
    for path in ["/agent/v1/session", "/agent/v1/join", image] {
        problem(
            world.get(path).bearer_auth(&token).send().await.unwrap(),
            404,
        )
        .await;
    }
}

#[tokio::test]
async fn a_scheduler_is_told_everything_first() {
    let world = World::new().await;
    let mut socket = dial(&world, "/scheduler/v1/session", Some("scheduler")).await;
    let hello = r#"{"frame":"hello","protocol":4,"name":"test"}"#;
    socket.send(Message::text(hello)).await.unwrap();
    let first = socket.next().await.unwrap().unwrap();
    assert!(
        first.to_text().unwrap().contains(r#""frame":"snapshot""#),
        "{first}"
    );
}

#[tokio::test]
async fn a_peer_that_speaks_nonsense_learns_why_it_is_cut_off() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    for (sent, why) in [
        (Message::text("{}"), "unreadable frame"),
        (Message::text(r#"{"frame":"heartbeat"}"#), "not a hello"),
        (Message::binary(vec![0]), "frames are text"),
    ] {
        let scheduler = dial(&world, "/scheduler/v1/session", Some("scheduler")).await;
        for mut socket in [scheduler, agent.dial("/agent/v1/session").await.unwrap()] {
            socket.send(sent.clone()).await.unwrap();
            let reason = closed(&mut socket).await.reason.to_string();
            assert!(reason.contains(why), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_console_wants_a_ticket_first() {
    let world = World::new().await;
    for (sent, why) in [
        (
            Message::text(r#"{"ticket":"console_x"}"#),
            "unknown, used or expired",
        ),
        (Message::text("ticket"), "the first message is not"),
        (Message::binary(vec![0]), "send the ticket first"),
    ] {
        let mut socket = dial(&world, "/api/v1/console", None).await;
        socket.send(sent).await.unwrap();
        let frame = closed(&mut socket).await;
        assert_eq!(u16::from(frame.code), 1008);
        assert!(frame.reason.contains(why), "{}", frame.reason);
    }
}
