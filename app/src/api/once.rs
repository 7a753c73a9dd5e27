//! One press, one effect: a change goes out under a key of its own, and again
//! under the same one while no answer comes.

use std::time::Duration;

use futures::channel::oneshot;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ApiError, ApiResult};

/// Names one press of a button or one form sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

impl Key {
    /// A fresh one. It only has to be unique among one user's.
    #[must_use]
    pub fn fresh() -> Self {
        #[cfg(feature = "hydrate")]
        {
            let part = || js_sys::Math::random().to_bits();
            Self(format!("{:016x}{:016x}{:016x}", part(), part(), part()))
        }
        // The server answers and never asks.
        #[cfg(not(feature = "hydrate"))]
        Self(String::new())
    }
}

/// How often and how soon something is sent again while nobody answers.
pub const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_millis(1500),
    Duration::from_millis(4000),
];

/// Asks under `key` until there is an answer, or patience is at its end.
///
/// # Errors
/// What the server answered, or that it cannot be reached.
pub async fn once<T, F>(key: Key, ask: impl Fn(Key) -> F) -> ApiResult<T>
where
    F: Future<Output = ApiResult<T>>,
{
    for pause in PAUSES {
        match Box::pin(ask(key.clone())).await {
            Err(error) if error.is_unanswered() => sleep(pause).await,
            answer => return answer,
        }
    }
    Box::pin(ask(key)).await
}

/// Waits.
pub async fn sleep(time: Duration) {
    let (wake, woken) = oneshot::channel();
    set_timeout(
        move || {
            // Whoever waited may be gone by now.
            let _ = wake.send(());
        },
        time,
    );
    let _ = woken.await;
}

impl ApiError {
    fn is_unanswered(&self) -> bool {
        self.0.detail == super::error::UNREACHABLE
    }
}
