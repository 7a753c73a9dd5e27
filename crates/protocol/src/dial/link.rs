//! JSON frames over one wire, with heartbeats and bounded queues.

use std::marker::PhantomData;

use futures::stream::BoxStream;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{Heard, Outgoing, Wire};
use crate::frame::{self, Unreadable};
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
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("a frame cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    #[error("the server sent something that is not a text frame")]
    NotText,
    #[error("the connection broke: {0}")]
    Broken(#[from] Box<tungstenite::Error>),
}

/// One session: frames of type `In` come, frames of type `Out` go. Dropping it
/// cuts the connection.
pub struct Link<In, Out> {
    incoming: BoxStream<'static, Result<Heard, LinkError>>,
    outgoing: mpsc::Sender<Utf8Bytes>,
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
    pub fn new(wire: impl Into<Wire>, heartbeat: &Out) -> Result<Self, LinkError> {
        Ok(Self::over(wire.into(), Some(encode(heartbeat)?)))
    }

    /// Takes over an open connection, and leaves it to the caller to send
    /// heartbeats.
    pub fn without_heartbeat(wire: impl Into<Wire>) -> Self {
        Self::over(wire.into(), None)
    }

    fn over(wire: Wire, heartbeat: Option<Utf8Bytes>) -> Self {
        let (outgoing, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        let writer = tokio::spawn(write(wire.outgoing, queue, heartbeat));
        Self {
            incoming: wire.incoming,
            outgoing,
            writer: AbortOnDropHandle::new(writer),
            last_heard: Instant::now(),
            frames: PhantomData,
        }
    }

    /// The next frame. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Any error ends the session.
    pub async fn receive(&mut self) -> Result<In, LinkError> {
        let text = self.receive_text().await?;
        Ok(frame::read(&text)?)
    }

    /// The next frame as it came, for who can do with a part of it. Nothing
    /// is lost when the future is dropped.
    ///
    /// # Errors
    /// Any error ends the session.
    pub async fn receive_text(&mut self) -> Result<Utf8Bytes, LinkError> {
        loop {
            let deadline = self.last_heard + HEARTBEAT_TIMEOUT;
            let heard = tokio::select! {
                biased;
                heard = timeout_at(deadline, self.incoming.next()) => heard,
                () = self.outgoing.closed() => return Err(LinkError::Closed(None)),
            };
            let heard = heard.map_err(|_| LinkError::Silent)?;
            self.last_heard = Instant::now();
            match heard.transpose()? {
                Some(Heard::Text(text)) if text.len() > MAX_FRAME_BYTES => {
                    return Err(LinkError::TooLarge(text.len()));
                }
                Some(Heard::Text(text)) => return Ok(text),
                Some(Heard::Life) => {}
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

    /// Waits until the queue has room for a frame, or the connection is gone.
    /// The link can be used meanwhile.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<In, Out> {
        let outgoing = self.outgoing.clone();
        async move {
            // Whatever it says: who sends learns it, too.
            let _ = outgoing.reserve().await;
        }
    }

    /// Queues a frame as soon as there is room.
    ///
    /// # Errors
    /// Where the connection ends before.
    pub async fn send_when_possible(&mut self, frame: &Out) -> Result<(), LinkError> {
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

fn encode(frame: &impl Serialize) -> Result<Utf8Bytes, LinkError> {
    let text = serde_json::to_string(frame)?;
    if text.len() > MAX_FRAME_BYTES {
        return Err(LinkError::TooLarge(text.len()));
    }
    Ok(Utf8Bytes::from(text))
}

/// Writes until the queue's other end is gone or the connection breaks.
async fn write(
    mut sink: Outgoing,
    mut queue: mpsc::Receiver<Utf8Bytes>,
    heartbeat: Option<Utf8Bytes>,
) {
    loop {
        let next = match &heartbeat {
            Some(heartbeat) => timeout(HEARTBEAT_EVERY, queue.recv())
                .await
                .unwrap_or_else(|_| Some(heartbeat.clone())),
            None => queue.recv().await,
        };
        let Some(text) = next else {
            let _ = sink.close().await;
            return;
        };
        match timeout(HEARTBEAT_TIMEOUT, sink.send(text)).await {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dial::FarEnd;

    type TestLink = Link<Value, Value>;

    fn link() -> (TestLink, FarEnd) {
        let (wire, far) = Wire::in_memory(4);
        (TestLink::without_heartbeat(wire), far)
    }

    #[tokio::test]
    async fn frames_go_both_ways_over_a_wire_in_memory() {
        let (mut link, mut far) = link();
        link.send(&json!({"a": 1})).unwrap();
        assert_eq!(far.receiver.recv().await.unwrap(), r#"{"a":1}"#);
        far.sender.send(r#"{"b":2}"#.to_owned()).await.unwrap();
        assert_eq!(link.receive().await.unwrap(), json!({"b": 2}));
        link.close().await;
        assert_eq!(far.receiver.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_sent_where_nothing_else_is() {
        let (wire, mut far) = Wire::in_memory(4);
        let link = TestLink::new(wire, &json!("alive")).unwrap();
        link.send(&json!("news")).unwrap();
        let started = Instant::now();
        assert_eq!(far.receiver.recv().await.unwrap(), r#""news""#);
        assert_eq!(far.receiver.recv().await.unwrap(), r#""alive""#);
        assert_eq!(started.elapsed(), HEARTBEAT_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_link() {
        let (mut link, far) = link();
        let error = link.receive().await.unwrap_err();
        assert!(matches!(error, LinkError::Silent), "{error}");
        drop(far);
    }

    #[tokio::test]
    async fn a_cut_ends_a_link_at_either_end() {
        let (mut near, far) = link();
        drop(far);
        let error = near.receive().await.unwrap_err();
        assert!(matches!(error, LinkError::Closed(None)), "{error}");
        let (near, mut far) = link();
        drop(near);
        assert_eq!(far.receiver.recv().await, None);
    }

    #[tokio::test]
    async fn a_far_end_that_does_not_read_is_told_apart_from_one_that_is_gone() {
        let (link, far) = link();
        let error = loop {
            if let Err(error) = link.send(&json!(0)) {
                break error;
            }
        };
        assert!(matches!(error, LinkError::TooSlow), "{error}");
        drop(far);
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_is_refused_at_both_ends() {
        let (mut link, far) = link();
        let large = "x".repeat(MAX_FRAME_BYTES);
        let error = link.send(&json!(large)).unwrap_err();
        assert!(matches!(error, LinkError::TooLarge(_)), "{error}");
        far.sender.send(format!("{large}x")).await.unwrap();
        let error = link.receive().await.unwrap_err();
        assert!(matches!(error, LinkError::TooLarge(_)), "{error}");
    }
}
