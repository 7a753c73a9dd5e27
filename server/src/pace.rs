//! Keeps many at once from keeping everybody else waiting.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::future::poll_fn;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// Work of many that takes time on a processor at every step, such as the TLS
/// handshakes of all hosts after a restart. The runtime takes its tasks in
/// turns: with a thousand steps ready, everything else would wait for all of
/// them. Here as many steps are ready as the pace has room for; the rest wait
/// in a line of their own. Nobody holds a place in it while waiting for the
/// other end of a connection.
#[derive(Clone)]
pub struct Pace(Arc<Semaphore>);

impl Pace {
    /// Leaves half of the processors to others.
    pub fn of_half_the_processors() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(processors.div_ceil(2))
    }

    fn of(steps: usize) -> Self {
        Self(Arc::new(Semaphore::new(steps)))
    }

    pub async fn keep<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            // Nobody closes it.
            let turn = self.0.acquire().await;
            // With the place taken, so that the next of the line is not ready
            // before everybody else has had a turn.
            yield_now().await;
            let step = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            drop(turn);
            match step {
                Poll::Ready(done) => return done,
                // Until the work wakes us.
                Poll::Pending => futures::pending!(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn others_have_their_turn_between_the_steps_of_many() {
        const MANY: usize = 100;
        let (pace, steps) = (Pace::of(1), Arc::new(AtomicUsize::new(0)));
        let many = (0..MANY).map(|_| {
            let (pace, steps) = (pace.clone(), Arc::clone(&steps));
            tokio::spawn(async move {
                let step = async { steps.fetch_add(1, Ordering::Relaxed) };
                pace.keep(step).await
            })
        });
        let many: Vec<_> = many.collect();
        // All of them come to the line, and the first at least to the work.
        yield_now().await;
        yield_now().await;
        let before = steps.load(Ordering::Relaxed);
        assert!(
            (1..MANY / 2).contains(&before),
            "{before} steps in one turn"
        );
        for done in join_all(many).await {
            done.unwrap();
        }
        assert_eq!(steps.load(Ordering::Relaxed), MANY);
    }

    #[tokio::test]
    async fn who_waits_for_another_holds_up_nobody() {
        let pace = Pace::of(1);
        let (say, told) = oneshot::channel::<u8>();
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.keep(told).await }
        });
        yield_now().await;
        pace.keep(std::future::ready(())).await;
        say.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
