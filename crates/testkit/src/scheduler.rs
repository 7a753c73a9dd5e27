//! The real scheduler's decisions, without the network.

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use vimana_engine::{Engine, SchedulerSession};
use vimana_protocol::scheduler::{FromScheduler, ToScheduler};
use vimana_scheduler::State;

/// Frames that wait on either side.
pub const CAPACITY: usize = 1024;

/// A connected scheduler; dropping it disconnects.
pub struct TestScheduler {
    _running: DropGuard,
}

impl TestScheduler {
    /// # Panics
    /// The database fails.
    pub async fn connect(engine: &Engine) -> Self {
        let session = engine.connect_scheduler("test".to_owned()).await.unwrap();
        let (to_scheduler, incoming) = mpsc::channel(CAPACITY);
        let (outgoing, proposals) = mpsc::channel(CAPACITY);
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = carry(session, to_scheduler, proposals) => {}
                () = decide(incoming, outgoing, || std::future::ready(())) => {}
                () = token.cancelled() => {}
            }
        });
        Self {
            _running: cancel.drop_guard(),
        }
    }
}

/// The server's end of a scheduler's connection, as the real one does it.
pub async fn carry(
    session: SchedulerSession,
    to_scheduler: mpsc::Sender<ToScheduler>,
    mut proposals: mpsc::Receiver<FromScheduler>,
) {
    let (mut frames, handle) = session.split();
    let tell = async {
        while let Some(frame) = frames.recv().await {
            if to_scheduler.send(frame).await.is_err() {
                return;
            }
        }
    };
    let listen = async {
        while let Some(frame) = proposals.recv().await {
            handle.receive(frame).await;
        }
    };
    tokio::select! {
        biased;
        () = tell => {}
        () = listen => {}
    }
}

/// Decides, until the connection is gone. `hop` is awaited with everything
/// that comes in.
pub async fn decide<F: Future<Output = ()>>(
    mut incoming: mpsc::Receiver<ToScheduler>,
    outgoing: mpsc::Sender<FromScheduler>,
    hop: impl Fn() -> F,
) {
    let mut state = State::default();
    loop {
        let expiry = state.next_expiry();
        let frame = tokio::select! {
            biased;
            frame = incoming.recv() => match frame {
                Some(frame) => Some(frame),
                None => return,
            },
            () = until(expiry) => None,
        };
        hop().await;
        let now = Instant::now();
        if let Some(frame) = frame {
            state.apply(frame, now);
        }
        // One round of decisions serves all that is here already.
        while let Ok(frame) = incoming.try_recv() {
            state.apply(frame, now);
        }
        state.expire(now);
        while state.is_dirty() {
            for proposal in state.decide(now) {
                if outgoing.send(proposal).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
