//! A host and a scheduler that say yes to everything, in frames.

use std::path::Path;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::world::World;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const HOST: &str = "host_00000000000000000000000000000001";

/// Dials `path`; with the secret of that name, if one is given.
pub async fn dial(base: &str, data: &Path, path: &str, secret: Option<&str>) -> Socket {
    let url = format!("{base}{path}").replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    if let Some(name) = secret {
        let secret = std::fs::read_to_string(data.join("secrets").join(name)).unwrap();
        let value = format!("Bearer {}", secret.trim()).parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    connect_async(request).await.unwrap().0
}

/// Both of them, at work until the test ends.
pub async fn join(world: &World) {
    let base = world.running.url();
    let data = world.dir.path().join("data");
    let mut scheduler = dial(&base, &data, "/scheduler/v1/session", Some("scheduler")).await;
    say(
        &mut scheduler,
        json!({ "frame": "hello", "protocol": 1, "name": "yes" }),
    )
    .await;
    tokio::spawn(schedule(scheduler));
    let mut agent = dial(&base, &data, "/agent/v1/session", Some("agent")).await;
    let room = json!({ "vcpus": 4, "memory_mib": 4096, "disk_mib": 40_960 });
    let hello = json!({
        "frame": "hello", "protocol": 1, "agent_version": "0", "host_id": HOST, "name": "host-a",
        "zone": "default", "capacity": room, "inventory": [],
        "capabilities": { "hypervisor": "none", "accelerator": "simulated", "accelerator_note": "" },
    });
    say(&mut agent, hello).await;
    let welcome = heard(&mut agent).await.unwrap();
    assert_eq!(welcome["frame"], "welcome");
    tokio::spawn(async move {
        while let Some(frame) = heard(&mut agent).await {
            match frame["frame"].as_str().unwrap() {
                "command" => {
                    let outcome = json!({ "outcome": "ok", "note": null });
                    let done = json!({
                        "frame": "done", "command": frame["command"], "outcome": outcome,
                    });
                    say(&mut agent, done).await;
                }
                "open_console" => {
                    let path = format!(
                        "/agent/v1/console/{}",
                        frame["console_id"].as_str().unwrap()
                    );
                    tokio::spawn(echo(dial(&base, &data, &path, Some("agent")).await));
                }
                _ => say(&mut agent, json!({ "frame": "heartbeat" })).await,
            }
        }
    });
}

async fn schedule(mut socket: Socket) {
    while let Some(frame) = heard(&mut socket).await {
        let pending = match frame["frame"].as_str().unwrap() {
            "pending" => vec![frame.clone()],
            "snapshot" => frame["pending"].as_array().unwrap().clone(),
            _ => Vec::new(),
        };
        for vm in pending {
            let explanation = json!({ "considered": 1, "rejections": [], "scores": [] });
            let proposal = json!({
                "frame": "proposal", "vm_id": vm["id"], "generation": vm["generation"],
                "host_id": HOST, "explanation": explanation,
            });
            say(&mut socket, proposal).await;
        }
        say(&mut socket, json!({ "frame": "heartbeat" })).await;
    }
}

/// A serial line that echoes, and breaks at the word `break`.
async fn echo(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else {
            continue;
        };
        if bytes == "break" {
            let frame = CloseFrame {
                code: 1011.into(),
                reason: "the machine's serial line broke".into(),
            };
            let _ = socket.close(Some(frame)).await;
            return;
        }
        let _ = socket.send(Message::Binary(bytes)).await;
    }
}

async fn say(socket: &mut Socket, frame: Value) {
    // A server that is stopping needs no answer.
    let _ = socket.send(Message::text(frame.to_string())).await;
}

async fn heard(socket: &mut Socket) -> Option<Value> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).ok();
        }
    }
    None
}
