//! JSON frames over one WebSocket, with heartbeats and bounded queues.

use std::marker::PhantomData;

use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};
use tokio_util::task::AbortOnDropHandle;

use super::Socket;
use crate::limits::{
    CLOSE_TIMEOUT, HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, MAX_FRAME_BYTES, MAX_QUEUED_FRAMES,
};

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the server closed the connection{}", .0.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Closed(Option<String>),
    #[error("the server was silent for {} s", HEARTBEAT_TIMEOUT.as_secs())]
    Silent,
    #[error("{MAX_QUEUED_FRAMES} frames wait to be written: the server reads too slowly")]
    TooSlow,
    #[error("a frame of {0} bytes is above the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    #[error("a frame cannot be read: {0}")]
    BadFrame(#[from] serde_json::Error),
    #[error("the server sent something that is not a text frame")]
    NotText,
    #[error("the connection broke: {0}")]
    Broken(#[from] Box<tungstenite::Error>),
}

/// One session: frames of type `In` come, frames of type `Out` go. Dropping it
/// cuts the connection.
pub struct Link<In, Out> {
    incoming: SplitStream<Socket>,
    outgoing: mpsc::Sender<Message>,
    writer: AbortOnDropHandle<()>,
    last_heard: Instant,
    frames: PhantomData<fn(Out) -> In>,
}

impl<In: DeserializeOwned, Out: Serialize> Link<In, Out> {
    /// Takes over an open connection; `heartbeat` is sent whenever there is
    /// nothing else to say.
    ///
    /// # Errors
    /// Where the heartbeat cannot be written as JSON.
    pub fn new(socket: Socket, heartbeat: &Out) -> Result<Self, LinkError> {
        let heartbeat = encode(heartbeat)?;
        let (sink, incoming) = socket.split();
        let (outgoing, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        Ok(Self {
            incoming,
            outgoing,
            writer: AbortOnDropHandle::new(tokio::spawn(write(sink, queue, heartbeat))),
            last_heard: Instant::now(),
            frames: PhantomData,
        })
    }

    /// The next frame. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Any error ends the session.
    pub async fn receive(&mut self) -> Result<In, LinkError> {
        loop {
            let deadline = self.last_heard + HEARTBEAT_TIMEOUT;
            let message = tokio::select! {
                biased;
                message = timeout_at(deadline, self.incoming.next()) => message,
                () = self.outgoing.closed() => return Err(LinkError::Closed(None)),
            };
            let message = message.map_err(|_| LinkError::Silent)?;
            self.last_heard = Instant::now();
            match message.transpose().map_err(Box::new)? {
                Some(Message::Text(text)) => return Ok(serde_json::from_str(&text)?),
                // Answered by the WebSocket layer itself.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Some(Message::Binary(_)) => return Err(LinkError::NotText),
                Some(Message::Close(frame)) => {
                    let reason = frame.map(|frame| frame.reason.to_string());
                    return Err(LinkError::Closed(
                        reason.filter(|reason| !reason.is_empty()),
                    ));
                }
                None => return Err(LinkError::Closed(None)),
            }
        }
    }

    /// The next frame if it is already here.
    pub fn receive_now(&mut self) -> Option<Result<In, LinkError>> {
        self.receive().now_or_never()
    }

    /// Queues a frame at once.
    ///
    /// # Errors
    /// [`LinkError::TooSlow`] where the queue is full; the caller then gives
    /// the session up and resumes by reconnecting.
    pub fn send(&self, frame: &Out) -> Result<(), LinkError> {
        self.outgoing
            .try_send(encode(frame)?)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => LinkError::TooSlow,
                mpsc::error::TrySendError::Closed(_) => LinkError::Closed(None),
            })
    }

    /// Queues a frame as soon as there is room.
    ///
    /// # Errors
    /// Where the connection ends before.
    pub async fn send_when_possible(&self, frame: &Out) -> Result<(), LinkError> {
        let message = encode(frame)?;
        self.outgoing
            .send(message)
            .await
            .map_err(|_| LinkError::Closed(None))
    }

    /// Writes what is queued and says goodbye.
    pub async fn close(self) {
        drop(self.outgoing);
        // A peer that does not take it finds out by the cut.
        let _ = timeout(CLOSE_TIMEOUT, self.writer).await;
    }
}

fn encode(frame: &impl Serialize) -> Result<Message, LinkError> {
    let text = serde_json::to_string(frame)?;
    if text.len() > MAX_FRAME_BYTES {
        return Err(LinkError::TooLarge(text.len()));
    }
    Ok(Message::Text(Utf8Bytes::from(text)))
}

/// Writes until the queue's other end is gone or the connection breaks.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Message>,
    heartbeat: Message,
) {
    loop {
        let message = match timeout(HEARTBEAT_EVERY, queue.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let _ = sink.close().await;
                return;
            }
            Err(_) => heartbeat.clone(),
        };
        match timeout(HEARTBEAT_TIMEOUT, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "writing to the server failed");
                return;
            }
            Err(_) => {
                tracing::debug!("the server takes no more frames");
                return;
            }
        }
    }
}
