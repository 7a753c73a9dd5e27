//! A host and a scheduler that say yes to everything, in frames.

use std::path::Path;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use vimana_model::HostId;
use vimana_protocol::limits::HEARTBEAT_EVERY;

use crate::agent::Agent;
use crate::world::World;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

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
    let scheduler = scheduler(world).await;
    let mut host = Agent::joined(world, 1).await;
    tokio::spawn(schedule(scheduler, host.id));
    let session = host.session().await;
    serve(host, session);
}

/// A scheduler that has said hello.
pub async fn scheduler(world: &World) -> Socket {
    let mut scheduler = dial_scheduler(world).await;
    let hello = json!({ "frame": "hello", "protocol": 4, "name": "yes" });
    say(&mut scheduler, hello).await;
    scheduler
}

/// A scheduler's connection, before it says hello.
pub async fn dial_scheduler(world: &World) -> Socket {
    let base = world.running.url();
    let data = world.dir.path().join("data");
    dial(&base, &data, "/scheduler/v1/session", Some("scheduler")).await
}

/// Does all that the host is asked for, until the task is aborted.
pub fn serve(host: Agent, mut agent: Socket) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut beats = tokio::time::interval(HEARTBEAT_EVERY);
        loop {
            let frame = tokio::select! {
                frame = heard(&mut agent) => frame,
                _ = beats.tick() => {
                    say(&mut agent, json!({ "frame": "heartbeat" })).await;
                    continue;
                }
            };
            let Some(frame) = frame else {
                return;
            };
            match frame["frame"].as_str().unwrap() {
                "command" => {
                    let progress = json!({ "done_bytes": 1, "total_bytes": 2 });
                    let half = json!({
                        "frame": "progress", "command": frame["command"], "progress": progress,
                    });
                    say(&mut agent, half).await;
                    let outcome = json!({ "outcome": "ok", "note": null });
                    let done = json!({
                        "frame": "done", "command": frame["command"],
                        "claim_epoch": frame["claim_epoch"], "outcome": outcome,
                    });
                    say(&mut agent, done).await;
                }
                "open_console" => {
                    let path = format!(
                        "/agent/v1/console/{}",
                        frame["console_id"].as_str().unwrap()
                    );
                    tokio::spawn(echo(host.dial(&path).await.unwrap()));
                }
                // Heartbeats are answers here, and are not answered.
                _ => {}
            }
        }
    })
}

pub async fn schedule(mut socket: Socket, host_id: HostId) {
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
                "host_id": host_id, "explanation": explanation,
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

pub async fn say(socket: &mut Socket, frame: Value) {
    // A server that is stopping needs no answer.
    let _ = socket.send(Message::text(frame.to_string())).await;
}

pub async fn heard(socket: &mut Socket) -> Option<Value> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).ok();
        }
    }
    None
}
