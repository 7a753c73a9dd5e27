//! The event stream, opened again whenever it breaks.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde::Deserialize;
use vimana_model::event::{ProgressItem, StreamItem};
use vimana_model::{Error, ErrorKind, Result};

use crate::sse::{Frame, Parser};
use crate::{Client, limits};

/// What the stream says.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The stream is open, for the first time or again. What happens from
    /// now on will be told; before the first item it is not known whether
    /// something was missed, so look again.
    Connected,
    Item(Box<StreamItem>),
    /// How far an operation is; nothing is lost where it is missed.
    Progress(Box<ProgressItem>),
    /// Too much was missed to be told one by one: load everything again, the
    /// stream goes on after `seq`.
    Reset {
        seq: u64,
    },
}

#[derive(Deserialize)]
struct Reset {
    seq: u64,
}

impl Client {
    /// Events after the one numbered `after`, or from now on. The stream is
    /// opened again by itself and resumes where it broke off; it ends with an
    /// error only when the server refuses it, such as when the token is spent.
    pub fn events(&self, after: Option<u64>) -> impl Stream<Item = Result<Notice>> + Send + use<> {
        let follower = Follower {
            client: self.clone(),
            last_seq: after,
            open: None,
            ready: Vec::new(),
            pause: Duration::ZERO,
        };
        futures::stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(notice) => Some((Ok(notice), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

struct Open {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
}

struct Follower {
    client: Client,
    last_seq: Option<u64>,
    open: Option<Open>,
    /// Read and not yet handed out, newest first.
    ready: Vec<Frame>,
    /// How long to wait before the next attempt.
    pause: Duration,
}

impl Follower {
    async fn next(&mut self) -> Result<Notice> {
        loop {
            while let Some(frame) = self.ready.pop() {
                if let Some(notice) = self.notice(frame)? {
                    return Ok(notice);
                }
            }
            match &mut self.open {
                None => {
                    if self.connect().await? {
                        return Ok(Notice::Connected);
                    }
                }
                Some(open) => match open.chunks.next().await {
                    Some(Ok(chunk)) => match open.parser.feed(&chunk) {
                        Ok(mut frames) => {
                            frames.reverse();
                            self.ready = frames;
                        }
                        Err(_) => return Err(self.client.broken("an event is too long")),
                    },
                    Some(Err(_)) | None => self.open = None,
                },
            }
        }
    }

    /// Tries once; false when it is worth another try.
    async fn connect(&mut self) -> Result<bool> {
        if !self.pause.is_zero() {
            // Many clients lose one server at the same moment.
            tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
        }
        self.pause = (self.pause * 2).clamp(limits::FIRST_RETRY_PAUSE, limits::LAST_RETRY_PAUSE);
        let mut request = self.client.prepare(Method::GET, "/api/v1/events")?;
        if let Some(seq) = self.last_seq {
            request = request.header("last-event-id", seq);
        }
        match self.client.answer(request).await {
            Ok(response) => {
                self.open = Some(Open {
                    chunks: response.bytes_stream().boxed(),
                    parser: Parser::default(),
                });
                Ok(true)
            }
            Err(error) if error.kind == ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn notice(&mut self, frame: Frame) -> Result<Option<Notice>> {
        let broken = |error: serde_json::Error| -> Error {
            self.client
                .broken("an event is not what was expected")
                .with_source(error)
        };
        let notice = match frame.event.as_str() {
            "item" => {
                let item: StreamItem = serde_json::from_str(&frame.data).map_err(broken)?;
                self.last_seq = Some(item.event.seq);
                Notice::Item(Box::new(item))
            }
            "progress" => {
                let item: ProgressItem = serde_json::from_str(&frame.data).map_err(broken)?;
                Notice::Progress(Box::new(item))
            }
            "reset" => {
                let Reset { seq } = serde_json::from_str(&frame.data).map_err(broken)?;
                self.last_seq = Some(seq);
                Notice::Reset { seq }
            }
            // A later server may say more.
            _ => return Ok(None),
        };
        self.pause = Duration::ZERO;
        Ok(Some(notice))
    }
}
