//! The real scheduler's decisions, without the network.

use tokio::time::Instant;

use tokio_util::sync::{CancellationToken, DropGuard};
use vimana_engine::Engine;
use vimana_scheduler::State;

/// A connected scheduler; dropping it disconnects.
pub struct TestScheduler {
    _running: DropGuard,
}

impl TestScheduler {
    /// # Panics
    /// The database fails.
    pub async fn connect(engine: &Engine) -> Self {
        let session = engine.connect_scheduler("test".to_owned()).await.unwrap();
        let (mut outgoing, handle) = session.split();
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let serve = async move {
            let mut state = State::default();
            while let Some(frame) = outgoing.recv().await {
                state.apply(frame, Instant::now());
                for proposal in state.decide(Instant::now()) {
                    handle.receive(proposal).await;
                }
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = serve => {}
                () = token.cancelled() => {}
            }
        });
        Self {
            _running: cancel.drop_guard(),
        }
    }
}
