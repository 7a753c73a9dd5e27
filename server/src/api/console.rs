//! A viewer's side of a serial console.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::time::timeout;
use vimana_engine::ConsoleEnd;
use vimana_model::session::ConsoleHello;
use vimana_model::{Error, ErrorKind};
use vimana_protocol::limits::{HELLO_TIMEOUT, READ_BUFFER_BYTES};

use super::problem::{ApiResult, Refusals};
use crate::limits;
use crate::peer::console::carry;
use crate::socket::{Close, close, send};
use crate::state::App;

/// Open a serial console
///
/// A WebSocket. The first message is text, `{"ticket": "…"}` with a ticket of
/// `POST /vms/{vm_id}/console`, within five seconds. An empty binary message
/// says that the machine's line is open; then both sides send binary messages.
/// The close frame says why it ended.
#[utoipa::path(
    get, path = "/console", tag = "vm", operation_id = "open_console",
    responses((status = 101, description = "A WebSocket"), Refusals),
    security(()),
)]
pub async fn open(
    State(app): State<App>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(|_| not_a_websocket())?;
    let permit = app.console_permit()?;
    let tasks = app.tasks.clone();
    let response = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(limits::MAX_CONSOLE_MESSAGE_BYTES)
        .max_frame_size(limits::MAX_CONSOLE_MESSAGE_BYTES)
        .on_upgrade(move |socket| {
            tasks.track_future(async move {
                view(app, socket).await;
                drop(permit);
            })
        });
    Ok(response)
}

/// For a plain request to an address that only speaks WebSocket.
pub fn not_a_websocket() -> Error {
    Error::new(ErrorKind::Malformed, "this address takes WebSockets only")
}

async fn view(app: App, socket: WebSocket) {
    let (mut writer, mut reader) = socket.split();
    let opened = tokio::select! {
        opened = redeem(&app, &mut reader) => opened,
        () = app.stopping.cancelled() => Err(Close::stopping()),
    };
    let end = match opened {
        Ok(end) => match send(&mut writer, Message::Binary(Bytes::new())).await {
            Ok(()) => carry(&app, end, &mut writer, &mut reader).await,
            Err(gone) => gone,
        },
        Err(refusal) => refusal,
    };
    close(&mut writer, end).await;
}

async fn redeem(app: &App, reader: &mut SplitStream<WebSocket>) -> Result<ConsoleEnd, Close> {
    let hello = match timeout(HELLO_TIMEOUT, reader.next()).await {
        Ok(Some(Ok(Message::Text(text)))) => text,
        Ok(Some(Ok(_))) => return Err(Close::refused("send the ticket first, as text")),
        Ok(Some(Err(_)) | None) => return Err(Close::normal("the connection is gone")),
        Err(_) => return Err(Close::refused("no ticket came within five seconds")),
    };
    let ConsoleHello { ticket } = serde_json::from_str(&hello)
        .map_err(|_| Close::refused("the first message is not {\"ticket\": \"…\"}"))?;
    let told = |error: Error| {
        if error.kind == ErrorKind::Internal {
            tracing::error!(source = ?error.source, "a console cannot be opened: {error}");
        }
        Close::refused(error.public)
    };
    let grant = app.engine.redeem_ticket(&ticket).await.map_err(told)?;
    app.engine.open_console(grant).await.map_err(told)
}
