//! An agent's side of a serial console, and the carrying of bytes that is
//! the same on both sides.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use vimana_engine::{ConsoleEnd, HostProof};
use vimana_model::{ConsoleId, Error};
use vimana_protocol::limits::READ_BUFFER_BYTES;

use super::session::Reader;
use super::{AgentCaller, revoked};
use crate::api::problem::{ApiError, ApiResult};
use crate::api::{Id, not_a_websocket};
use crate::limits;
use crate::socket::{Close, Writer, close, send};
use crate::state::App;

pub async fn join(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    Id(id): Id<ConsoleId>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(|_| ApiError(not_a_websocket()))?;
    let end = app
        .engine
        .join_console(id)
        .ok_or_else(|| Error::not_found(format!("console `{id}`")))?;
    let tasks = app.tasks.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(limits::MAX_CONSOLE_MESSAGE_BYTES)
        .max_frame_size(limits::MAX_CONSOLE_MESSAGE_BYTES)
        .on_upgrade(move |socket| tasks.track_future(serve(app, proof, end, socket))))
}

async fn serve(app: App, proof: HostProof, end: ConsoleEnd, socket: WebSocket) {
    let (mut writer, mut reader) = socket.split();
    let viewer = end.to_peer.clone();
    let ended = tokio::select! {
        ended = carry(&app, end, &mut writer, &mut reader) => ended,
        () = proof.revoked.cancelled() => revoked(),
    };
    if ended.is_complaint() {
        // The two connections share nothing but bytes, and the viewer should
        // know why.
        let told = Bytes::from(format!("\r\n[{}]\r\n", ended.reason));
        let _gone = timeout(limits::WRITE_TIMEOUT, viewer.send(told)).await;
    }
    drop(viewer);
    close(&mut writer, ended).await;
}

/// Carries bytes both ways until either side hangs up. The ways do not wait
/// for each other: two full ones would wait for ever.
pub async fn carry(app: &App, end: ConsoleEnd, writer: &mut Writer, reader: &mut Reader) -> Close {
    let ConsoleEnd { to_peer, from_peer } = end;
    tokio::select! {
        reason = bring(reader, to_peer) => reason,
        reason = fetch(writer, from_peer) => reason,
        () = app.stopping.cancelled() => Close::stopping(),
    }
}

async fn bring(reader: &mut Reader, to_peer: mpsc::Sender<Bytes>) -> Close {
    loop {
        match timeout(limits::CONSOLE_SILENCE, reader.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => {
                if to_peer.send(bytes).await.is_err() {
                    return hung_up();
                }
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Text(_)))) => {
                return Close::refused("after the first message only binary ones are taken");
            }
            Ok(Some(Ok(Message::Close(frame)))) => return Close::by_peer(frame),
            Ok(Some(Err(_)) | None) => return Close::normal("the connection is gone"),
            Err(_) => return Close::normal("no sign of life came in time"),
        }
    }
}

async fn fetch(writer: &mut Writer, mut from_peer: mpsc::Receiver<Bytes>) -> Close {
    loop {
        let sent = tokio::select! {
            bytes = from_peer.recv() => match bytes {
                Some(bytes) => send(writer, Message::Binary(bytes)).await,
                None => return hung_up(),
            },
            () = sleep(limits::CONSOLE_PING_EVERY) => {
                send(writer, Message::Ping(Bytes::new())).await
            }
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

fn hung_up() -> Close {
    Close::normal("the console has ended")
}
