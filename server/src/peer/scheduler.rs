//! A scheduler's control connection.

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::StreamExt;
use vimana_engine::SchedulerHandle;
use vimana_model::Error;
use vimana_protocol::limits::{MAX_FRAME_BYTES, READ_BUFFER_BYTES};
use vimana_protocol::scheduler::{FromScheduler, ToScheduler, introduction};

use super::SchedulerCaller;
use super::session::{Peer, Reader, hello, run};
use crate::api::not_a_websocket;
use crate::api::problem::{ApiError, ApiResult};
use crate::socket::{Close, Writer, close};
use crate::state::App;

pub async fn session(
    State(app): State<App>,
    _: SchedulerCaller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(|_| ApiError(not_a_websocket()))?;
    let tasks = app.tasks.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .on_upgrade(move |socket| tasks.track_future(serve(app, socket))))
}

async fn serve(app: App, socket: WebSocket) {
    let (mut writer, mut reader) = socket.split();
    let end = match talk(&app, &mut writer, &mut reader).await {
        Ok(end) | Err(end) => end,
    };
    tracing::debug!(reason = %end.reason, "a scheduler's connection ended");
    close(&mut writer, end).await;
}

async fn talk(app: &App, writer: &mut Writer, reader: &mut Reader) -> Result<Close, Close> {
    let first = hello(app, reader).await?;
    let name = introduction(&first).map_err(Close::refused)?;
    let unavailable = |error: Error| {
        tracing::error!(source = ?error.source, "a scheduler cannot be connected: {error}");
        Close::refused(error.public)
    };
    let session = app
        .engine
        .connect_scheduler(name)
        .await
        .map_err(unavailable)?;
    let (outgoing, handle) = session.split();
    Ok(run(app, writer, reader, outgoing, handle).await)
}

impl Peer for SchedulerHandle {
    type In = FromScheduler;
    type Out = ToScheduler;

    fn heartbeat() -> Option<ToScheduler> {
        Some(ToScheduler::Heartbeat)
    }

    fn name(&self) -> String {
        format!("scheduler {}", self.scheduler())
    }

    async fn receive(&self, frame: FromScheduler) {
        SchedulerHandle::receive(self, frame).await;
    }
}
