//! One serial line, many viewers: what drivers build [`crate::HostDriver::serial`] from.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{SinkExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

use crate::SerialStream;

/// Bytes of recent output a late viewer gets, and a slow one may lag behind.
pub const SERIAL_RECENT_BYTES: usize = 64 * 1024;
/// Chunks of typed input that may wait for the guest; then viewers wait.
const INPUT_CHUNKS: usize = 16;

/// Fans a machine's output out to its viewers and gathers what they type.
///
/// Output never waits and is kept once, however many look: a viewer that lags
/// behind the recent output skips what is gone.
pub struct SerialHub {
    line: Mutex<Line>,
    grown: watch::Sender<()>,
    typed: mpsc::Sender<Bytes>,
}

#[derive(Default)]
struct Line {
    recent: VecDeque<u8>,
    /// Bytes ever written; `recent` holds the last of them.
    written: u64,
    closed: bool,
}

/// How far a viewer has read.
struct Viewer {
    hub: Arc<SerialHub>,
    grown: watch::Receiver<()>,
    read: u64,
}

impl SerialHub {
    /// The hub, and where what viewers type comes out.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (typed, keys) = mpsc::channel(INPUT_CHUNKS);
        let hub = Self {
            line: Mutex::default(),
            grown: watch::Sender::new(()),
            typed,
        };
        (Arc::new(hub), keys)
    }

    /// Takes what the guest wrote.
    pub fn output(&self, bytes: &[u8]) {
        {
            let mut line = self.line();
            line.recent.extend(bytes);
            line.written = line.written.saturating_add(bytes.len() as u64);
            let surplus = line.recent.len().saturating_sub(SERIAL_RECENT_BYTES);
            line.recent.drain(..surplus);
        }
        self.grown.send_replace(());
    }

    /// The machine is gone: viewers read what is left and then the end.
    pub fn close(&self) {
        self.line().closed = true;
        self.grown.send_replace(());
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.line().closed
    }

    /// A new viewer: recent output first, then what comes. On a closed line
    /// recent output and the end.
    #[must_use]
    pub fn attach(self: &Arc<Self>) -> Box<dyn SerialStream> {
        let viewer = Viewer {
            hub: Arc::clone(self),
            grown: self.grown.subscribe(),
            read: 0,
        };
        let chunks = stream::unfold(viewer, |mut viewer| async {
            let chunk = viewer.next().await?;
            Some((io::Result::Ok(chunk), viewer))
        });
        let typed = PollSender::new(self.typed.clone())
            .sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe));
        Box::new(tokio::io::join(
            StreamReader::new(Box::pin(chunks)),
            SinkWriter::new(CopyToBytes::new(typed)),
        ))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewer {
    /// What was not read yet, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.grown.mark_unchanged();
            if let Some(chunk) = self.unread() {
                return Some(chunk);
            }
            if self.hub.is_closed() {
                // What came between the two looks.
                return self.unread();
            }
            self.grown.changed().await.ok()?;
        }
    }

    fn unread(&mut self) -> Option<Bytes> {
        let line = self.hub.line();
        let behind = usize::try_from(line.written - self.read).unwrap_or(usize::MAX);
        let skip = line.recent.len().saturating_sub(behind);
        let chunk: Bytes = line.recent.iter().skip(skip).copied().collect();
        self.read = line.written;
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn rest(mut viewer: Box<dyn SerialStream>) -> Vec<u8> {
        let mut all = Vec::new();
        viewer.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn late_viewer_gets_recent_output_and_the_end() {
        let (hub, _keys) = SerialHub::new();
        hub.output(b"one ");
        let viewer = hub.attach();
        hub.output(b"two");
        hub.close();
        assert_eq!(rest(viewer).await, b"one two");
        assert_eq!(rest(hub.attach()).await, b"one two");
    }

    #[tokio::test]
    async fn recent_output_is_bounded() {
        let (hub, _keys) = SerialHub::new();
        for n in 0..40 {
            hub.output(&[n; 4096]);
        }
        hub.close();
        let seen = rest(hub.attach()).await;
        assert_eq!(seen.len(), SERIAL_RECENT_BYTES);
        assert_eq!(seen.last(), Some(&39));
    }

    #[tokio::test]
    async fn slow_viewer_skips_and_the_guest_never_waits() {
        let (hub, _keys) = SerialHub::new();
        let slow = hub.attach();
        hub.output(b"lost");
        hub.output(&[b'x'; SERIAL_RECENT_BYTES]);
        hub.output(b"end");
        hub.close();
        let seen = rest(slow).await;
        assert_eq!(seen.len(), SERIAL_RECENT_BYTES);
        assert!(seen.starts_with(b"x") && seen.ends_with(b"xend"));
    }

    #[tokio::test]
    async fn waiting_viewer_is_woken() {
        let (hub, _keys) = SerialHub::new();
        let viewer = tokio::spawn(rest(hub.attach()));
        tokio::task::yield_now().await;
        hub.output(b"one ");
        tokio::task::yield_now().await;
        hub.output(b"two");
        hub.close();
        assert_eq!(viewer.await.unwrap(), b"one two");
    }

    #[tokio::test]
    async fn every_viewer_may_type() {
        let (hub, mut keys) = SerialHub::new();
        for key in [b"a", b"b"] {
            let mut viewer = hub.attach();
            viewer.write_all(key).await.unwrap();
            viewer.flush().await.unwrap();
        }
        assert_eq!(keys.recv().await.unwrap().as_ref(), b"a");
        assert_eq!(keys.recv().await.unwrap().as_ref(), b"b");
        drop(keys);
        assert!(hub.attach().write_all(b"c").await.is_err());
    }
}
