//! What all WebSockets have in common.

use std::borrow::Cow;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::stream::SplitSink;
use futures::{Sink, SinkExt};
use tokio::time::timeout;

use crate::limits;

/// Why a WebSocket is closed, in words for whoever is at its other end.
#[derive(Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

impl Close {
    /// An ordinary end.
    pub fn normal(reason: &'static str) -> Self {
        Self {
            code: close_code::NORMAL,
            reason: reason.into(),
        }
    }

    /// The other end may not do this, or did it wrong.
    pub fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: close_code::POLICY,
            reason: reason.into(),
        }
    }

    /// The other end closed, and perhaps said why.
    pub fn by_peer(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) if !frame.reason.is_empty() => Self {
                code: frame.code,
                reason: frame.reason.to_string().into(),
            },
            Some(_) | None => Self::normal("the connection is gone"),
        }
    }

    /// Whether something went wrong at the other end.
    pub fn is_complaint(&self) -> bool {
        !matches!(self.code, close_code::NORMAL | close_code::AWAY)
    }

    pub fn stopping() -> Self {
        Self {
            code: close_code::AWAY,
            reason: "the server is stopping".into(),
        }
    }

    fn frame(self) -> CloseFrame {
        let mut reason = self.reason.into_owned();
        reason.truncate(reason.floor_char_boundary(limits::MAX_CLOSE_REASON_BYTES));
        CloseFrame {
            code: self.code,
            reason: reason.into(),
        }
    }
}

pub type Writer = SplitSink<WebSocket, Message>;

/// Sends one message, or gives the other end up as too slow.
pub async fn send<S>(writer: &mut S, message: Message) -> Result<(), Close>
where
    S: Sink<Message> + Unpin,
{
    match timeout(limits::WRITE_TIMEOUT, writer.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Close::normal("the connection is gone")),
        Err(_) => Err(Close::refused("too slow: messages pile up")),
    }
}

/// Says goodbye, as far as the other end still listens.
pub async fn close<S>(writer: &mut S, close: Close)
where
    S: Sink<Message> + Unpin,
{
    let _gone = timeout(limits::WRITE_TIMEOUT, async {
        let _gone = writer.send(Message::Close(Some(close.frame()))).await;
        let _gone = writer.close().await;
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_close_frame() {
        let close = Close::refused("ä".repeat(100));
        assert_eq!(close.frame().reason.len(), 122);
    }
}
