use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use tokio::time::timeout;
use vimana_client::{Client, Notice};
use vimana_model::event::ProgressItem;

use crate::fleet;
use crate::world::{World, problem};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_seen() {
    let world = World::new().await;
    let token = world.token().await;
    let (_, first) = world.held_vm(&token, "one").await;
    let (id, _) = world.held_vm(&token, "two").await;
    // The header wins over the parameter.
    let request = world.get("/api/v1/events?after=0").bearer_auth(&token);
    let answer = request.header("last-event-id", first).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut chunks = answer.bytes_stream();
    while !text.contains("data:") || !text.ends_with("\n\n") {
        let chunk = timeout(SOON, chunks.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let expected = format!(": connected\n\nid: {}\nevent: item\ndata: {{", first + 1);
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains(&id), "{text}");
}

#[tokio::test]
async fn the_client_follows_what_happens() {
    let world = World::new().await;
    let token = world.token().await;
    let client = Client::new(world.running.url().parse().unwrap(), None).unwrap();
    let mut notices = client.with_token(&token).events(None).boxed();
    let mut next = async || {
        timeout(SOON, notices.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert_eq!(next().await, Notice::Connected);
    let (id, newest) = world.held_vm(&token, "seen").await;
    loop {
        let Notice::Item(item) = next().await else {
            panic!("an item is missing")
        };
        assert_eq!(item.vm.as_ref().unwrap().id.to_string(), id);
        if item.event.seq == newest {
            break;
        }
    }
}

#[tokio::test]
async fn progress_is_told_beside_the_sequence() {
    let world = World::new().await;
    fleet::join(&world).await;
    let token = world.token().await;
    let follow = world.get("/api/v1/events").bearer_auth(&token);
    let mut chunks = follow.send().await.unwrap().bytes_stream();
    let form = json!({ "name": "seen", "image": "demo", "flavor": "tiny" });
    let asked = world.post("/api/v1/vms").bearer_auth(&token).json(&form);
    assert_eq!(asked.send().await.unwrap().status(), 202);
    let mut text = String::new();
    let frame = loop {
        let chunk = timeout(SOON, chunks.next()).await.unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        let mut frames = text.split_inclusive("\n\n");
        let progress = frames.find(|frame| {
            frame.ends_with("\n\n") && frame.lines().any(|line| line == "event: progress")
        });
        if let Some(frame) = progress {
            break frame.to_owned();
        }
    };
    // A reader that comes back is to name the last event, not this.
    assert!(
        !frame.lines().any(|line| line.starts_with("id:")),
        "{frame}"
    );
    let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
    let item: ProgressItem = serde_json::from_str(data.unwrap()).unwrap();
    assert_eq!(item.operation.progress.unwrap().done_bytes, 1);
}

#[tokio::test]
async fn a_last_event_id_that_is_no_number_is_refused() {
    let world = World::new().await;
    let token = world.token().await;
    let request = world.get("/api/v1/events").bearer_auth(&token);
    let answer = request.header("last-event-id", "x").send().await.unwrap();
    problem(answer, 400).await;
}
