//! The control connection of a peer: JSON text frames both ways, and a
//! heartbeat when there is nothing to say.

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures::StreamExt;
use futures::stream::SplitStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use vimana_protocol::frame::{Unreadable, read};
use vimana_protocol::limits::{HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, HELLO_TIMEOUT};

use crate::socket::{Close, Writer, send};
use crate::state::App;

pub type Reader = SplitStream<WebSocket>;

/// The first frame of a new connection.
pub async fn hello(app: &App, reader: &mut Reader) -> Result<Utf8Bytes, Close> {
    tokio::select! {
        text = timeout(HELLO_TIMEOUT, next(reader)) => {
            text.unwrap_or_else(|_| Err(Close::refused("no hello came in time")))
        }
        () = app.stopping.cancelled() => Err(Close::stopping()),
    }
}

/// The engine's half of a peer's session.
pub trait Peer: Sync {
    type In: DeserializeOwned + Send;
    type Out: Serialize + Send + Sync;

    /// What to say when there is nothing to say; `None` where the other end
    /// is answered often enough.
    fn heartbeat() -> Option<Self::Out>;

    /// For the log.
    fn name(&self) -> String;

    fn receive(&self, frame: Self::In) -> impl Future<Output = ()> + Send;
}

/// Carries frames until either side ends it, or falls silent. A frame that is
/// not understood is passed over: ending the session for it would bring it up
/// again in the next one, and in all that follow.
pub async fn run<P: Peer>(
    app: &App,
    writer: &mut Writer,
    reader: &mut Reader,
    outgoing: mpsc::Receiver<P::Out>,
    peer: P,
) -> Close {
    let incoming = async {
        let mut strange: u64 = 0;
        loop {
            let text = match timeout(HEARTBEAT_TIMEOUT, next(reader)).await {
                Ok(Ok(text)) => text,
                Ok(Err(end)) => break end,
                Err(_) => break Close::refused("no heartbeat came in time"),
            };
            match read(&text) {
                Ok(frame) => peer.receive(frame).await,
                Err(noise @ Unreadable::Noise(_)) => break Close::refused(noise.to_string()),
                Err(Unreadable::Strange(why)) => {
                    strange = strange.saturating_add(1);
                    // Whoever sends many of them does not fill the log.
                    if strange.is_power_of_two() {
                        tracing::warn!(
                            peer = peer.name(),
                            strange,
                            why,
                            "a frame is not understood"
                        );
                    }
                }
            }
        }
    };
    tokio::select! {
        end = incoming => end,
        end = tell(writer, outgoing, P::heartbeat()) => end,
        () = app.stopping.cancelled() => Close::stopping(),
    }
}

async fn tell<Out: Serialize>(
    writer: &mut Writer,
    mut outgoing: mpsc::Receiver<Out>,
    heartbeat: Option<Out>,
) -> Close {
    loop {
        let sent = tokio::select! {
            frame = outgoing.recv() => match frame {
                Some(frame) => say(writer, &frame).await,
                None => Err(Close::normal("the session is over; connect again")),
            },
            () = sleep(HEARTBEAT_EVERY) => match &heartbeat {
                Some(heartbeat) => say(writer, heartbeat).await,
                None => Ok(()),
            },
        };
        if let Err(end) = sent {
            return end;
        }
    }
}

/// Sends one frame.
pub async fn say<Out: Serialize>(writer: &mut Writer, frame: &Out) -> Result<(), Close> {
    let text = serde_json::to_string(frame).map_err(|error| {
        tracing::error!(%error, "a frame cannot be written");
        Close::normal("the session is over; connect again")
    })?;
    send(writer, Message::text(text)).await
}

/// The text of the next frame.
async fn next(reader: &mut Reader) -> Result<Utf8Bytes, Close> {
    while let Some(message) = reader.next().await {
        match message {
            Ok(Message::Text(text)) => return Ok(text),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Binary(_)) => return Err(Close::refused("frames are text")),
            Ok(Message::Close(_)) | Err(_) => break,
        }
    }
    Err(Close::normal("the connection is gone"))
}
