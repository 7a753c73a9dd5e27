use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

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
async fn peers_need_the_secret_of_their_own_kind() {
    let world = World::new().await;
    let token = world.token().await;
    let secrets = world.dir.path().join("data/secrets");
    let scheduler = std::fs::read_to_string(secrets.join("scheduler")).unwrap();
    let image = "/agent/v1/images/image_00000000000000000000000000000000";
    let console = "/agent/v1/console/console_00000000000000000000000000000000";
    for path in ["/agent/v1/session", image, console] {
        problem(world.get(path).send().await.unwrap(), 401).await;
        for wrong in ["", "x", token.as_str(), scheduler.trim()] {
            let answer = world.get(path).bearer_auth(wrong).send().await.unwrap();
            problem(answer, 401).await;
        }
    }
    problem(
        world.get("/scheduler/v1/session").send().await.unwrap(),
        401,
    )
    .await;
    let agent = std::fs::read_to_string(secrets.join("agent")).unwrap();
    let answer = world
        .get(image)
        .bearer_auth(agent.trim())
        .send()
        .await
        .unwrap();
    problem(answer, 404).await;
}

#[tokio::test]
async fn an_image_reaches_the_agents_whole() {
    let world = World::new().await;
    let token = world.token().await;
    let images = world
        .get("/api/v1/images")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    let images: serde_json::Value = images.json().await.unwrap();
    let id = images["items"][0]["id"].as_str().unwrap();
    let secret = std::fs::read_to_string(world.dir.path().join("data/secrets/agent")).unwrap();
    let path = format!("/agent/v1/images/{id}");
    let answer = world
        .get(&path)
        .bearer_auth(secret.trim())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-length"], "104");
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(
        bytes,
        std::fs::read(world.dir.path().join("demo.qcow2")).unwrap()
    );
}

#[tokio::test]
async fn a_scheduler_is_told_everything_first() {
    let world = World::new().await;
    let mut socket = dial(&world, "/scheduler/v1/session", Some("scheduler")).await;
    let hello = r#"{"frame":"hello","protocol":1,"name":"test"}"#;
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
    for (path, secret) in [
        ("/agent/v1/session", "agent"),
        ("/scheduler/v1/session", "scheduler"),
    ] {
        for (sent, why) in [
            (Message::text("{}"), "unreadable frame"),
            (Message::text(r#"{"frame":"heartbeat"}"#), "not a hello"),
            (Message::binary(vec![0]), "frames are text"),
        ] {
            let mut socket = dial(&world, path, Some(secret)).await;
            socket.send(sent).await.unwrap();
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
