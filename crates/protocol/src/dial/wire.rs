//! What carries a session's frames: a WebSocket, or memory.

use std::pin::Pin;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::sync::PollSender;

use super::{DialError, LinkError, Server, Socket};
use crate::limits::MAX_FRAME_BYTES;

/// Opens connections that carry a session.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A new connection to the session at `path`.
    ///
    /// # Errors
    /// Where there is none in good time.
    async fn dial(&self, path: &str) -> Result<Wire, DialError>;
}

#[async_trait]
impl Dial for Server {
    async fn dial(&self, path: &str) -> Result<Wire, DialError> {
        Ok(self.open(path, MAX_FRAME_BYTES).await?.into())
    }
}

/// Carries text both ways and in order, until either end goes. Dropping it
/// cuts the connection.
pub struct Wire {
    pub(super) incoming: BoxStream<'static, Result<Heard, LinkError>>,
    pub(super) outgoing: Outgoing,
}

pub(super) type Outgoing = Pin<Box<dyn Sink<Utf8Bytes, Error = LinkError> + Send>>;

/// What comes in.
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// Nothing to read, but the other end lives.
    Life,
}

/// The far end of a [`Wire`] in memory: what is sent at one end is received at
/// the other. Dropping both halves cuts the connection; between them and the
/// wire anything may be delayed, lost or cut by whoever holds them.
#[derive(Debug)]
pub struct FarEnd {
    pub sender: mpsc::Sender<String>,
    pub receiver: mpsc::Receiver<String>,
}

impl Wire {
    /// A wire that is only memory; each way holds up to `capacity` frames.
    #[must_use]
    pub fn in_memory(capacity: usize) -> (Self, FarEnd) {
        let (to_far, receiver) = mpsc::channel(capacity);
        let (sender, mut from_far) = mpsc::channel::<String>(capacity);
        let incoming = futures::stream::poll_fn(move |cx| from_far.poll_recv(cx));
        let outgoing = PollSender::new(to_far)
            .sink_map_err(|_| LinkError::Closed(None))
            .with(async |text: Utf8Bytes| Ok(text.to_string()));
        let wire = Self {
            incoming: incoming.map(|text| Ok(Heard::Text(text.into()))).boxed(),
            outgoing: Box::pin(outgoing),
        };
        (wire, FarEnd { sender, receiver })
    }
}

impl From<Socket> for Wire {
    fn from(socket: Socket) -> Self {
        let (sink, incoming) = socket.split();
        let incoming = incoming
            .map_err(|error| LinkError::Broken(Box::new(error)))
            .and_then(async |message| heard(message));
        let outgoing = sink
            .sink_map_err(|error| LinkError::Broken(Box::new(error)))
            .with(async |text| Ok(Message::Text(text)));
        Self {
            incoming: incoming.boxed(),
            outgoing: Box::pin(outgoing),
        }
    }
}

fn heard(message: Message) -> Result<Heard, LinkError> {
    match message {
        Message::Text(text) => Ok(Heard::Text(text)),
        // Answered by the WebSocket layer itself.
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(Heard::Life),
        Message::Binary(_) => Err(LinkError::NotText),
        Message::Close(frame) => {
            let reason = frame.map(|frame| frame.reason.to_string());
            Err(LinkError::Closed(
                reason.filter(|reason| !reason.is_empty()),
            ))
        }
    }
}
