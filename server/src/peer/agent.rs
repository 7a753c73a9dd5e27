//! An agent's control connection.

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::StreamExt;
use vimana_engine::{AgentHandle, AgentSession, HostProof};
use vimana_protocol::agent::{FromAgent, Hello, ToAgent};
use vimana_protocol::limits::{MAX_FRAME_BYTES, READ_BUFFER_BYTES};

use super::session::{Peer, Reader, hello, run, say};
use super::{AgentCaller, revoked};
use crate::api::not_a_websocket;
use crate::api::problem::{ApiError, ApiResult};
use crate::socket::{Close, Writer, close};
use crate::state::App;

pub async fn session(
    State(app): State<App>,
    AgentCaller(proof): AgentCaller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(|_| ApiError(not_a_websocket()))?;
    let tasks = app.tasks.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .on_upgrade(move |socket| tasks.track_future(serve(app, proof, socket))))
}

async fn serve(app: App, proof: HostProof, socket: WebSocket) {
    let (mut writer, mut reader) = socket.split();
    let end = tokio::select! {
        end = talk(&app, &proof, &mut writer, &mut reader) => end,
        () = proof.revoked.cancelled() => revoked(),
    };
    tracing::debug!(reason = %end.reason, "an agent's connection ended");
    close(&mut writer, end).await;
}

async fn talk(app: &App, proof: &HostProof, writer: &mut Writer, reader: &mut Reader) -> Close {
    // Boxed, to take no room in the task of every host for as long as the
    // session lasts.
    let opened = Box::pin(open(app, proof, writer, reader)).await;
    match opened {
        Ok(session) => {
            let (outgoing, handle) = session.split();
            run(app, writer, reader, outgoing, handle).await
        }
        Err(end) => end,
    }
}

/// From the hello to the session, or to the reason why there is none.
async fn open(
    app: &App,
    proof: &HostProof,
    writer: &mut Writer,
    reader: &mut Reader,
) -> Result<AgentSession, Close> {
    let first = hello(app, reader).await?;
    let hello = match Hello::read(&first) {
        Ok(hello) if hello.host_id == proof.host_id => hello,
        Ok(_) => {
            let reason = "the hello is not that of the certificate's host".to_owned();
            return Err(refuse(app, proof, writer, reason).await);
        }
        Err(reason) => return Err(refuse(app, proof, writer, reason).await),
    };
    // To its end, even when the host is revoked meanwhile: a session that is
    // recorded has to be dropped to be recorded as over.
    let engine = app.engine.clone();
    let connected = app
        .detached(async move { Ok(engine.connect_agent(hello).await) })
        .await;
    match connected.unwrap_or_else(|error| Err(error.public)) {
        Ok(session) => Ok(session),
        Err(reason) => Err(turn_away(writer, reason).await),
    }
}

/// Refuses an agent that says what nothing can be done with.
async fn refuse(app: &App, proof: &HostProof, writer: &mut Writer, reason: String) -> Close {
    app.engine.refuse_agent(proof.host_id, &reason).await;
    turn_away(writer, reason).await
}

/// In a frame of its own, so that the agent takes it for more than a lost
/// connection, and its time.
async fn turn_away(writer: &mut Writer, reason: String) -> Close {
    tracing::warn!(reason, "an agent was refused");
    let refused = ToAgent::Refused {
        reason: reason.clone(),
    };
    match say(writer, &refused).await {
        Ok(()) => Close::refused(reason),
        Err(end) => end,
    }
}

impl Peer for AgentHandle {
    type In = FromAgent;
    type Out = ToAgent;

    fn heartbeat() -> Option<ToAgent> {
        // The engine answers each of the agent's, and one that answers none
        // would be taken for an answer.
        None
    }

    fn name(&self) -> String {
        self.host_id().to_string()
    }

    async fn receive(&self, frame: FromAgent) {
        AgentHandle::receive(self, frame);
    }
}
