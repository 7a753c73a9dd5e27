//! The control connection of a peer: JSON text frames both ways, and a
//! heartbeat when there is nothing to say.

use axum::extract::ws::{Message, WebSocket};
use futures::StreamExt;
use futures::stream::SplitStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use vimana_protocol::limits::{HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, HELLO_TIMEOUT};

use crate::limits;
use crate::socket::{Close, Writer, send};
use crate::state::App;

pub type Reader = SplitStream<WebSocket>;

/// The first frame of a new connection.
pub async fn hello<T: DeserializeOwned>(app: &App, reader: &mut Reader) -> Result<T, Close> {
    tokio::select! {
        frame = timeout(HELLO_TIMEOUT, frame(reader)) => {
            frame.unwrap_or_else(|_| Err(Close::refused("no hello came in time")))
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

    fn receive(&self, frame: Self::In) -> impl Future<Output = ()> + Send;
}

/// Carries frames until either side ends it, or falls silent.
pub async fn run<P: Peer>(
    app: &App,
    writer: &mut Writer,
    reader: &mut Reader,
    outgoing: mpsc::Receiver<P::Out>,
    peer: P,
) -> Close {
    let incoming = async {
        loop {
            match timeout(HEARTBEAT_TIMEOUT, frame(reader)).await {
                Ok(Ok(frame)) => peer.receive(frame).await,
                Ok(Err(end)) => break end,
                Err(_) => break Close::refused("no heartbeat came in time"),
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

async fn frame<T: DeserializeOwned>(reader: &mut Reader) -> Result<T, Close> {
    while let Some(message) = reader.next().await {
        match message {
            Ok(Message::Text(text)) => {
                return serde_json::from_str(&text).map_err(|error| {
                    let why: String = error
                        .to_string()
                        .chars()
                        .take(limits::MAX_COMPLAINT_CHARS)
                        .collect();
                    Close::refused(format!("unreadable frame: {why}"))
                });
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Binary(_)) => return Err(Close::refused("frames are text")),
            Ok(Message::Close(_)) | Err(_) => break,
        }
    }
    Err(Close::normal("the connection is gone"))
}
