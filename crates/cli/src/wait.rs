//! `--wait`: following the event stream until things are where they should be.

mod evacuation;
mod operation;
mod request;
mod vm;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;
use vimana_client::{Client, Notice};
use vimana_model::vm::VmView;
use vimana_model::{ErrorKind, Result, VmId, VmState};

pub use evacuation::EvacuationWatch;
pub use operation::OperationWatch;
pub use request::RequestWatch;
pub use vm::VmWatch;

use crate::args::Timeout;
use crate::failure::{Failure, Outcome};
use crate::limits::{LOOK_AGAIN_AFTER, LOOK_EVERY};
use crate::text::shown;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Waiting,
    /// It will not get there; says what and why.
    Lost(String),
}

/// An event stream that was open before the thing to wait for was asked, so
/// that nothing is missed, however quickly it happens.
struct Notices {
    client: Client,
    stream: BoxStream<'static, Result<Notice>>,
    seconds: u64,
    deadline: Instant,
    /// When everything is looked at again.
    look_at: Instant,
}

impl Notices {
    async fn open(client: &Client, Timeout { timeout }: Timeout) -> Outcome<Self> {
        let mut notices = Self {
            client: client.clone(),
            stream: client.events(None).boxed(),
            seconds: timeout,
            deadline: Instant::now() + Duration::from_secs(timeout),
            look_at: Instant::now() + LOOK_EVERY,
        };
        match notices.hear(notices.deadline).await? {
            Some(Notice::Connected) => Ok(notices),
            Some(Notice::Item(_) | Notice::Progress(_) | Notice::Reset { .. }) | None => {
                Err(Failure::Failed("the event stream does not open".to_owned()))
            }
        }
    }

    /// Asks how something is now, and again while the server is away: it may
    /// be starting anew.
    async fn look<T>(&self, ask: impl AsyncFn(&Client) -> Result<T>) -> Outcome<T> {
        loop {
            match ask(&self.client).await {
                Err(error)
                    if error.kind == ErrorKind::Unavailable
                        && Instant::now() + LOOK_AGAIN_AFTER < self.deadline =>
                {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                looked => return Ok(looked?),
            }
        }
    }

    /// The next notice, or `None` when the time is up. Now and then it is as if the
    /// stream had just been opened: whoever waits looks anew.
    async fn next(&mut self) -> Outcome<Option<Notice>> {
        let now = Instant::now();
        // However much is told of other things, it is looked at in time.
        if now < self.look_at || self.deadline <= now {
            let heard = self.hear(self.look_at.min(self.deadline)).await?;
            if heard.is_some() || self.deadline <= Instant::now() {
                return Ok(heard);
            }
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        Ok(Some(Notice::Connected))
    }

    /// The next notice by then.
    async fn hear(&mut self, until: Instant) -> Outcome<Option<Notice>> {
        match tokio::time::timeout_at(until, self.stream.next()).await {
            Err(_) => Ok(None),
            Ok(Some(notice)) => Ok(Some(notice?)),
            Ok(None) => Err(Failure::Failed("the event stream has ended".to_owned())),
        }
    }
}

/// Follows a VM that is on its way to another host until it no longer is.
pub async fn until_arrived(client: &Client, id: VmId, timeout: Timeout) -> Outcome<VmView> {
    let mut notices = Notices::open(client, timeout).await?;
    loop {
        let vm = notices.look(async |client| client.vm(id).await).await?;
        if vm.state != VmState::Migrate {
            return Ok(vm);
        }
        if notices.next().await?.is_none() {
            let (name, seconds) = (shown(vm.name.as_str()), notices.seconds);
            let message = format!("{name} is still on its way after {seconds} s");
            return Err(Failure::Failed(message));
        }
    }
}

/// Progress for a person who watches.
fn tell(name: &str, what: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err, "{}: {}", shown(name), shown(what));
    }
}
