//! The session with the server: dial, listen, decide, propose; and again.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vimana_protocol::dial::{Backoff, DialError, Link, LinkError, Retry, Server};
use vimana_protocol::limits::{HELLO_TIMEOUT, MAX_FRAME_BYTES};
use vimana_protocol::scheduler::{FromScheduler, PROTOCOL_VERSION, ToScheduler};

use crate::State;
use crate::limits::MAX_FRAMES_PER_READ;

const PATH: &str = "/scheduler/v1/session";

type SchedulerLink = Link<ToScheduler, FromScheduler>;

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server sent no snapshot within {} s", HELLO_TIMEOUT.as_secs())]
    NoSnapshot,
}

/// Serves the server as the scheduler called `name` until `shutdown`. A lost
/// connection is dialed again, with growing waits.
pub async fn run(server: &Server, name: &str, retry: Retry, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(retry);
    let mut said = String::new();
    while !shutdown.is_cancelled() {
        let mut opened = None;
        let Err(error) = session(server, name, &mut opened, &shutdown).await else {
            break;
        };
        // Every try fails the same while the server is away: said once.
        let says = error.to_string();
        if opened.is_some() || says != said {
            tracing::warn!(error = says, "no session with the server");
        }
        said = says;
        backoff.session_ended(opened.map_or(Duration::ZERO, |at| at.elapsed()));
        let wait = backoff.wait();
        if shutdown
            .run_until_cancelled(tokio::time::sleep(wait))
            .await
            .is_none()
        {
            break;
        }
    }
    tracing::info!("the scheduler stops");
}

/// One session; returns Ok upon shutdown. `opened` is set with the snapshot.
async fn session(
    server: &Server,
    name: &str,
    opened: &mut Option<Instant>,
    shutdown: &CancellationToken,
) -> Result<(), SessionError> {
    let dial = server.open(PATH, MAX_FRAME_BYTES);
    let Some(socket) = shutdown.run_until_cancelled(dial).await else {
        return Ok(());
    };
    let mut link = SchedulerLink::new(socket?, &FromScheduler::Heartbeat)?;
    link.send(&FromScheduler::Hello {
        protocol: PROTOCOL_VERSION,
        name: name.to_owned(),
    })?;

    let mut state = State::default();
    let Some(snapshot) = shutdown.run_until_cancelled(snapshot(&mut link)).await else {
        link.close().await;
        return Ok(());
    };
    state.apply(snapshot?, Instant::now());
    *opened = Some(Instant::now());
    tracing::info!("the session with the server is open");

    loop {
        if let Some(sent) = shutdown
            .run_until_cancelled(decide(&mut state, &mut link))
            .await
        {
            sent?;
        }
        if !state.is_dirty() {
            let Some(frame) = shutdown.run_until_cancelled(next(&mut link, &state)).await else {
                link.close().await;
                return Ok(());
            };
            if let Some(frame) = frame? {
                state.apply(frame, Instant::now());
            }
        }
        drain(&mut state, &mut link)?;
        state.expire(Instant::now());
    }
}

/// The first frame that tells anything: changes mean nothing without the
/// snapshot they change.
async fn snapshot(link: &mut SchedulerLink) -> Result<ToScheduler, SessionError> {
    let first = async {
        loop {
            match link.receive().await? {
                frame @ ToScheduler::Snapshot { .. } => return Ok(frame),
                ToScheduler::Host(_)
                | ToScheduler::Pending(_)
                | ToScheduler::Gone { .. }
                | ToScheduler::Verdict { .. }
                | ToScheduler::Heartbeat => {}
            }
        }
    };
    tokio::time::timeout(HELLO_TIMEOUT, first)
        .await
        .map_err(|_| SessionError::NoSnapshot)?
}

/// The next frame; None when the state has something to expire.
async fn next(link: &mut SchedulerLink, state: &State) -> Result<Option<ToScheduler>, LinkError> {
    let expiry = state.next_expiry();
    let expired = async {
        match expiry {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        frame = link.receive() => frame.map(Some),
        () = expired => Ok(None),
    }
}

/// Takes in what is already here, so that one round of decisions serves it all.
fn drain(state: &mut State, link: &mut SchedulerLink) -> Result<(), LinkError> {
    for _ in 0..MAX_FRAMES_PER_READ {
        match link.receive_now() {
            Some(frame) => state.apply(frame?, Instant::now()),
            None => break,
        }
    }
    Ok(())
}

async fn decide(state: &mut State, link: &mut SchedulerLink) -> Result<(), LinkError> {
    if !state.is_dirty() {
        return Ok(());
    }
    let started = Instant::now();
    let frames = state.decide(started);
    let micros = started.elapsed().as_micros();
    if !frames.is_empty() {
        tracing::debug!(frames = frames.len(), micros, "decided");
    }
    for frame in &frames {
        link.send_when_possible(frame).await?;
    }
    Ok(())
}
